"""What README and examples show is what runs."""

import re
import runpy
import subprocess
import sys
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


EXAMPLES = {
    "chat_chain.py": ["I cannot do that", "stop; value", "'judging':"],
    "streaming_chat.py": ["1) ", "'rain_commit':"],
    "langgraph_chat.py": ["I will not help", "(2 messages in the state)"],
    "own_rules.py": ["Anna Berg", "politeness & contact_details & no_numbers", "'no_phone_number': 1.0"],
    "gate.py": ["warm water.\n|2)", "old towels.|\n", "|I cannot help with that.|"],
    "agent_files.py": ["ai: [{'path': 'scratch/draft.txt'}]", "left: ['report.txt']"],
    "agent_mail.py": ["tool: Lunch at noon? Ada", "The output of read_mail was withheld", "I have read: ['Lunch"],
    "telemetry.py": ["rain.search {", "1) ", "rain.judge.duration 0.", "rain.searches 1"],
    "llama_index_chat.py": ["> How do I wash", "1) Lift", "I cannot do that", "great care. {'value': 1.0"],
    "llama_index_rag.py": ["opens at ten.", "passing True", "at nine. passing False"],
    "inner_chat_model.py": ["I keep numbers to myself", "2 drafts", "I cannot help with that."],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run_and_show_what_they_say(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    shown = capsys.readouterr().out
    assert [part for part in EXAMPLES[name] if part not in shown] == []


def test_the_page_about_observability_shows_what_runs() -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert '"name": "rain.search"' in done.stdout


def test_the_examples_are_short() -> None:
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "examples").glob("*.py")
    }
    assert EXAMPLES.keys() < lengths.keys()
    assert max(lengths.values()) < 60


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
