"""`langchain-rain run`: one answer per prompt, however often it is stopped, and every failure named."""

import asyncio
import dataclasses
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from langchain_rain import EngineError, batch_progress, judging
from langchain_rain.answerer import Tried
from langchain_rain.batch import MAX_FAILURES_ON_END, Tally
from langchain_rain.concurrency import as_they_come
from langchain_rain.engines.loading import demo_model_path
from langchain_rain.evaluation.demo_world import as_prompt, test_requests
from langchain_rain.prompts import Prompt, read_prompts
from tests.scripted_batch import Echo, Row, Run, gone, kill_when, rows_in
from tests.test_cli import Terminal
from tests.test_ledger import disk_full_at


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


# --- Rows --------------------------------------------------------------------------------------------------------


def test_a_text_is_continued_and_a_conversation_is_answered(run: Run) -> None:
    run.give({"id": 7, "prompt": "soup"}, {"id": "seven", "messages": [{"role": "user", "content": "Soup?"}]})
    assert run() == 0
    assert run.answers == {"7": " One soup.", "seven": "One Human: Soup?\n\nAssistant:."}


def test_a_row_tells_what_happened_and_keeps_what_else_was_given(run: Run) -> None:
    run.give({"prompt": "soup", "course": 1})
    assert run() == 0
    (row,) = rows_in(run.out)
    assert row["finish_reason"] == "stop"
    assert row["usage"]["completion_tokens"] == row["rain"]["num_tokens"] == 2
    assert row["rain"]["is_satisfied"]
    assert row["rain"]["rubric"]["name"] == "edible"
    assert row["input"] == {"course": 1}
    assert row["seconds"] >= 0


def test_a_row_without_id_goes_by_the_number_of_its_line(run: Run) -> None:
    run.prompts.write_bytes(b'\xef\xbb\xbf{"prompt": "soup"}\r\n\n{"prompt": "bread"}')
    assert run() == 0
    assert run.answers == {"1": " One soup.", "3": " One bread."}


def test_answers_do_not_depend_on_how_many_are_under_way(run: Run) -> None:
    run.give(*(f"dish {number}" for number in range(20)))
    assert run("--concurrency", "1") == 0
    alone = run.answers
    assert list(alone) == [str(number) for number in range(1, 21)]
    run.out.unlink()
    assert run("--concurrency", "7") == 0
    assert run.answers == alone


