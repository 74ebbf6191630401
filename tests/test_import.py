import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "langchain_rain",
        "langchain_rain.engines.scripted",
        "langchain_rain.verdicts",
        "langchain_rain.llama_index",
        "langchain_rain.evaluation.suites",
        "langchain_rain.evaluation.comparisons",
    ],
)
def test_importing_brings_nothing_large(module: str) -> None:
    large = {"datasets", "scipy", "torch", "transformers"}
    code = f"import sys, {module}; print(sorted({large} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_importing_brings_no_llama_index_and_without_it_tells_what_to_install() -> None:
    code = (
        "import sys, langchain_rain; print('llama_index' in sys.modules); sys.modules['llama_index.core'] = None\n"
        "try: import langchain_rain.llama_index\nexcept langchain_rain.RainConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\nLlamaIndex is missing: pip install 'langchain-rain[llama-index]'.\n"


def test_the_public_names_are_there() -> None:
    import langchain_rain

    assert [name for name in langchain_rain.__all__ if not hasattr(langchain_rain, name)] == []
    assert sorted(langchain_rain.__all__) == sorted(set(langchain_rain.__all__))


def test_importing_makes_nothing_of_opentelemetry() -> None:
    """It may be there: langsmith, which comes with langchain-core, imports it where it is installed."""
    code = "import sys, langchain_rain; print(sorted(name for name in sys.modules if 'rain.telemetry.' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "langchain_rain.telemetry.spans" not in done.stdout
    assert "langchain_rain.telemetry.counters" not in done.stdout
