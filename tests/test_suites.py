"""What is answered when answers are measured: every suite, from samples, from its real files, and from bad ones."""

import datetime
import importlib
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain import RainConfigError
from langchain_rain.evaluation import demo_world
from langchain_rain.evaluation.suites import ATTACKS, SUITES, Case, SuiteData, demo, load_suite
from langchain_rain.prompts import Prompt

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
HH = "hh_harmless_base_test_2000.jsonl.gz"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the public data are not there")


def load(tmp_path: Path, suite: str, content: str | Sequence[Any], name: str = "f", **options: Any) -> SuiteData:
    """What a suite reads from a file of this text, or of these rows as JSON lines."""
    path = tmp_path / name
    text = content if isinstance(content, str) else "".join(f"{json.dumps(row)}\n" for row in content)
    path.write_text(text, encoding="utf-8")
    return load_suite(suite, str(path), **options)


def dialogue(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[number % 2]}: {turn}" for number, turn in enumerate(turns))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# --- What is true of all ---


def all_samples() -> list[SuiteData]:
    return [*map(load_suite, SUITES), *(load_suite("advbench", attack=attack) for attack in ATTACKS)]


def test_every_suite_has_samples_that_are_all_well() -> None:
    for data in all_samples():
        assert data.malformed == ()
        assert data.notes == ()
        assert len(data.cases) == data.num_rows >= 8
        assert len({case.id for case in data.cases}) == data.num_rows
        for case in data.cases:
            assert json.loads(json.dumps(case.reference)) == case.reference
            assert isinstance(case.content, str) or case.content[-1]["role"] == "user"


@needs_data
@pytest.mark.parametrize(
    ("suite", "file", "num_rows"),
    [
        ("hh", HH, 2000),
        ("advbench", "advbench_harmful_behaviors.csv", 521),
        ("truthfulqa", "TruthfulQA.csv", 817),
        ("xstest", "xstest_prompts.csv", 450),
    ],
)
def test_the_public_data_are_read_to_the_last_row(suite: str, file: str, num_rows: int) -> None:
    data = load_suite(suite, str(DATA / file))
    assert (data.num_rows, len(data.cases), data.malformed) == (num_rows, num_rows, ())
    assert all(case.content for case in data.cases)


def test_a_suite_or_attack_that_there_is_not_is_one_error() -> None:
    with pytest.raises(RainConfigError, match="demo, hh, advbench, truthfulqa, xstest, jsonl are allowed, given 'hhh'"):
        load_suite("hhh")
    with pytest.raises(RainConfigError, match="hh has none but plain, given 'suffix'"):
        load_suite("hh", attack="suffix")
    with pytest.raises(RainConfigError, match="plain, suffix, prefill are allowed, given 'poem'"):
        load_suite("advbench", attack="poem")
    with pytest.raises(RainConfigError, match="the suite demo makes its own"):
        load_suite("demo", "f.csv")


def test_a_file_of_something_else_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RainConfigError, match=r"none of its 2 rows is one of hh. The first: .*line 1: chosen"):
        load(tmp_path, "hh", [{"prompt": "a"}, {"prompt": "b"}])
    with pytest.raises(RainConfigError, match="csv with the columns prompt and type and label is wanted"):
        load(tmp_path, "xstest", "goal,target\na,b\n")
    with pytest.raises(RainConfigError, match=r"none of its 0 rows is one of truthfulqa. It is empty"):
        load(tmp_path, "truthfulqa", "Question,Best Answer,Correct Answers,Incorrect Answers\n")


def test_bad_rows_are_kept_apart_with_their_reasons_and_change_no_number(tmp_path: Path) -> None:
    content = "goal,target\nFirst,t\n ,t\nThird,t\nNull\0,t\nFifth\n"
    data = load(tmp_path, "advbench", content, "f.csv")
    assert [case.id for case in data.cases] == ["advbench:1", "advbench:3"]
    assert [(each.where.rpartition(", ")[2], each.reason) for each in data.malformed] == [
        ("line 3", "goal: a text is wanted, given ' '."),
        ("line 5", "goal: a text without NUL characters is wanted, given 'Null\\x00'."),
        ("line 6", "2 columns are wanted, as in the header, given 1."),
    ]
    assert data.num_rows == 5


def test_the_second_of_two_rows_with_one_id_is_malformed(tmp_path: Path) -> None:
    row = {"id": 7, "prompt": "p", "type": "t", "label": "safe"}
    data = load(tmp_path, "xstest", [row, {**row, "id": "7"}, {**row, "id": 8}])
    assert [case.id for case in data.cases] == ["xstest:7", "xstest:8"]
    (bad,) = data.malformed
    assert bad.reason.startswith("the id 'xstest:7' is that of ")
    assert bad.reason.endswith("line 1 too.")


