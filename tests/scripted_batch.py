"""`langchain-rain run` with an engine that answers each prompt after itself, here and in a process that is killed."""

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from langchain_rain import EngineError, cli, judging
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.search.protocol import Context, OptionLogprobs, Rollout, Score, TokenSet

Row = dict[str, Any]

RUBRIC = "name: edible\ncriteria:\n- {name: edible, instruction: 'Is it?', good: 'YES', bad: 'NO'}\n"


class Echo(ScriptedEngine):
    """Answers "soup" with " One soup."; the judge likes all of it.

    Args:
        fault: what comes in place of the answer to a prompt; None where nothing does.

    Attributes:
        prompts: all that were asked, in their order.
    """

    def __init__(self, fault: Callable[[str], Exception | None] = lambda prompt: None, name: str = "echo") -> None:
        super().__init__(rollout=self._roll_out, score=self._judge, name=name)
        self.prompts: list[str] = []
        self._prompts: dict[Context, str] = {}
        self._fault = fault

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        context = super().open(prompt, max_tokens=max_tokens, stop=stop)
        self._prompts[context] = prompt
        self.prompts.append(prompt)
        return context

    def _roll_out(self, request: Rollout) -> Any:
        prompt = self._prompts[request.context]
        return self._fault(prompt) or TokenSet((0, 1), f" One {prompt}.", -0.1, True, "eos")

    def _judge(self, request: Score) -> OptionLogprobs:
        good, bad = math.log(0.9), math.log(0.1)
        is_swapped = request.question.endswith("(A) NO\n(B) YES\n")
        return OptionLogprobs((bad, good) if is_swapped else (good, bad), 1.0)


def gone(prompt: str) -> EngineError:
    return EngineError(f"Nobody is there for {prompt}.", is_retryable=True)


def rows_in(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Run:
    """The command on files of a folder, in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts, self.out = folder / "prompts.jsonl", folder / "answers.jsonl"
        self.failed, self.rubric = folder / "answers.failed.jsonl", folder / "edible.yaml"
        self.rubric.write_text(RUBRIC, encoding="utf-8")
        self.engine = Echo()
        monkeypatch.setattr(judging, "load_engine", lambda given, argument: self.engine)
        monkeypatch.setattr(os, "environ", os.environ.copy())

    def give(self, *rows: Any) -> None:
        """Writes the prompts; a text stands for a row that has it as prompt."""
        given = ({"prompt": row} if isinstance(row, str) else row for row in rows)
        self.prompts.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")

    def __call__(self, *arguments: str) -> int:
        return cli.run(["run", str(self.prompts), "--out", str(self.out), "--rubric", str(self.rubric), *arguments])

    @property
    def answers(self) -> dict[str, str]:
        """By id; none stands there twice."""
        answers = {row["id"]: row["answer"] for row in rows_in(self.out)}
        assert len(answers) == len(rows_in(self.out))
        return answers


def main() -> None:
    """The command line with this engine for whatever model is named."""
    with patch("langchain_rain.judging.load_engine", lambda given, argument: Echo()):
        cli.main()


def kill_when(pid: int, path: Path, size: int, *, has_ended: Callable[[], bool]) -> None:
    """Kills a process when a file has grown to `size`, unless it has ended by itself before."""
    while not has_ended():
        if path.exists() and path.stat().st_size >= size:
            os.kill(pid, signal.SIGKILL)
            return
