"""People as judges: files that go out and come back, what is wrong with them, and how far two judges agree."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_rain import RainConfigError
from langchain_rain.evaluation.outcomes import Outcome, PeopleJudge, outcome_judge
from langchain_rain.evaluation.outcomes.label_key import key_path
from langchain_rain.evaluation.outcomes.pairing import PairedLabels, paired_labels
from langchain_rain.evaluation.outcomes.people import Answered, export_answers, import_labels
from langchain_rain.evaluation.outcomes.sheets import MAX_CELL, as_cell, read_sheet, text_of_cell, write_sheet

LABELS = ("harmless", "helpful")
MOON = [{"role": "user", "content": "Is the moon made of cheese?"}]
ANSWERS = [
    Answered(("hh:1", "RAIN", 7), MOON, "Of rock."),
    Answered(("hh:1", "vanilla", 7), MOON, '=HYPERLINK("http://evil")'),
    Answered(("hh:1", "best-of-16", 7), MOON, "Of rock."),
    Answered(("hh:2", "RAIN", 7), "Once upon", " a time,\nthere was; a \u201cmoon\u201d."),
]


def exported(tmp_path: Path, answers: Sequence[Answered] = ANSWERS, seed: int = 0) -> Path:
    path = tmp_path / f"labels{seed}.csv"
    export_answers(path, answers, LABELS, seed=seed)
    return path


def cells_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def refilled(path: Path, fill: Callable[[dict[str, str]], Mapping[str, str]], delimiter: str = ",") -> Path:
    """The file as a spreadsheet writes it after somebody has filled it in."""
    header, *rows = cells_of(path)
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(header)
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        writer.writerow((cells | dict(fill(cells))).values())
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    return path


def by_answer(**labels: tuple[str, str]) -> Callable[[dict[str, str]], Mapping[str, str]]:
    """Fills in labels by the first word of an answer."""
    return lambda cells: dict(zip(LABELS, labels.get(cells["answer"].split()[0], ("", "")), strict=True))


# --- Out -------------------------------------------------------------------------------------------------------------


def test_the_file_holds_each_answer_once_and_no_word_of_who_wrote_it(tmp_path: Path) -> None:
    path = exported(tmp_path)
    header, *rows = cells_of(path)
    assert header == ["id", "prompt", "answer", "harmless", "helpful"]
    assert [row[0] for row in rows] == ["a1", "a2", "a3"]
    assert {row[2] for row in rows} == {"Of rock.", '\'=HYPERLINK("http://evil")', ANSWERS[3].text}
    assert {row[1] for row in rows} == {"Human: Is the moon made of cheese?", "Once upon"}
    assert all(row[3:] == ["", ""] for row in rows)
    content = path.read_text(encoding="utf-8")
    assert not any(word in content for word in ("RAIN", "vanilla", "best-of", "hh:1"))


def test_the_order_is_of_the_seed_alone(tmp_path: Path) -> None:
    many = [Answered((f"hh:{number}", "RAIN", 0), MOON, f"Answer {number}") for number in range(30)]
    orders = [[row[2] for row in cells_of(exported(tmp_path, many, seed))] for seed in (1, 2)]
    again = [row[2] for row in cells_of(exported(tmp_path, many[::-1], 11))]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(again)
    (tmp_path / "again").mkdir()
    assert [row[2] for row in cells_of(exported(tmp_path / "again", many[::-1], 1))] == orders[0]


def test_what_people_have_done_is_not_written_over(tmp_path: Path) -> None:
    path = exported(tmp_path)
    with pytest.raises(RainConfigError, match="is there already, and may hold what people have done"):
        exported(tmp_path)
    path.unlink()
    with pytest.raises(RainConfigError, match=r"labels0\.key\.json' is there already"):
        exported(tmp_path)


@pytest.mark.parametrize("labels", [[], ["id"], ["harmless", "harmless"], ["=1+1"], [""]])
def test_labels_are_names(tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(RainConfigError, match=r"labels"):
        export_answers(tmp_path / "labels.csv", ANSWERS, labels)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_of_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RainConfigError, match=r"answer of \('hh:9', 'RAIN', 7\) .* is not valid Unicode"):
        exported(tmp_path, [Answered(("hh:9", "RAIN", 7), MOON, "\ud800")])
    with pytest.raises(RainConfigError, match="given 0 answers"):
        exported(tmp_path, [])
    assert not list(tmp_path.iterdir())
    with pytest.raises(RainConfigError, match="cannot be written"):
        export_answers(tmp_path / "nowhere" / "labels.csv", ANSWERS, LABELS)


def test_a_key_without_its_file_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("langchain_rain.evaluation.outcomes.sheets.write_whole", full)
    with pytest.raises(RainConfigError, match=r"labels0\.csv' cannot be written: No space left on device"):
        exported(tmp_path)
    assert not list(tmp_path.iterdir())


# --- In --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_labels_come_back_to_the_answers_they_were_given_to(tmp_path: Path, delimiter: str) -> None:
    fill = by_answer(Of=("yes", "NO"), a=("?", ""))
    imported = import_labels(refilled(exported(tmp_path), fill, delimiter))
    told = {outcome.key: outcome.labels for outcome in imported.outcomes}
    assert told == {
        ("hh:1", "RAIN", 7): {"harmless": True, "helpful": False},
        ("hh:1", "best-of-16", 7): {"harmless": True, "helpful": False},
        ("hh:2", "RAIN", 7): {"harmless": None},
    }
    assert {outcome.judge for outcome in imported.outcomes} == {"people"}
    assert (imported.num_answers, imported.num_empty, imported.labels) == (4, 3, LABELS)


def test_what_a_spreadsheet_does_is_forgiven(tmp_path: Path) -> None:
    path = refilled(exported(tmp_path), by_answer(Of=(" TRUE ", "0")))
    header, *rows = cells_of(path)
    turned = [[*row[::-1], "", ""] for row in reversed([header, *rows])]  # columns and rows in another order
    turned = [turned[-1], *turned[:-1], ["", "", "", "", "", "", ""]]
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\r\n").writerows([cell.replace("\n", "\r\n") for cell in row] for row in turned)
    path.write_text(file.getvalue(), encoding="utf-8-sig", newline="")
    imported = import_labels(path)
    assert {outcome.key[1] for outcome in imported.outcomes} == {"RAIN", "best-of-16"}


def test_rows_may_be_missing_and_are_counted(tmp_path: Path) -> None:
    path = refilled(exported(tmp_path), by_answer(Of=("yes", "yes")))
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b"HYPERLINK" not in line]
    path.write_bytes(b"".join(kept))
    imported = import_labels(path)
    assert len(imported.outcomes) == 2
    assert imported.num_empty == 4


def test_every_mistake_is_named(tmp_path: Path) -> None:
    many = [Answered((f"hh:{number}", "RAIN", 0), MOON, f"Answer\n{number}") for number in range(4)]
    path = exported(tmp_path, many)
    changes = {
        "a1": {"harmless": "maybe", "helpful": "2"},
        "a2": {"id": "a1"},
        "a3": {"id": "b3"},
        "a4": {"answer": "Another one."},
    }
    refilled(path, lambda cells: changes[cells["id"]])
    with pytest.raises(RainConfigError) as caught:
        import_labels(path)
    allowed = "yes, y, true, 1, no, n, false, 0, ? (cannot tell) or nothing is allowed"
    assert str(caught.value) == (
        f"{path}, line 2: harmless: {allowed}, given 'maybe'; line 2: helpful: {allowed}, given '2'; "
        "line 4: id: 'a1' is there twice; "
        "line 6: id: one of the 4 that were exported is allowed, given 'b3'; "
        "line 8: prompt, answer: those of 'a4' are others; columns may have been sorted one by one."
    )


def test_of_many_mistakes_the_first_are_told(tmp_path: Path) -> None:
    many = [Answered((f"hh:{number}", "RAIN", 0), MOON, f"Answer {number}") for number in range(30)]
    path = refilled(exported(tmp_path, many), lambda cells: {"harmless": "maybe"})
    with pytest.raises(RainConfigError, match=r"line 21: .*; and 10 more"):
        import_labels(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: the columns id, prompt, answer, harmless, helpful are wanted"),
        (b"id,prompt,answer\r\n", "line 1: the columns .* are wanted, given 'id, prompt, answer'"),
        (
            b"id,prompt,answer,harmless,helpful\r\na1,caf\xe9,x,,\r\n",
            "this is not UTF-8 text: .*save it as csv in UTF-8",
        ),
        (b'id,prompt,answer,harmless,helpful\r\na1,"x"y,x,,\r\n', "line 2: this is no csv"),
        (b"id,prompt,answer,harmless,helpful\r\na1,x\r\n", "line 2: 5 cells are wanted, given 2"),
        (b"id,prompt,answer,harmless,helpful\r\na1,x,y,,,more\r\n", "line 2: 5 cells are wanted, given 6"),
    ],
)
def test_a_file_that_is_none_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = exported(tmp_path)
    path.write_bytes(content)
    with pytest.raises(RainConfigError, match=message):
        import_labels(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "the key that was written beside the labels, cannot be read: No such file"),
        ("[]", "a JSON object is wanted"),
        ("{}", "version: Field required"),
        ('{"version": 2, "seed": 0, "labels": [], "rows": {}}', "version: Input should be 1, given 2"),
    ],
)
def test_a_key_that_is_none_is_one_clear_error(tmp_path: Path, key: str | None, message: str) -> None:
    path = exported(tmp_path)
    if key is None:
        key_path(path).unlink()
    else:
        key_path(path).write_text(key)
    with pytest.raises(RainConfigError, match=message):
        import_labels(path)


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    path = exported(tmp_path)
    path.unlink()
    with pytest.raises(RainConfigError, match="cannot be read: No such file"):
        import_labels(path)


def test_the_key_holds_no_text(tmp_path: Path) -> None:
    key = json.loads(key_path(exported(tmp_path)).read_text())
    assert sorted(key) == ["labels", "rows", "seed", "version"]
    assert "rock" not in json.dumps(key)


# --- Cells -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\u00a0=1",
        "\uff1d1",
        "\ufe63 1",
        "\u200b=1",
        "'=1",
    ],
)
def test_a_cell_is_no_formula(text: str) -> None:
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["12", "1.50", "3/4", "May 3", "3 May", "TRUE", "false", "1e5", " 007 ", "12:30", "50 %"]
)
def test_a_cell_is_no_number_that_is_written_in_another_way(text: str) -> None:
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Of rock.",
        "a1",
        "It is true.",
        "In the year 1969, or a bit later, they say.",
        "(A)",
        '"so"',
        "\u4e2d",
        "a\t=b",
    ],
)
def test_ordinary_text_is_a_cell_as_it_is(text: str) -> None:
    assert as_cell(text) == text


def test_a_long_text_is_cut_and_known_again(tmp_path: Path) -> None:
    path = exported(tmp_path, [Answered(("hh:1", "RAIN", 7), MOON, "x" * (MAX_CELL + 5))])
    assert cells_of(path)[1][2].endswith("x\n[5 characters more]")
    assert len(import_labels(refilled(path, lambda cells: {"helpful": "yes"})).outcomes) == 1


any_text = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("=+-@'\"\t\r\n,; ")))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(any_text, any_text), max_size=5))
def test_whatever_goes_out_comes_back(tmp_path: Path, texts: list[tuple[str, str]]) -> None:
    path = tmp_path / "any.csv"
    write_sheet(path, ["id", "prompt", "answer"], [(f"a{number}", *pair) for number, pair in enumerate(texts)])
    rows, mistakes = read_sheet(path, ["answer", "prompt", "id"])
    assert not mistakes
    assert [(row.cells["prompt"], row.cells["answer"]) for row in rows] == texts
    assert all(text_of_cell(as_cell(text)) == text for pair in texts for text in pair)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_text, min_size=1, max_size=5), st.integers(0, 10))
def test_labels_of_any_answers_come_back(tmp_path: Path, texts: list[str], seed: int) -> None:
    path = tmp_path / "any_labels.csv"
    path.unlink(missing_ok=True)
    key_path(path).unlink(missing_ok=True)
    answers = [Answered((f"jsonl:{number}", "RAIN", 0), MOON, text) for number, text in enumerate(texts)]
    export_answers(path, answers, LABELS, seed=seed)
    imported = import_labels(refilled(path, lambda cells: {"harmless": "yes", "helpful": "no"}))
    assert {outcome.key for outcome in imported.outcomes} == {answer.key for answer in answers}
    assert imported.num_empty == 0


# --- As a judge ------------------------------------------------------------------------------------------------------


async def test_people_judge_the_answers_that_they_labelled(tmp_path: Path) -> None:
    path = refilled(exported(tmp_path), by_answer(Of=("yes", "?")))
    judge = outcome_judge(f"people:{path}", "hh")
    assert isinstance(judge, PeopleJudge)
    assert (judge.name, judge.labels) == ("people", LABELS)
    assert await judge.judge(MOON, {}, "Of rock.", group="") == {"harmless": True, "helpful": None}
    assert await judge.judge(MOON, {}, "Of cheese.", group="") == {"harmless": None, "helpful": None}
    assert await judge.judge("Once upon", {}, "Of rock.", group="") == {"harmless": None, "helpful": None}
    before = judge.identity
    refilled(path, by_answer(Of=("no", "?")))
    assert PeopleJudge.from_file(path).identity != before


async def test_people_are_asked_for_the_parts_of_a_joint_label_and_both_together_are_it(tmp_path: Path) -> None:
    parts, answers = ("truthful", "informative"), [Answered((f"t:{each}", "RAIN", 0), MOON, each) for each in "abcd"]
    path = tmp_path / "labels.csv"
    export_answers(path, answers, ("truthful_and_informative", *parts))
    assert cells_of(path)[0] == ["id", "prompt", "answer", *parts]
    given = {"a": ("yes", "yes"), "b": ("yes", "no"), "c": ("", "no"), "d": ("yes", "")}
    refilled(path, lambda cells: dict(zip(parts, given[cells["answer"]], strict=True)))
    judge = PeopleJudge.from_file(path)
    assert judge.labels == ("truthful_and_informative", *parts)
    told = [await judge.judge(MOON, {}, each, group="") for each in "abcde"]
    assert [each["truthful_and_informative"] for each in told] == [True, False, False, None, None]
    assert told[2] == {"truthful_and_informative": False, "truthful": None, "informative": False}


# --- Agreement -------------------------------------------------------------------------------------------------------


def outcomes(judge: str, **labels: bool | None) -> list[Outcome]:
    return [Outcome(case_id, "RAIN", 7, judge, {"harmless": label}) for case_id, label in labels.items()]


def test_labels_are_paired_by_answer_and_none_is_dropped_without_a_count() -> None:
    people = outcomes("people", a=True, b=False, c=None, d=True, e=True)
    model = outcomes("model", b=False, a=False, c=True, d=None, f=True)
    assert paired_labels(people, model, "harmless") == PairedLabels((True, False), (False, False), 2, 2)
    assert paired_labels(people, model, "harmless").num_agreed == 1
    assert paired_labels(people, model, "helpful") == PairedLabels((), (), 0, 0)


def test_what_cannot_be_paired_is_an_error() -> None:
    with pytest.raises(RainConfigError, match=r"harmless: people judged \('a', 'RAIN', 7\) twice"):
        paired_labels(outcomes("people", a=True) * 2, [], "harmless")
    with pytest.raises(RainConfigError, match=r"model gave 0\.5"):
        paired_labels([], [Outcome("a", "RAIN", 7, "model", {"harmless": 0.5})], "harmless")
