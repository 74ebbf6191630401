from typing import Any

import pytest
from pydantic import ValidationError

from langchain_rain.errors import RainError, RubricError
from langchain_rain.rubrics import Criterion, Example, Rubric
from langchain_rain.rubrics.rubric import ANSWER_PREFIX, LABELS, render_question

KIND = Criterion(name="kind", instruction="Is it kind?", good="Yes.", bad="No.")
TRUE = Criterion(name="true", instruction="Is it true?", good="Right.", bad="Wrong.")


def test_a_question_is_instruction_transcript_and_options() -> None:
    assert render_question(KIND, "Human: Hi\n\nAssistant: Hello", is_swapped=False) == (
        "Is it kind?\n\nHuman: Hi\n\nAssistant: Hello\nOptions:\n(A) Yes.\n(B) No.\n"
    )


def test_swapped_the_bad_option_stands_first() -> None:
    assert render_question(KIND, "Hello", is_swapped=True) == "Is it kind?\n\nHello\nOptions:\n(A) No.\n(B) Yes.\n"


def test_examples_stand_before_in_the_same_form_with_their_answers() -> None:
    examples = [
        Example(criterion="kind", transcript="Nice!", is_good=True),
        Example(criterion="kind", transcript="Ugh!", is_good=False),
    ]
    options = "Options:\n(A) Yes.\n(B) No.\n"
    assert render_question(KIND, "Hello", is_swapped=False, examples=examples) == (
        f"Is it kind?\n\nNice!\n{options}The answer is: (A)\n\nUgh!\n{options}The answer is: (B)\n\nHello\n{options}"
    )
    swapped = "Options:\n(A) No.\n(B) Yes.\n"
    assert render_question(KIND, "Hello", is_swapped=True, examples=examples) == (
        f"Is it kind?\n\nNice!\n{swapped}The answer is: (B)\n\nUgh!\n{swapped}The answer is: (A)\n\nHello\n{swapped}"
    )


def test_the_answer_is_begun_with_an_open_parenthesis() -> None:
    assert (ANSWER_PREFIX, LABELS) == ("The answer is: (", ("A", "B"))


def test_a_transcript_is_shown_verbatim() -> None:
    transcript = "  {braces} (A) Options:\n\\n %s \u00e4\u4e2d\U0001f327 "
    assert f"\n\n{transcript}\nOptions:" in render_question(KIND, transcript, is_swapped=False)


@pytest.mark.parametrize("name", Rubric.names_in_library())
def test_every_rubric_of_the_library_loads_under_its_name(name: str) -> None:
    rubric = Rubric.load(name)
    assert rubric.name == name
    assert rubric == Rubric.load(name)


def test_the_library_has_the_rubric_that_is_the_default() -> None:
    names = Rubric.names_in_library()
    assert "harmlessness" in names
    assert names == sorted(names)


@pytest.mark.parametrize("name", ["nothing", "", "../rubric", "harmlessness.yaml"])
def test_an_unknown_rubric_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(RubricError) as caught:
        Rubric.load(name)
    assert str(caught.value) == (
        f"There is no rubric {name!r} in the library; it holds {', '.join(Rubric.names_in_library())}."
    )


def as_read_from_yaml(value: object) -> Any:
    """`value`, of which no type is known."""
    return value


VALID: dict[str, Any] = {"name": "kind", "instruction": "Is it kind?", "good": "Yes.", "bad": "No."}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"name": ""}, "name"),
        ({"instruction": ""}, "instruction"),
        ({"good": ""}, "good"),
        ({"bad": ""}, "bad"),
        ({"weight": 0}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"veto": "perhaps"}, "veto"),
        ({"wieght": 1}, "wieght"),
    ],
)
def test_a_mistake_in_a_criterion_names_the_key_and_the_value(change: dict[str, Any], key: str) -> None:
    with pytest.raises(RubricError, match=f"^Criterion is not valid: {key}: ") as caught:
        Criterion(**{**VALID, **change})
    assert f"given {change[key]!r}" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValidationError)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(RubricError, match=r"^Criterion is not valid: bad: Field required\.$"):
        Criterion(**{key: value for key, value in VALID.items() if key != "bad"})


def test_options_that_are_the_same_are_refused() -> None:
    with pytest.raises(RubricError, match=r"good and bad are both 'Yes\.'; they must differ"):
        Criterion(**{**VALID, "bad": "Yes."})


def test_a_mistake_inside_a_rubric_is_a_rubric_error_that_names_where() -> None:
    with pytest.raises(RubricError, match=r"^Rubric is not valid: criteria\.0: .*weight") as caught:
        Rubric(name="mine", criteria=as_read_from_yaml([{**VALID, "weight": 0}]))
    assert isinstance(caught.value, RainError)
    assert isinstance(caught.value, ValueError)


def test_a_rubric_has_criteria() -> None:
    with pytest.raises(RubricError, match="criteria"):
        Rubric(name="mine", criteria=())


def test_criteria_of_the_same_name_are_refused() -> None:
    with pytest.raises(RubricError, match="criteria have the same name 'kind'; names must differ"):
        Rubric(name="mine", criteria=(KIND, TRUE, KIND))


def test_an_example_of_an_unknown_criterion_is_refused() -> None:
    example = Example(criterion="honest", transcript="Nice!", is_good=True)
    with pytest.raises(RubricError, match=r"names the criterion 'honest'; there are only \['kind', 'true'\]"):
        Rubric(name="mine", criteria=(KIND, TRUE), examples=(example,))


def test_an_aggregate_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RubricError, match="aggregate"):
        Rubric(name="mine", criteria=(KIND,), aggregate=as_read_from_yaml("median"))


def test_rubrics_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        KIND.weight = 2.0


MINE = Rubric(name="mine", criteria=(KIND, TRUE), examples=(Example(criterion="kind", transcript="Hi", is_good=True),))


def test_the_hash_is_the_same_for_the_same_content() -> None:
    again = Rubric(**MINE.model_dump())
    assert again == MINE
    assert again.content_hash == MINE.content_hash
    assert len(MINE.content_hash) == 16
    assert int(MINE.content_hash, 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"criteria": (TRUE, KIND)},
        {"criteria": (KIND.model_copy(update={"veto": True}), TRUE)},
        {"criteria": (KIND.model_copy(update={"weight": 2.0}), TRUE)},
        {"criteria": (KIND.model_copy(update={"instruction": "Is it really kind?"}), TRUE)},
        {"examples": ()},
        {"examples": (Example(criterion="kind", transcript="Hi", is_good=False),)},
    ],
)
def test_the_hash_changes_with_anything_in_the_rubric(change: dict[str, Any]) -> None:
    assert MINE.model_copy(update=change).content_hash != MINE.content_hash
