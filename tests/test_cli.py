"""The command line: what stands on which stream, exit codes, and terminals that no model can drive."""

import errno
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from transformers.utils import logging as progress_bars

from langchain_rain import EngineError, __version__, cli, rubric_commands
from langchain_rain.demo import CONFIG, NUM_BENIGN, NUM_HARMFUL, run_demo
from langchain_rain.engines.loading import demo_model_path
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.quoting import visible
from langchain_rain.search.protocol import Expand, OptionLogprobs, Rollout, Score, TokenSet
from tests.test_llms import tiny_engine

PROMPT = "Human: How do I wash the bike?\n\nAssistant:"


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("tiny"))
    tiny_engine().tokenizer.save_pretrained(folder)
    tiny_engine().model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back what the command line changes of the process."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    handler = signal.getsignal(signal.SIGPIPE)
    # In a process of its own the environment does this, which is read too early here.
    progress_bars.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        yield
    progress_bars.enable_progress_bar()  # type: ignore[no-untyped-call]
    signal.signal(signal.SIGPIPE, handler)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


UNTRIED = ["--rubric", "answer_language", "--parameter", "language=English"]
"""A rubric without examples, so that no judge is tried on them."""


def generate(*arguments: str, model: str, seed: int = 1, preset: Sequence[str] = ("--preset", "paper")) -> int:
    """Runs `generate` for three tokens. The paper's preset knows no abstaining: a judgement of 0 is good enough."""
    settings = ["--model", model, "--max-tokens", "3", "--seed", str(seed), *preset]
    if "--rubric" not in arguments:
        settings += UNTRIED
    return cli.run(["generate", PROMPT, *settings, *arguments])


def one_line(text: str) -> str:
    """The one line that `text` is."""
    assert text.count("\n") == 1, text
    assert text.endswith("\n")
    return text[:-1]


# --- Generate ----------------------------------------------------------------------------------------------------


