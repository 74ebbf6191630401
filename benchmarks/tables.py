"""Puts the tables of `benchmarks/results/*.json` into `benchmarks/README.md`, with what they were measured on.

python -m benchmarks.tables
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row, told
from langchain_rain.files import write_whole

FOLDER = Path(__file__).resolve().parent
NAMES = (
    *("against_vanilla", "against_naive", "scaling", "memory", "repairs", "telemetry"),
    *("servers", "client_overhead", "data_parallel"),
    "on_gpu",
    "llama_index_loop",
    "agent_attacks",
)
MARK = "<!-- What follows is written by `python -m benchmarks.tables`. -->\n"


def main() -> None:
    """Renews the tables; those of a benchmark that has not run are left out."""
    readme = FOLDER / "README.md"
    head, mark, _ = readme.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{readme} has no line {MARK.strip()!r}, behind which the tables stand.")
    paths = [FOLDER / "results" / f"{name}.json" for name in NAMES]
    reports = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()}
    sections = [section for name, report in reports.items() for section in _sections(name, report)]
    write_whole(readme, head + MARK + "\n" + "\n".join(sections))


def _sections(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    told_of = ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in report["machine"].items())
    yield f"### {name}\n\n{told_of}.\n"
    for title, rows in report["tables"].items():
        yield f"**{title}**\n\n{_markdown(rows)}"


def _markdown(rows: Sequence[Row]) -> str:
    names = list(rows[0])
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *([told(row[name]) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
