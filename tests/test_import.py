import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "langchain_rain",
        "langchain_rain.engines.scripted",
        "langchain_rain.evaluation.suites",
        "langchain_rain.evaluation.comparisons",
    ],
)
def test_importing_brings_nothing_large(module: str) -> None:
    large = {"datasets", "scipy", "torch", "transformers"}
    code = f"import sys, {module}; print(sorted({large} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_the_public_names_are_there() -> None:
    import langchain_rain

    assert [name for name in langchain_rain.__all__ if not hasattr(langchain_rain, name)] == []
    assert sorted(langchain_rain.__all__) == sorted(set(langchain_rain.__all__))
