"""Benchmarks, run from the root of the repository: `python -m benchmarks.against_vanilla`.

Threads wait without spinning, read when torch loads: the searches have a thread of their own, and while one side works
the idle threads of the other would take its cores. Plain generation became ten times slower by it, not RAIN.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "0")