# --- The draw ---

CASES = tuple(Case(f"s:{number}", f"text {number}") for number in range(40))
SUITE = SuiteData("s", "a file", CASES, (), 43)


def test_a_draw_is_in_the_order_of_the_file_and_depends_on_its_seed_alone() -> None:
    drawn = SUITE.sampled(10, seed=3)
    assert drawn == SUITE.sampled(10, seed=3)
    assert len(drawn.cases) == 10
    assert list(drawn.cases) == [case for case in CASES if case in drawn.cases]
    assert drawn.cases != SUITE.sampled(10, seed=4).cases
    assert drawn.source == "a file; 10 of 40 cases, drawn at random with seed 3"
    assert drawn.num_rows == 43
    assert drawn.cases_hash != SUITE.cases_hash


@given(st.integers(1, 45), st.integers(1, 45), st.integers())
def test_a_larger_draw_holds_the_smaller_one(first: int, second: int, seed: int) -> None:
    few, many = sorted((first, second))
    small, large = ({case.id for case in SUITE.sampled(limit, seed).cases} for limit in (few, many))
    assert small <= large
    assert len(large) == min(many, 40)


def test_no_limit_and_one_that_is_large_enough_take_all() -> None:
    assert SUITE.sampled(None) is SUITE
    assert SUITE.sampled(40) is SUITE
    with pytest.raises(RainConfigError, match="limit: a number from 1 on is allowed"):
        SUITE.sampled(0)


def test_the_hash_of_a_case_is_that_of_its_prompt_but_for_a_prefill() -> None:
    assert Case("1", "text").input_hash == Prompt("2", "text").input_hash
    assert Case("1", [user("a")]).input_hash == Prompt("2", [user("a")]).input_hash
    assert Case("1", "text", prefill="Sure").input_hash not in (Case("1", "text").input_hash, Case("1", "").input_hash)


# --- HH ---


def test_a_pair_is_asked_up_to_the_last_turn_of_the_assistant(tmp_path: Path) -> None:
    (case,) = load(
        tmp_path, "hh", [{"chosen": dialogue("a", "b", "c", "good"), "rejected": dialogue("a", "b", "c", "bad")}]
    ).cases
    assert case.content == [user("a"), assistant("b"), user("c")]
    assert case.reference == {"chosen": "good", "rejected": "bad", "num_turns": 2}
    assert (case.id, case.group, case.remarks) == ("hh:1", "several turns", ())


def test_answers_that_go_on_with_turns_of_their_own_begin_where_the_dialogues_part(tmp_path: Path) -> None:
    pair = {"chosen": dialogue("a", "b", "c", "good"), "rejected": dialogue("a", "bad")}
    data = load(tmp_path, "hh", [pair])
    (case,) = data.cases
    assert case.content == [user("a")]
    assert case.reference == {"chosen": "b\n\nHuman: c\n\nAssistant: good", "rejected": "bad", "num_turns": 1}
    assert data.notes == ("1 of 1 cases: an answer goes on with turns of its own",)


def test_two_turns_of_the_assistant_are_one_message_and_an_empty_answer_is_told(tmp_path: Path) -> None:
    start = dialogue("a", "b") + "\n\nAssistant: b too\n\nHuman: c\n\nAssistant:"
    data = load(tmp_path, "hh", [{"chosen": start, "rejected": f"{start} bad"}])
    (case,) = data.cases
    assert case.content == [user("a"), assistant("b\n\nb too"), user("c")]
    assert case.reference["chosen"] == ""
    assert data.notes == (
        "1 of 1 cases: an answer is empty",
        "1 of 1 cases: turns of one speaker in a row are one message",
    )


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (dialogue("a", "b"), dialogue("other", "b"), "they have no prompt in common"),
        ("Hello\n\nAssistant: b", "Hello\n\nAssistant: c", 'a dialogue that begins with "Human:" is wanted'),
        (dialogue("a", "", "c", "d"), dialogue("a", "", "c", "e"), "turn 2 of the dialogue is empty"),
        (dialogue("a", "b\n\nAssistant: c"), dialogue("a", "b\n\nAssistant: d"), "is the assistant's"),
        (7, dialogue("a", "b"), "chosen: a text is wanted, given 7"),
    ],
)
def test_a_pair_without_a_prompt_is_malformed(tmp_path: Path, chosen: Any, rejected: Any, reason: str) -> None:
    good = {"chosen": dialogue("a", "b"), "rejected": dialogue("a", "c")}
    data = load(tmp_path, "hh", [{"chosen": chosen, "rejected": rejected}, good])
    assert [case.id for case in data.cases] == ["hh:2"]
    assert reason in data.malformed[0].reason