def test_the_answer_stands_on_standard_output_and_the_summary_on_standard_error(
    tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = generate(model=tiny_folder)
    out, err = capsys.readouterr()
    assert out.endswith("\n")
    assert re.fullmatch(
        r"(not )?satisfied.*, value [+-]\d\.\d\d.*; 3 tokens, \d+ simulations, \d+ rewinds, \d+ forward passes; seed 1",
        one_line(err),
    )
    assert code == (1 if err.startswith("not") else 0)


def test_a_judge_at_chance_is_told_in_one_line(tiny_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    generate("--rubric", "harmlessness", model=tiny_folder)
    warning, _ = capsys.readouterr().err.splitlines()
    assert re.match(r"langchain-rain: Warning: .* judges \d of the 8 worked examples of 'harmlessness' in", warning)


def test_a_rubric_may_be_a_file(tiny_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ncriteria:\n- {name: p, kind: pattern, must_not_match: x}\n", encoding="utf-8")
    generate("--json", "--rubric", str(path), model=tiny_folder)
    assert json.loads(one_line(capsys.readouterr().out))["rain"]["rubric"]["name"] == "mine"
    path.write_text("name: mine\ncriteria:\n- {name: p, kind: pattern, must_not_matsch: x}\n", encoding="utf-8")
    assert generate("--rubric", str(path), model=tiny_folder) == 2
    assert "mine.yaml, line 3: criteria.0.must_not_matsch" in one_line(capsys.readouterr().err)


def test_json_is_one_object_with_prompt_answer_and_all_that_happened(
    tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = generate("--json", model=tiny_folder)
    told = json.loads(one_line(capsys.readouterr().out))
    assert set(told) == {"prompt", "answer", "finish_reason", "rain"}
    assert told["prompt"] == PROMPT
    assert told["rain"]["seed"] == 1
    assert code == (0 if told["rain"]["is_satisfied"] else 1)


def test_every_way_to_print_prints_the_same_answer(
    tiny_folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate("--json", model=tiny_folder)
    answer = json.loads(capsys.readouterr().out)["answer"]
    for option in ("--stream", "--no-stream"):
        generate(option, model=tiny_folder)
        assert capsys.readouterr().out == answer + "\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for option in ("--stream", "--no-stream"):
        generate(option, model=tiny_folder)
    assert terminal.getvalue() == (visible(answer) + "\n") * 2


def test_a_judge_that_abstains_is_told_and_is_exit_code_1(tiny_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(model=tiny_folder, preset=()) == 1
    out, err = capsys.readouterr()
    assert out == "I cannot help with that.\n"
    assert one_line(err).startswith("not satisfied (")


def test_best_gives_the_answer_out_says_so_and_is_exit_code_1(
    tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate("--on-unsatisfied", "best", model=tiny_folder, preset=()) == 1
    out, err = capsys.readouterr()
    assert out != "I cannot help with that.\n"
    assert "given out by on_unsatisfied=best" in one_line(err)


def test_raise_is_one_line_and_exit_code_1(tiny_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate("--on-unsatisfied", "raise", model=tiny_folder, preset=()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert one_line(err).startswith("langchain-rain: No answer satisfied the rubric")


def test_a_hyphen_reads_the_prompt_from_standard_input_without_the_end_of_its_last_line(
    tiny_folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Human: Zoë?\n\nAssistant:\n".encode())))
    cli.run(["generate", "-", "--model", tiny_folder, "--max-tokens", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["prompt"] == "Human: Zoë?\n\nAssistant:"


def test_stop_strings_end_the_answer(tiny_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    generate("--json", "--on-unsatisfied", "best", model=tiny_folder)
    answer = json.loads(capsys.readouterr().out)["answer"]
    generate("--json", "--on-unsatisfied", "best", "--stop", answer[0], "--stop", "never said", model=tiny_folder)
    assert answer[0] not in json.loads(capsys.readouterr().out)["answer"]


# --- Mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--rubric", "harmlesness"], 2, "no rubric 'harmlesness'"),
        (["--preset", "papre"], 2, "no preset 'papre'"),
        (["--max-tokens", "0"], 2, "max_tokens.*given 0"),
        (["--stop", ""], 2, "stop.*given"),
        (["--on-unsatisfied", "ignore"], 2, "on_unsatisfied.*'ignore'"),
        (["--max-tokens", "100000"], 3, "max_tokens=100000 exceed the context"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(
    arguments: list[str], code: int, told: str, tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["generate", PROMPT, "--model", tiny_folder, *UNTRIED, *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(f"^langchain-rain: .*{told}", one_line(err))


def test_a_folder_that_is_no_model_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["generate", PROMPT, "--model", str(tmp_path)]) == 3
    assert str(tmp_path) in one_line(capsys.readouterr().err)


def test_a_prompt_that_is_no_text_is_exit_code_2(
    tiny_folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run(["generate", "\udcff", "--model", tiny_folder, *UNTRIED]) == 2
    assert "not valid Unicode" in one_line(capsys.readouterr().err)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert cli.run(["generate", "-", "--model", tiny_folder, *UNTRIED]) == 2
    assert "not UTF-8" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [["generate"], ["dmeo"], ["generate", PROMPT, "--seed", "lucky"], []])
def test_a_command_line_that_cannot_be_read_is_exit_code_2(arguments: list[str]) -> None:
    assert cli.run(arguments) == 2


@pytest.mark.parametrize("command", [[], ["demo"], ["generate"]])
def test_help_tells_the_exit_codes(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(f"{code} " in told for code in ("Exit codes: 0", "1", "2", "3", "130"))


# --- The process -------------------------------------------------------------------------------------------------


def test_version_prints_the_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["langchain-rain", "version"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"langchain-rain {__version__}\n"


def test_a_terminal_that_cannot_show_a_character_shows_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    cli._prepare_streams()
    print("Zoë", file=ascii_only, flush=True)
    assert ascii_only.buffer.getvalue() == b"Zo\\xeb\n"


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_cannot_be_written_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", FullDisk())
    assert cli.run(["version"]) == 2
    assert one_line(capsys.readouterr().err) == "langchain-rain: The output cannot be written: No space left on device."
    monkeypatch.setattr(sys, "stderr", FullDisk())
    assert cli.run(["version"]) == 2


def command(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    code = "from langchain_rain.cli import main; main()"
    # Buffered as for users; of a model this small a second thread makes the first one wait.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, env=environment, **streams
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_line_and_exit_code_2() -> None:
    with open("/dev/full", "wb") as full:
        process = command("version", stdout=full)
        _, err = process.communicate(timeout=60)
    assert one_line(err.decode()) == "langchain-rain: The output cannot be written: No space left on device."
    assert process.returncode == 2


def test_a_closed_pipe_ends_it_silently() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = command("version", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode == -signal.SIGPIPE


def test_ctrl_c_ends_it_quickly_with_exit_code_130(tiny_folder: str) -> None:
    arguments = ["--model", tiny_folder, "--max-tokens", "150", "--on-unsatisfied", "best", "--stream", "--seed", "1"]
    arguments += UNTRIED
    with command("generate", PROMPT, *arguments, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(1)  # it has begun, and is far from its end
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert err.decode() == "\nStopped.\n"
    assert process.returncode == 130


# --- Demo --------------------------------------------------------------------------------------------------------

DANGEROUS = " Sure. [red]Mix[/red] the \x1b[2Jbleach and acid."
REFUSAL = " I cannot help with that."


class DemoEngine(ScriptedEngine):
    """Whatever is asked, offers first a dangerous answer and then others; by itself it gives the dangerous one."""

    def __init__(self, *others: str) -> None:
        super().__init__(expand=self._offer, rollout=self._sample, score=self._judge, embed=lambda _: np.ones(1))
        self._answers = [TokenSet((i,), text, -float(i), i == 0, "eos") for i, text in enumerate((DANGEROUS, *others))]

    def _offer(self, request: Expand) -> Any:
        return [answer for answer in self._answers if answer.tokens not in request.exclude][: request.num_token_sets]

    def _sample(self, request: Rollout) -> TokenSet:
        return self._answers[0]

    def _judge(self, request: Score) -> OptionLogprobs:
        is_swapped = request.question.index("harmful.") < request.question.index("harmless.")
        likes_first = ("bleach" in request.question) == is_swapped
        return OptionLogprobs((math.log(0.9), math.log(0.1))[:: 1 if likes_first else -1], 1.0)


def shown_demo(engine: ScriptedEngine, width: int = 100) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    run_demo(engine, seed=0, out=Console(file=out, width=width), err=Console(file=err))
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_demo_shows_every_request_with_both_answers(width: int) -> None:
    shown, errors = shown_demo(DemoEngine(REFUSAL), width)
    assert errors == ""
    assert max(map(len, shown.splitlines())) <= width
    assert shown.count("HARMFUL; judge: -1") == shown.count("simulations") == NUM_HARMFUL + NUM_BENIGN == 10
    told = " ".join(shown.split())
    assert "Harmless: ordinary sampling 0/10, RAIN 10/10." in told
    assert "answered harmlessly and in full: 0/6, RAIN 0/6." in told
    assert f"preset {CONFIG.preset_name}" in told


def test_the_demo_marks_the_first_dangerous_piece() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system="standard")
    run_demo(DemoEngine(REFUSAL), seed=0, out=console, err=Console(file=io.StringIO()))
    # Benign requests: " Sure." is harmless, what follows is not.
    assert out.getvalue().count("\x1b[31m[red]Mix[/red] the \\x1b[2Jbleach and acid.") == NUM_BENIGN


def test_the_demo_shows_what_a_model_writes_as_data() -> None:
    shown, _ = shown_demo(DemoEngine(REFUSAL), 200)
    assert "[red]Mix[/red] the \\x1b[2Jbleach" in shown
    assert "\x1b" not in shown


def test_the_demo_tells_where_the_guardrail_refused() -> None:
    shown, _ = shown_demo(DemoEngine())
    assert shown.count("(refused by the guardrail)") == 10
    assert "RAIN 10/10" in " ".join(shown.split())


def test_the_demo_fails_as_a_whole_when_its_model_fails() -> None:
    engine = DemoEngine(REFUSAL)
    engine._scripts = {**engine._scripts, Rollout: lambda _: EngineError("The plug is out.")}
    with pytest.raises(EngineError, match="The plug is out"):
        shown_demo(engine)


def test_the_demo_stands_on_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "load_engine", lambda name: DemoEngine(REFUSAL))
    assert cli.run(["demo", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert "seed 3" in " ".join(out.split())
    assert err == ""


def test_a_small_model_that_is_here_needs_one_thread_and_no_hub() -> None:
    for name in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
    rubric_commands.prepare_for("some/model")
    assert "HF_HUB_OFFLINE" not in os.environ
    rubric_commands.prepare_for("demo")
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["OMP_NUM_THREADS"]) == ("1", "1")
    os.environ.update(HF_HUB_OFFLINE="0", OMP_NUM_THREADS="4")
    rubric_commands.prepare_for("demo")
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["OMP_NUM_THREADS"]) == ("0", "4")


def test_a_demo_that_is_interrupted_is_exit_code_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keystrokes = [signal.SIGINT]

    def interrupt_once(request: Expand) -> Any:
        if keystrokes:
            signal.raise_signal(keystrokes.pop())
        return engine._offer(request)

    engine = DemoEngine(REFUSAL)
    engine._scripts = {**engine._scripts, Expand: interrupt_once}
    monkeypatch.setattr(cli, "load_engine", lambda name: engine)
    assert cli.run(["demo"]) == 130
    assert capsys.readouterr() == ("", "\nStopped.\n")


@pytest.mark.slow
@pytest.mark.skipif(not Path(demo_model_path()).exists(), reason="no demo model yet")
def test_the_demo_of_the_bundled_model_is_harmless_and_takes_less_than_three_minutes() -> None:
    process = command("demo", stdout=subprocess.PIPE)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0
    assert err == b""
    assert "RAIN 10/10." in " ".join(out.decode().split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1) Wash.\n\t2) Dry.", "1) Wash.\n\t2) Dry."),
        ("Zoë 🚲 مرحبا", "Zoë 🚲 مرحبا"),
        ("\x1b[2J\x07\x00\r", "\\x1b[2J\\x07\\x00\\r"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\ud800", "\\ud800"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown
