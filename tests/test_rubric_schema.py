"""The JSON Schema by which editors check rubrics."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import langchain_rain.rubrics
from scripts.rubric_schema import PATH, main, rubric_schema

LIBRARY = sorted((Path(langchain_rain.rubrics.__file__).parent / "library").glob("*.yaml"))

QUESTION = {"name": "kind", "instruction": "Is it kind?", "good": "Yes.", "bad": "No."}
CRITERIA: list[dict[str, Any]] = [
    QUESTION,
    {**QUESTION, "kind": "question"},
    {"name": "kind", "kind": "yes_no", "question": "Is it kind?", "good": "yes"},
    {"name": "kind", "kind": "scale", "instruction": "How kind is it?", "worst": "Not.", "best": "Very."},
    {"name": "kind", "kind": "pattern", "must_match": "please"},
    {"name": "kind", "kind": "callable"},
    {"name": "kind", "kind": "guard", "form": "llama_guard", "categories": ["Insults"]},
]


def is_valid(rubric: Any) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    return bool(jsonschema.Draft202012Validator(rubric_schema()).is_valid(rubric))


def test_the_file_is_current() -> None:
    assert main(["--check"]) == 0, "run: python scripts/rubric_schema.py"


def test_the_file_ends_with_one_newline() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert text.endswith("}\n")


def test_check_finds_a_file_that_differs_or_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schema.json"
    assert main(["--check", "--path", str(path)]) == 1
    assert "run: python scripts/rubric_schema.py" in capsys.readouterr().err
    assert main(["--path", str(path)]) == 0
    assert main(["--check", "--path", str(path)]) == 0
    path.write_text(path.read_text(encoding="utf-8").replace("question", "Question"), encoding="utf-8")
    assert main(["--check", "--path", str(path)]) == 1


def test_only_a_question_may_go_without_its_kind() -> None:
    kinds = {
        definition["properties"]["kind"]["const"]: "kind" in definition["required"]
        for definition in rubric_schema()["$defs"].values()
        if "kind" in definition["properties"]
    }
    assert kinds == {
        "question": False,
        "yes_no": True,
        "scale": True,
        "pattern": True,
        "callable": True,
        "guard": True,
    }


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_every_rubric_of_the_library_is_valid(path: Path) -> None:
    assert is_valid(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: criterion.get("kind", "none"))
def test_every_kind_of_criterion_is_valid_as_itself_alone(criterion: dict[str, Any]) -> None:
    assert is_valid({"name": "kind", "criteria": [criterion]})
    assert not is_valid({"name": "kind", "criteria": [{**criterion, "kind": "essay"}]})
    assert not is_valid({"name": "kind", "criteria": [{**criterion, "hint": "Be kind."}]})


def test_a_kind_other_than_a_question_is_not_guessed_from_its_keys() -> None:
    for criterion in CRITERIA[2:]:
        without_kind = {key: value for key, value in criterion.items() if key != "kind"}
        assert not is_valid({"name": "kind", "criteria": [without_kind]}), criterion


@pytest.mark.parametrize("rubric", [{}, {"name": "kind"}, {"name": "kind", "criteria": []}, {"criteria": [QUESTION]}])
def test_a_rubric_without_a_name_or_criteria_is_not_valid(rubric: dict[str, Any]) -> None:
    assert not is_valid(rubric)
