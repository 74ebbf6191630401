"""What README and examples show is what runs."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_example_of_the_readme_is_the_example_that_is_kept() -> None:
    example = (ROOT / "examples" / "demo_chain.py").read_text(encoding="utf-8")
    assert example.split('"""\n\n', 1)[1] == _python_blocks()[0]


def test_the_demo_example_answers_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "demo_chain.py"), run_name="__main__")
    assert "1) " in capsys.readouterr().out


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