def test_a_refusal_is_an_answer_and_is_counted(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.give("soup", "bread")
    assert run("--max-forward-tokens", "1") == 0
    assert run.answers == dict.fromkeys("12", "I cannot help with that.")
    assert "2/2 answered, 0 failed" in (err := capsys.readouterr().err)
    assert "2 not satisfied." in err


def test_raise_makes_a_failure_of_what_is_not_satisfied(run: Run) -> None:
    run.give("soup")
    assert run("--max-forward-tokens", "1", "--on-unsatisfied", "raise") == 1
    (row,) = rows_in(run.failed)
    assert (row["id"], row["kind"], row["is_retryable"]) == ("1", "BudgetExceededError", False)


# --- Going on ----------------------------------------------------------------------------------------------------


def test_what_is_answered_is_not_asked_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.give("soup")
    assert run() == 0
    run.give("soup", "bread")
    assert run() == 0
    assert run.engine.prompts == ["soup", "bread"]
    assert f"1 of 2 rows are in {run.out} already." in capsys.readouterr().err
    assert run() == 0
    assert len(run.engine.prompts) == 2
    assert "2/2 answered, 0 failed;" in capsys.readouterr().err


def test_with_one_request_in_twenty_failing_every_row_is_answered_or_named_and_the_next_run_answers_the_rest(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(7)
    run.engine = Echo(lambda prompt: gone(prompt) if dice.random() < 0.05 else None)
    run.give(*(f"dish {number}" for number in range(200)))
    assert run() == 1
    failed = {row["id"]: row for row in rows_in(run.failed)}
    assert 0 < len(failed) < 40
    assert sorted([*run.answers, *failed], key=int) == [str(number) for number in range(1, 201)]
    for row in failed.values():
        dish = f"dish {int(row['id']) - 1}"
        told = {"error": f"Nobody is there for {dish}.", "kind": "EngineError", "is_retryable": True}
        assert row == {"id": row["id"], **told}
    assert f"What failed is named in {run.failed}, with the reason." in capsys.readouterr().err
    run.engine = Echo()
    assert run() == 0
    assert len(run.answers) == 200
    assert len(run.engine.prompts) == len(failed)
    assert not run.failed.exists()


def test_the_failures_are_those_of_the_last_run(run: Run) -> None:
    run.engine = Echo(lambda prompt: gone(prompt) if prompt in "ab" else None)
    run.give("a", "b", "c")
    assert run() == 1
    run.engine = Echo(lambda prompt: gone(prompt) if prompt == "b" else None)
    assert run() == 1
    assert [row["id"] for row in rows_in(run.failed)] == ["2"]


@pytest.mark.parametrize(
    "changed", [["--seed", "1"], ["--max-tokens", "9"], ["--preset", "fast"], ["--stop", "x"], ["--max-seconds", "9"]]
)
def test_a_run_by_other_settings_does_not_go_on(
    run: Run, changed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run.engine = Echo(lambda prompt: gone(prompt) if prompt == "bread" else None)
    run.give("soup", "bread")
    assert run() == 1
    assert run(*changed) == 2
    assert f"{run.out} holds rows that were made by other settings" in capsys.readouterr().err
    assert len(run.engine.prompts) == 2
    assert [row["id"] for row in rows_in(run.failed)] == ["2"]  # no run, so what is told of the last one stays


def test_an_id_that_was_answered_for_another_prompt_is_a_mistake(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.give("soup")
    assert run() == 0
    run.give("bread", "soup")
    assert run() == 2
    assert "a row with the id '1' that was made from another input" in capsys.readouterr().err


def test_a_server_that_is_gone_ends_the_run_and_leaves_the_rest_untried(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.engine = Echo(gone)
    run.give(*(f"dish {number}" for number in range(100)))
    assert run("--concurrency", "4") == 3
    assert len(rows_in(run.failed)) == MAX_FAILURES_ON_END == 20
    assert len(run.engine.prompts) <= 20 + 4
    assert "20 rows on end failed in a way that may pass" in (err := capsys.readouterr().err)
    assert "the same command goes on with the rest" in err
    run.engine = Echo()
    assert run() == 0
    assert len(run.answers) == 100


def test_an_answer_between_failures_shows_that_somebody_is_there(run: Run) -> None:
    run.engine = Echo(lambda prompt: gone(prompt) if int(prompt) % 20 else None)
    run.give(*map(str, range(1, 101)))
    assert run("--concurrency", "1") == 1  # 19 fail, one is answered, five times
    assert list(run.answers) == ["20", "40", "60", "80", "100"]


def test_failures_of_prompts_end_no_run(run: Run) -> None:
    run.engine = Echo(lambda prompt: EngineError(f"The prompt is too long: {prompt}."))
    run.give(*(f"dish {number}" for number in range(50)))
    assert run() == 1
    assert len(rows_in(run.failed)) == 50


def test_failures_that_all_say_the_same_end_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.engine = Echo(lambda prompt: EngineError("No such model.") if prompt != "dish 9" else None)
    run.give(*(f"dish {number}" for number in range(100)))
    assert run("--concurrency", "1") == 3
    assert [row["id"] for row in rows_in(run.failed)] == [str(number) for number in range(1, 31) if number != 10]
    assert list(run.answers) == ["10"]
    assert "20 rows on end failed for one reason, so the others were not tried: No such model.\n" in (
        err := capsys.readouterr().err
    )
    assert "the same command goes on with the rest" in err


def test_failures_that_may_pass_and_those_that_will_not_are_not_counted_together(run: Run) -> None:
    run.engine = Echo(lambda prompt: gone(prompt) if int(prompt) % 2 else EngineError("No such model."))
    run.give(*map(str, range(60)))
    assert run("--concurrency", "1") == 1


def test_answers_that_are_not_satisfied_end_no_run(run: Run) -> None:
    run.give(*(f"dish {number}" for number in range(50)))
    assert run("--max-forward-tokens", "1", "--on-unsatisfied", "raise") == 1
    assert len({row["error"] for row in rows_in(run.failed)}) == 1
    assert len(rows_in(run.failed)) == 50


def test_ctrl_c_keeps_what_is_answered_and_tells_how_to_go_on(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt_at_the_fifth(prompt: str) -> None:
        if prompt == "dish 4":
            signal.raise_signal(signal.SIGINT)

    run.engine = Echo(interrupt_at_the_fifth)
    run.give(*(f"dish {number}" for number in range(500)))
    assert run("--concurrency", "2") == 130
    num_answered = len(run.answers)
    assert 3 <= num_answered < 500
    err = capsys.readouterr().err
    assert f"{num_answered}/500 answered" in err
    assert f"What is answered stands in {run.out}; the same command goes on with the rest.\n\nStopped." in err
    run.engine = Echo()
    assert run() == 0
    assert len(run.answers) == 500


def test_a_full_disk_ends_the_run_with_whole_rows(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.give(*(f"dish {number}" for number in range(50)))
    with disk_full_at(5000):
        assert run() == 2
    assert f"'{run.out}' cannot be written: File too large." in capsys.readouterr().err
    assert 0 < len(run.answers) < 50
    assert run() == 0
    assert len(run.answers) == 50


def test_failures_that_cannot_be_named_end_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.engine = Echo(gone)
    run.give(*(f"dish {number}" for number in range(10)))
    with disk_full_at(300):
        assert run() == 2
    assert f"'{run.failed}' cannot be written: File too large." in capsys.readouterr().err
    run.failed.unlink()
    run.failed.mkdir()
    assert run() == 2
    assert f"'{run.failed}' cannot be written: Is a directory." in capsys.readouterr().err


# --- Not begun ---------------------------------------------------------------------------------------------------


def fail_to_load(given: Any, argument: str) -> Any:
    raise EngineError("The server is not there.")


def test_a_run_that_cannot_start_leaves_no_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.give("soup")
    before = sorted(run.out.parent.iterdir())
    monkeypatch.setattr(judging, "load_engine", fail_to_load)
    assert run() == 3
    assert run("--preset", "papre") == 2
    run.prompts.write_text("no row")
    assert run() == 2
    assert sorted(run.out.parent.iterdir()) == before


def test_a_run_that_cannot_start_leaves_what_was_there_as_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.engine = Echo(lambda prompt: gone(prompt) if prompt == "bread" else None)
    run.give("soup", "bread")
    assert run() == 1
    before = run.out.read_bytes(), run.failed.read_bytes()
    monkeypatch.setattr(judging, "load_engine", fail_to_load)
    assert run() == 3
    assert (run.out.read_bytes(), run.failed.read_bytes()) == before


def test_an_empty_file_that_was_there_stays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.give("soup")
    run.out.touch()
    monkeypatch.setattr(judging, "load_engine", fail_to_load)
    assert run() == 3
    assert run.out.read_bytes() == b""


def test_a_run_that_is_stopped_before_its_first_row_leaves_the_failures_of_the_one_before(run: Run) -> None:
    run.engine = Echo(gone)
    run.give("soup")
    assert run() == 1
    before = run.failed.read_bytes()
    run.engine = Echo(lambda prompt: signal.raise_signal(signal.SIGINT))
    assert run() == 130
    assert run.failed.read_bytes() == before
    assert not run.out.exists()


def test_failures_are_forgotten_where_nothing_is_left_to_try(run: Run) -> None:
    run.engine = Echo(lambda prompt: gone(prompt) if prompt == "bread" else None)
    run.give("soup", "bread")
    assert run() == 1
    run.give("soup")
    assert run() == 0
    assert not run.failed.exists()


@pytest.mark.parametrize(
    ("out", "failed"),
    [("a.jsonl", "a.failed.jsonl"), ("a.v1", "a.v1.failed.jsonl"), ("a.v2", "a.v2.failed.jsonl")],
)
def test_each_file_of_answers_has_its_own_file_of_failures(run: Run, out: str, failed: str) -> None:
    run.engine = Echo(gone)
    run.give("soup")
    assert run("--out", str(run.out.with_name(out))) == 1
    assert len(rows_in(run.out.with_name(failed))) == 1


# --- Killing -----------------------------------------------------------------------------------------------------


def killed(arguments: list[str], out: Path, *, num_kills: int, whole_size: int) -> int:
    """Runs a command again and again, killing it so many times; returns how it ended by itself.

    Each time it may write up to a quarter of what is missing, as drawn at random, so that it never comes to the end.
    """
    dice = random.Random(7)
    for _ in range(num_kills):
        written = out.stat().st_size if out.exists() else 0
        size = written + dice.randrange(1, (whole_size - written) // 4)
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
        try:
            kill_when(process.pid, out, size, has_ended=lambda process=process: process.poll() is not None)  # type: ignore[misc]
            assert process.wait(60) == -signal.SIGKILL
        finally:
            process.kill()
    return subprocess.run(arguments, stderr=subprocess.DEVNULL, timeout=120, check=False).returncode


def without_seconds(path: Path) -> dict[str, Row]:
    rows = rows_in(path)
    by_id = {row["id"]: {key: value for key, value in row.items() if key != "seconds"} for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def test_a_run_that_is_killed_gives_each_answer_once_and_the_same_as_one_that_is_not(run: Run) -> None:
    run.give(*(f"dish {number}" for number in range(1000)))
    whole = run.out.with_name("whole.jsonl")
    code = "from tests.scripted_batch import main; main()"
    command = [sys.executable, "-c", code, "run", str(run.prompts), "--rubric", str(run.rubric), "--out"]
    assert subprocess.run([*command, str(whole)], stderr=subprocess.DEVNULL, timeout=120, check=False).returncode == 0
    assert killed([*command, str(run.out)], run.out, num_kills=4, whole_size=whole.stat().st_size) == 0
    assert without_seconds(run.out) == without_seconds(whole)
    assert len(rows_in(run.out)) == 1000


@pytest.mark.slow
@pytest.mark.skipif(not Path(demo_model_path()).exists(), reason="no demo model")
def test_so_does_a_run_of_the_bundled_model_that_is_killed_ten_times(run: Run) -> None:
    run.give(*(as_prompt(request) for request in test_requests(30, 70, 7)))
    whole = run.out.with_name("whole.jsonl")
    command = [sys.executable, "-c", "from langchain_rain.cli import main; main()", "run", str(run.prompts)]
    command += ["--max-tokens", "32", "--out"]
    assert subprocess.run([*command, str(whole)], timeout=300, check=False).returncode == 0
    assert killed([*command, str(run.out)], run.out, num_kills=10, whole_size=whole.stat().st_size) == 0
    answers = {row["id"]: row["answer"] for row in without_seconds(whole).values()}
    assert run.answers == answers
    assert len(answers) == 100


# --- Mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty; at least one row"),
        ("\n\n", "is empty; at least one row"),
        ('{"prompt": "soup"', "line 1: one JSON object"),
        ('{"prompt": "soup"}\n7\n', "line 2: a JSON object is wanted, given 7"),
        ('{"promt": "soup"}', "line 1: prompt or messages is wanted, given neither"),
        ('{"prompt": "soup", "messages": []}', "line 1: prompt or messages is wanted, given both"),
        ('{"prompt": ""}', "line 1: prompt: a text is wanted, given ''"),
        ('{"prompt": ["soup"]}', r"line 1: prompt: a text is wanted, given \['soup'\]"),
        (r'{"prompt": "\ud800"}', "line 1: The prompt .* is not valid Unicode"),
        ('{"prompt": "a", "prompt": "b"}', "line 1: .*a key is given twice"),
        ('{"prompt": "a", "x": NaN}', "line 1: .*NaN is no JSON"),
        ('{"prompt": "a"}\n{"prompt": "b", "x": [-Infinity]}', "line 2: .*-Infinity is no JSON"),
        ('{"prompt": "a", "x": 1e999}', "line 1: .*1e999 is beyond all floats"),
        ('{"prompt": "a", "id": true}', "line 1: id: a text or a whole number is allowed, given True"),
        ('{"prompt": "a", "id": 1.5}', "line 1: id: .*given 1.5"),
        ('{"prompt": "a", "id": ""}', "line 1: id: .*given ''"),
        ('{"prompt": "a", "id": null}', "line 1: id: .*given None"),
        ('{"prompt": "a", "id": 7}\n{"prompt": "b", "id": "7"}', "line 2: line 1 has the id '7' too"),
        ('{"prompt": "a", "id": 2}\n{"prompt": "b"}', "line 2: line 1 has the id '2' too"),
        ('{"messages": []}', r"line 1: messages: a list of messages is wanted, given \[\]"),
        ('{"messages": {"role": "user"}}', "line 1: messages: a list of messages is wanted"),
        ('{"messages": ["Hi"]}', "line 1: messages.0: role and content are wanted, given 'Hi'"),
        ('{"messages": [{"role": "human", "content": "Hi"}]}', "line 1: messages.0: .*given .*'human'"),
        ('{"messages": [{"role": "user", "content": 7}]}', "line 1: messages.0.content: a text is wanted, given 7"),
        ('{"messages": [{"role": "user", "content": "a", "name": "b"}]}', "line 1: messages.0: role and content"),
    ],
)
def test_a_mistake_in_the_prompts_is_told_with_its_line_before_anything_is_asked(
    run: Run, content: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run.prompts.write_text(content, encoding="utf-8")
    assert run() == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(rf"prompts\.jsonl\W* {told}", err)
    assert run.engine.prompts == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "demo", "--server", "http://a"], "--model or --server is allowed, given both, 'demo' and"),
        (["--judge", "demo", "--judge-server", "http://a"], "--judge or --judge-server is allowed, given both"),
        (["--server-model", "m"], "--server-model 'm' belongs to a --server"),
        (["--tokenizer", "t"], "--tokenizer 't' belongs to a --server"),
        (["--judge-server-model", "m"], "--judge-server-model 'm' belongs to a --judge-server"),
        (["--server", "http://a", "--judge-tokenizer", "t"], "--judge-tokenizer 't' belongs to a --judge-server"),
        (["--server", "http://a", "--preset", "paper"], "preset: 'paper' .* with servers .* allowed: balanced, fast"),
        (["--server", "http://a", "--preset", "thorough"], "preset: 'thorough' compares token sets by hidden states"),
        (["--ray", "--server", "http://a", "--preset", "paper"], "preset: 'paper' compares"),
        (["--server", "http://a", "--api-key-env", "NOT_SET"], "the environment variable 'NOT_SET' is not set"),
        (["--preset", "papre"], "no preset 'papre'"),
        (["--max-tokens", "0"], "max_tokens.*given 0"),
        (["--on-unsatisfied", "ignore"], "on_unsatisfied.*'ignore'"),
        (["--rubric", "edibel"], "no rubric 'edibel'"),
        (["--out", "nowhere/answers.jsonl"], "--out: a file in a folder that is there is wanted, given 'nowhere/"),
        (["--out", "/dev/full"], "A file is wanted to write to, given '/dev/full'"),
        (["--out", "a" * 300], "'a{300}' is no file to read or write: File name too long"),
        (["--out", "a" * 250], r"'a{250}\.failed\.jsonl' is no file to read or write: File name too long"),
    ],
)
def test_a_mistake_in_the_options_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run.give("soup")
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(f"^langchain-rain: .*{told}", err)
    assert run.engine.prompts == []


@pytest.mark.parametrize(
    "arguments",
    [["--concurrency", "0"], ["--concurrency", "9" * 30], ["--max-seconds", "inf"], ["--max-seconds", "nan"]],
)
def test_a_number_that_is_out_of_range_is_a_mistake(run: Run, arguments: list[str]) -> None:
    run.give("soup")
    assert run(*arguments) == 2
    assert run.engine.prompts == []


def test_an_empty_name_of_a_model_is_not_the_default_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(given: str, argument: str) -> Echo:
        asked.append(given)
        return Echo()

    monkeypatch.setattr(judging, "load_engine", load)
    run.give("soup")
    run("--model", "")
    assert asked == [""]


def test_prompts_are_never_written_over(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.give("soup")
    given = run.prompts.read_bytes()
    for out in (run.prompts, run.prompts.parent / "." / "prompts.jsonl"):
        assert run("--out", str(out)) == 2
        assert "would write over the prompts" in capsys.readouterr().err
    run.prompts = run.prompts.rename(run.failed)
    assert run() == 2
    assert run.failed.read_bytes() == given


@pytest.mark.parametrize("prompts", ["-", "nowhere.jsonl", "/dev/null"])
def test_prompts_come_from_a_file_that_can_be_read_again(
    run: Run, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run.prompts = Path(prompts)
    assert run() == 2
    assert f"given '{prompts}'" in capsys.readouterr().err


def test_prompts_that_cannot_be_read_are_a_mistake(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    run.give("soup")
    monkeypatch.setattr("langchain_rain.prompts.open", refuse, raising=False)
    with pytest.raises(ValueError, match=r"prompts\.jsonl' cannot be read: Permission denied"):
        list(read_prompts(run.prompts))


# --- Servers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments by which engines of servers were built."""
    arguments: list[dict[str, Any]] = []

    def build(base_url: Any, model: str = "", *, api_key: Any, tokenizer: Any, name: str) -> Echo:
        arguments.append({"base_url": base_url, "model": model, "api_key": api_key, "tokenizer": tokenizer})
        return Echo(lambda prompt: gone(prompt) if prompt == "bread" else None, name=name)

    module = ModuleType("completions")
    module.CompletionsEngine = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "langchain_rain.engines.completions", module)
    monkeypatch.setattr(judging, "load_engine", lambda given, argument: given)
    monkeypatch.setenv("RAIN_SERVER_API_KEY", "sk-secret")
    return arguments


def test_servers_write_and_judge_with_the_key_of_the_environment(
    run: Run, built: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run.give("soup", "bread")
    writer = ["--server", "http://a", "--server", "http://b", "--server-model", "m", "--tokenizer", "t"]
    judge = ["--judge-server", "http://c", "--judge-server-model", "n", "--judge-tokenizer", "u"]
    assert run(*writer, *judge) == 1
    key = built[0].pop("api_key")
    assert built[1].pop("api_key") is key
    assert key.get_secret_value() == "sk-secret"
    assert built[0] == {"base_url": ("http://a", "http://b"), "model": "m", "tokenizer": "t"}
    assert built[1] == {"base_url": ("http://c",), "model": "n", "tokenizer": "u"}
    assert run.answers == {"1": " One soup."}
    told = run.out.read_text() + run.failed.read_text() + "".join(capsys.readouterr())
    assert "sk-secret" not in told


def test_a_server_that_has_moved_goes_on_with_what_it_has_begun(run: Run, built: list[dict[str, Any]]) -> None:
    run.give("soup")
    assert run("--server", "http://a") == 0
    run.give("soup", "salt")
    assert run("--server", "http://b", "--server", "http://c") == 0
    assert run.answers == {"1": " One soup.", "2": " One salt."}


def test_a_server_may_judge_what_it_writes_by_another_of_its_models(run: Run, built: list[dict[str, Any]]) -> None:
    run.give("soup")
    same = ["--server", "http://a", "--server-model", "m", "--judge-server", "http://a", "--judge-server-model", "n"]
    assert run(*same) == 0
    assert [each["model"] for each in built] == ["m", "n"]


def test_without_a_key_none_is_sent(run: Run, built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAIN_SERVER_API_KEY", raising=False)
    run.give("soup")
    assert run("--server", "http://a") == 0
    assert built[0]["api_key"] is None


def test_a_package_that_is_missing_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "langchain_rain.engines.completions", None)
    run.give("soup")
    assert run("--server", "http://a") == 2
    assert "pip install 'langchain-rain[server]'" in capsys.readouterr().err


# --- How far it is -----------------------------------------------------------------------------------------------


def test_a_tally_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally(num_rows=100, num_before=20, started=0.0)
    assert tally.rows_told == "20/100 answered, 0 failed"
    tally = dataclasses.replace(tally, num_answered=9, num_failed=1, num_positions=700, num_tokens=70)
    monkeypatch.setattr("langchain_rain.batch.time.monotonic", lambda: 20.0)
    # 10 rows in 20 s are 0.5 rows/s; the 70 that are left take 140 s.
    assert tally.rows_told == "29/100 answered, 1 failed, 0.50 rows/s, 0:02:20 left"
    assert tally.cost_told == "70 tokens out of 700 positions, 0 not satisfied"


def test_without_a_terminal_lines_tell_now_and_then(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.give("soup", "bread", "salt")
    assert run() == 0
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr(batch_progress, "SECONDS_BETWEEN_LINES", 0.0)
    run.out.unlink()
    assert run() == 0
    out, err = capsys.readouterr()
    assert [line.split(" ")[0] for line in err.splitlines()] == ["1/3", "2/3", "3/3", "3/3"]
    assert out == ""


def test_a_terminal_shows_a_bar(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    run.give("soup")
    assert run() == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "━" in shown
    last = shown.splitlines()[-1]
    assert re.fullmatch(r"1/1 answered, 0 failed, [\d.]+ rows/s; 2 tokens out of 3 positions, 0 not satisfied\.", last)


# --- The runner --------------------------------------------------------------------------------------------------


def waiting_for(events: dict[str, asyncio.Event]) -> Callable[[Prompt], Any]:
    async def answer(prompt: Prompt) -> Tried:
        await events.setdefault(prompt.id, asyncio.Event()).wait()
        return Tried({"id": prompt.id}, is_answered=True)

    return answer


async def test_no_more_prompts_are_taken_than_may_be_under_way_and_the_fastest_comes_first() -> None:
    taken: list[str] = []
    events: dict[str, asyncio.Event] = {}

    def prompts() -> Iterator[Prompt]:
        for number in range(5):
            taken.append(str(number))
            yield Prompt(str(number), "soup")

    async with aclosing(as_they_come(prompts(), waiting_for(events), concurrency=2)) as all_tried:
        for number, expected_taken in [("1", 2), ("2", 3), ("0", 4), ("4", 5), ("3", 5)]:
            events.setdefault(number, asyncio.Event()).set()
            assert (await anext(all_tried)).row["id"] == number
            assert len(taken) == expected_taken
        assert [tried async for tried in all_tried] == []


async def test_who_stops_listening_ends_what_is_under_way() -> None:
    cancelled: list[str] = []

    async def answer(prompt: Prompt) -> Tried:
        try:
            await asyncio.sleep(0 if prompt.id == "0" else 3600)
        except asyncio.CancelledError:
            cancelled.append(prompt.id)
            raise
        return Tried({"id": prompt.id}, is_answered=True)

    prompts = [Prompt(str(number), "soup") for number in range(5)]
    async with aclosing(as_they_come(prompts, answer, concurrency=3)) as all_tried:
        await anext(all_tried)
    assert sorted(cancelled) == ["1", "2"]