def test_of_a_red_team_transcript_the_first_question_is_asked(tmp_path: Path) -> None:
    rows = [
        {"transcript": dialogue("Do it.", "No.", "", "No."), "rating": 4.0, "tags": None},
        {"transcript": "\n\nHuman: Do it."},
    ]
    path = tmp_path / "red_team_attempts.json"
    path.write_text(json.dumps(rows))
    data = load_suite("hh", str(path))
    assert data.cases == (Case("hh:1", [user("Do it.")], ("red team",), {"rating": 4.0, "tags": None}),)
    assert [each.where.rpartition(", ")[2] for each in data.malformed] == ["entry 2"]
    assert 'no "Assistant:" follows the question' in data.malformed[0].reason


@needs_data
def test_the_public_pairs_are_asked_with_what_they_have_in_common() -> None:
    data = load_suite("hh", str(DATA / HH))
    assert data.notes == (
        "4 of 2000 cases: an answer goes on with turns of its own",
        "4 of 2000 cases: an answer is empty",
        "4 of 2000 cases: turns of one speaker in a row are one message",
    )
    assert Counter(case.group for case in data.cases) == {"several turns": 1421, "one turn": 579}
    for case in data.cases:
        roles = [message["role"] for message in case.content if not isinstance(message, str)]
        assert roles == ["user", *["assistant", "user"] * (len(roles) // 2)]


# --- AdvBench ---

ADV = {"goal": "Do harm", "target": "Sure, here is how to do harm", "controls": " now !! "}


def test_each_attack_asks_in_its_own_way(tmp_path: Path) -> None:
    plain, suffix, prefill = (load(tmp_path, "advbench", [ADV], attack=attack).cases[0] for attack in ATTACKS)
    reference = {"goal": "Do harm", "target": "Sure, here is how to do harm"}
    assert plain == Case("advbench:1", [user("Do harm")], ("plain",), reference)
    suffixed = [user("Do harm  now !! ")]
    assert suffix == Case("advbench:1", suffixed, ("suffix",), reference | {"suffix": " now !! "})
    assert prefill == Case("advbench:1", [user("Do harm")], ("prefill",), reference, prefill="Sure, here is how to")
    assert len({case.input_hash for case in (plain, suffix, prefill)}) == 3


def test_a_short_target_is_the_whole_prefill(tmp_path: Path) -> None:
    (case,) = load(tmp_path, "advbench", [{**ADV, "target": " Sure,\nhere "}], attack="prefill").cases
    assert case.prefill == "Sure,\nhere"


def test_what_an_attack_needs_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(RainConfigError, match="csv with the columns goal and controls is wanted"):
        load(tmp_path, "advbench", "goal,target\na,b\n", attack="suffix")
    data = load(tmp_path, "advbench", [ADV, {"goal": "g", "controls": ["x"]}, {"goal": "g"}], attack="suffix")
    assert [each.reason for each in data.malformed] == [
        "controls: a text is wanted, given ['x'].",
        "controls: a text is wanted, given None.",
    ]
    assert len(load(tmp_path, "advbench", [ADV, {"goal": "g"}]).cases) == 2


# --- TruthfulQA, XSTest ---


def test_the_answers_to_a_question_are_told_apart(tmp_path: Path) -> None:
    header = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    rows = 'A,Law,Is it? ,No,"No; It is not;",Yes; ;It is,\nA,Law,Is it?,No,No,;,\n'
    data = load(tmp_path, "truthfulqa", header + rows)
    assert data.cases == (
        Case(
            "truthfulqa:1",
            [user("Is it?")],
            ("Law",),
            {
                "best_answer": "No",
                "correct_answers": ["No", "It is not"],
                "incorrect_answers": ["Yes", "It is"],
                "type": "A",
                "source": "",
            },
        ),
    )
    assert [each.reason for each in data.malformed] == ["incorrect_answers: at least one answer is wanted, given ';'."]


def test_answers_may_be_lists(tmp_path: Path) -> None:
    row = {"question": "q", "best_answer": "b", "correct_answers": ["b", "c; d"], "incorrect_answers": ["e"]}
    (case,) = load(tmp_path, "truthfulqa", [row]).cases
    assert case.reference["correct_answers"] == ["b", "c; d"]


@needs_data
def test_every_best_answer_of_the_public_data_is_among_the_correct_ones() -> None:
    for case in load_suite("truthfulqa", str(DATA / "TruthfulQA.csv")).cases:
        assert case.reference["best_answer"] in case.reference["correct_answers"]


@needs_data
def test_the_public_requests_are_250_safe_and_200_unsafe_ones() -> None:
    data = load_suite("xstest", str(DATA / "xstest_prompts.csv"))
    assert Counter(case.reference["label"] for case in data.cases) == {"safe": 250, "unsafe": 200}
    assert len({case.group for case in data.cases}) == 18
    assert Counter(case.groups[0] for case in data.cases) == {"safe requests": 250, "unsafe requests": 200}


def test_a_label_that_is_neither_is_malformed(tmp_path: Path) -> None:
    data = load(tmp_path, "xstest", "prompt,type,label\np,t,safe\np,t,Safe\n")
    assert [case.id for case in data.cases] == ["xstest:1"]
    assert data.malformed[0].reason == "label: safe and unsafe are allowed, given 'Safe'."


# --- The user's own, and the demo world ---


def test_prompts_of_the_users_keep_their_ids_and_all_that_is_said_of_them(tmp_path: Path) -> None:
    rows = [
        {"id": 4, "prompt": " text\n", "reference": "r", "group": "g", "prefill": "So", "more": 1},
        {"messages": [user("a")], "reference": {"good": ["x"]}, "more": 2},
        {"prompt": "p", "messages": [user("a")]},
    ]
    data = load(tmp_path, "jsonl", rows)
    assert data.cases == (
        Case("4", " text\n", ("g",), {"more": 1, "reference": "r"}, "So"),
        Case("jsonl:2", [user("a")], (), {"more": 2, "good": ["x"]}),
    )
    assert data.malformed[0].reason.startswith("prompt or messages is wanted, given both.")


def test_the_demo_suite_asks_unseen_requests_and_knows_what_they_are() -> None:
    data = load_suite("demo")
    requests = [demo.request_of(case) for case in data.cases]
    assert Counter(request.kind for request in requests) == {"harmful": 50, "late": 25, "plain": 15, "contact": 10}
    assert {request.split for request in requests} == {"test"}
    assert len({request.text for request in requests}) == 100
    assert [case.content for case in data.cases] == [demo_world.as_prompt(request) for request in requests]
    assert data.cases[0].reference["kind"] == data.cases[0].group == "harmful"


def test_a_larger_limit_of_the_demo_suite_adds_cases_and_changes_none() -> None:
    all_cases = load_suite("demo", limit=600).cases
    assert len({case.content for case in all_cases}) == 600
    for limit in (1, 2, 7, 20, 100, 333):
        assert load_suite("demo", limit=limit).cases == all_cases[:limit]
    for limit in (0, 601):
        with pytest.raises(RainConfigError, match=f"the suite demo has 1 to 600 cases, given {limit}"):
            load_suite("demo", limit=limit)


# --- The Hub ---


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A fake of datasets, and what it was asked for."""
    asked: list[Any] = []
    day = datetime.date(2026, 1, 2)
    rows = [{"transcript": dialogue("a", "b"), "day": day}, {"transcript": dialogue("a", "b"), "rating": math.nan}]

    class DatasetsError(Exception):
        pass

    def load_dataset(path: str, **options: str) -> Any:
        asked.append((path, options))
        if path == "broken/set":
            raise DatasetsError("It cannot be made.")
        splits = {"train": rows} if path == "one/split" else {"train": rows, "test": rows[:1]}
        return splits[options["split"]] if "split" in options else splits

    fake = SimpleNamespace(load_dataset=load_dataset, exceptions=SimpleNamespace(DatasetsError=DatasetsError))
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: fake if name == "datasets" else real(name))
    return asked


def test_a_data_set_of_the_hub_is_read_like_a_file(hub: list[Any]) -> None:
    data = load_suite("hh", "hf://owner/set?split=train&data_dir=red-team-attempts")
    assert hub == [("owner/set", {"split": "train", "data_dir": "red-team-attempts"})]
    assert data.cases == (Case("hh:1", [user("a")], ("red team",), {"day": "2026-01-02"}),)
    assert [each.where for each in data.malformed] == ["hf://owner/set?split=train&data_dir=red-team-attempts, row 2"]
    assert len(load_suite("hh", "hf://one/split").cases) == 1


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("hf://owner/set", "has the splits train, test: say which"),
        ("hf://", "is no address of a data set"),
        ("hf://owner/set?splt=test", "is no address of a data set"),
        ("hf://owner/set?split", "cannot be read: bad query field"),
        ("hf://broken/set", "cannot be loaded: It cannot be made."),
    ],
)
def test_a_data_set_that_cannot_be_read_is_one_error(hub: list[Any], address: str, reason: str) -> None:
    with pytest.raises(RainConfigError, match=reason):
        load_suite("hh", address)


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RainConfigError, match=r"pip install 'langchain-rain\[datasets\]'"):
        load_suite("hh", "hf://owner/set")
