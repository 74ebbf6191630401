"""`langchain-rain run --ray`: what Ray loses is asked again, what it repeats is not written twice.

Ray itself is larger than all the rest, so it has an environment of its own: `pip install 'langchain-rain[ray]'`, then
`pytest -m "slow or not slow" tests/test_ray_batch.py` there. Elsewhere a script stands in for it.
"""

import importlib
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_rain import EngineError, RainConfigError, judging
from langchain_rain.evaluation.demo_world import as_prompt, test_requests
from tests.scripted_batch import Echo, Run, gone, rows_in

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


class RayError(Exception):
    """Stands for what Ray raises."""


class ScriptedRay:
    """Runs actors in this process, each pass over the prompts through one function of the script, while it has any.

    Args:
        script: each takes the rows of a pass and returns those that arrive.
    """

    def __init__(self, *script: Callable[[list[Any]], Sequence[Any]]) -> None:
        self.script = list(script)
        self.num_passes = 0
        self.is_running = False
        self.num_gpus = 0
        self.asked: dict[str, Any] = {}
        self.init_error: Exception | None = None

    def init(self, **_: Any) -> None:
        if self.init_error is not None:
            raise self.init_error
        self.is_running = True

    def shutdown(self) -> None:
        self.is_running = False

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": float(self.num_gpus)} if self.num_gpus else {}

    def get(self, value: Any) -> Any:
        return value

    def remote(self, **_: Any) -> Any:
        def make(kind: Any) -> Any:
            def start(*arguments: Any) -> Any:
                made = kind(*arguments)
                return SimpleNamespace(count=SimpleNamespace(remote=made.count))

            return SimpleNamespace(remote=start)

        return make

    def from_items(self, items: list[dict[str, str]], *, override_num_blocks: int) -> Any:
        size = -(-len(items) // override_num_blocks)
        blocks = [items[start : start + size] for start in range(0, len(items), size)]

        def map_batches(actor_class: Any, *, fn_constructor_kwargs: Any, **asked: Any) -> Any:
            self.asked = asked
            actor = actor_class(**fn_constructor_kwargs)

            def iter_rows() -> Iterator[Any]:
                self.num_passes += 1
                columns = ({"prompt": [item["prompt"] for item in block]} for block in blocks)
                rows = [{"told": told} for column in columns for row in actor(column) for told in row["told"]]
                yield from self.script.pop(0)(rows) if self.script else rows

            return SimpleNamespace(iter_rows=iter_rows)

        return SimpleNamespace(map_batches=map_batches)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


@pytest.fixture
def scripted_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedRay]:
    ray = ScriptedRay()
    data = SimpleNamespace(
        from_items=ray.from_items,
        ActorPoolStrategy=lambda size: size,
        DataContext=SimpleNamespace(get_current=SimpleNamespace),
    )
    ray.data = data  # type: ignore[attr-defined]
    level = logging.getLogger("ray.data").level
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", data)
    monkeypatch.setitem(sys.modules, "ray.exceptions", SimpleNamespace(RayError=RayError))
    monkeypatch.delitem(sys.modules, "langchain_rain.ray_batch", raising=False)
    yield ray
    logging.getLogger("ray.data").setLevel(level)
    sys.modules.pop("langchain_rain.ray_batch", None)


def dishes(num: int) -> list[str]:
    return [f"dish {number}" for number in range(num)]


def test_actors_give_what_a_run_without_them_gives(run: Run, scripted_ray: ScriptedRay) -> None:
    run.engine = Echo(lambda prompt: gone(prompt) if prompt == "dish 7" else None)
    run.give(*dishes(40))
    assert run("--ray", "--concurrency", "2") == 1
    assert [row["id"] for row in rows_in(run.failed)] == ["8"]
    with_actors = run.answers
    run.out.unlink()
    assert run() == 1
    assert run.answers == with_actors
    assert not scripted_ray.is_running


def test_a_run_with_actors_goes_on_with_one_without(run: Run, scripted_ray: ScriptedRay) -> None:
    run.give("soup")
    assert run() == 0
    run.give("soup", "bread")
    assert run("--ray") == 0
    assert run("--ray") == 0
    assert scripted_ray.num_passes == 1  # with nothing left Ray is not started
    assert run.engine.prompts == ["soup", "bread"]


def test_what_was_lost_with_an_actor_is_asked_again_and_what_it_repeats_is_not_written_twice(
    run: Run,
    scripted_ray: ScriptedRay,
) -> None:
    scripted_ray.script = [lambda rows: [*rows[:5], *rows[2:8]], lambda rows: rows[:1]]
    run.give(*dishes(20))
    assert run("--ray") == 0
    assert len(run.answers) == 20
    assert scripted_ray.num_passes == 3


def test_a_ray_that_brings_nothing_ends_the_run(
    run: Run,
    scripted_ray: ScriptedRay,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted_ray.script = [lambda rows: []]
    run.give(*dishes(2))
    assert run("--ray") == 3
    assert "Ray ended without a word on 2 prompts." in capsys.readouterr().err


def test_a_ray_that_fails_ends_the_run_and_keeps_what_is_answered(
    run: Run,
    scripted_ray: ScriptedRay,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(rows: list[Any]) -> Iterator[Any]:
        yield rows[0]
        raise RayError("The node is gone.\nIts log: ...")

    scripted_ray.script = [fail]  # type: ignore[list-item]
    run.give(*dishes(2))
    assert run("--ray") == 3
    assert "Ray failed: RayError: The node is gone.\n" in capsys.readouterr().err
    assert len(run.answers) == 1
    assert not scripted_ray.is_running


@pytest.mark.parametrize("error", [ConnectionError("Nobody is there.\nSee ..."), ValueError("Nobody is there.")])
def test_a_cluster_that_cannot_be_joined_is_one_line(
    run: Run,
    scripted_ray: ScriptedRay,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    scripted_ray.init_error = error
    run.give("soup")
    assert run("--ray") == 3
    told = f"Ray cannot be joined at RAY_ADDRESS='nowhere:1': {type(error).__name__}: Nobody is there.\n"
    assert told in capsys.readouterr().err
    assert not run.out.exists()


@pytest.mark.parametrize(
    ("error", "code"), [(EngineError("The server is gone."), 3), (RainConfigError("No tokenizer."), 2)]
)
def test_a_model_that_cannot_be_loaded_ends_the_run(
    run: Run,
    scripted_ray: ScriptedRay,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    def fail(given: Any, argument: str) -> Any:
        raise error

    monkeypatch.setattr(judging, "load_engine", fail)
    run.give("soup")
    run.failed.write_text("of the run before\n")
    assert run("--ray") == code
    assert f"langchain-rain: {error}\n" in capsys.readouterr().err
    assert run.failed.read_text() == "of the run before\n"
    assert not run.out.exists()


def test_failures_that_all_say_the_same_end_the_run(
    run: Run,
    scripted_ray: ScriptedRay,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run.engine = Echo(lambda prompt: EngineError("No such model."))
    run.give(*dishes(50))
    assert run("--ray") == 3
    assert "20 rows on end failed for one reason" in capsys.readouterr().err
    assert len(rows_in(run.failed)) == 20
    assert not scripted_ray.is_running


def test_other_settings_end_the_run(
    run: Run,
    scripted_ray: ScriptedRay,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run.give("soup")
    assert run() == 0
    run.give("soup", "bread")
    run.failed.write_text("of the run before\n")
    assert run("--ray", "--seed", "1") == 2
    assert "made by other settings" in capsys.readouterr().err
    assert run.failed.read_text() == "of the run before\n"
    assert not scripted_ray.is_running


def test_actors_that_die_again_and_again_end_the_run(
    run: Run,
    scripted_ray: ScriptedRay,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.import_module("langchain_rain.ray_batch"), "MAX_STARTS", 0)
    run.give("soup")
    assert run("--ray") == 3
    assert "The actors of Ray died again and again" in capsys.readouterr().err


def test_there_is_an_actor_for_each_gpu_or_each_server(run: Run, scripted_ray: ScriptedRay) -> None:
    run.give("soup")
    scripted_ray.num_gpus = 3
    assert run("--ray") == 0
    assert (scripted_ray.asked["compute"], scripted_ray.asked["num_gpus"]) == (3, 1)
    run.out.unlink()
    scripted_ray.num_gpus = 0
    assert run("--ray") == 0
    assert (scripted_ray.asked["compute"], scripted_ray.asked["num_gpus"]) == (1, None)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.give("soup")
    assert run("--ray") == 2
    assert "--ray needs Ray Data: pip install 'langchain-rain[ray]'." in capsys.readouterr().err


# --- Ray itself --------------------------------------------------------------------------------------------------


def workers_below(pid: int) -> list[int]:
    """The processes of actors that a process has started, directly or not."""
    told = subprocess.run(["ps", "-eo", "pid,ppid,args"], stdout=subprocess.PIPE, check=True, text=True).stdout
    processes = [line.split(None, 2) for line in told.splitlines()[1:]]
    below = {pid}
    while new := {int(each[0]) for each in processes if int(each[1]) in below} - below:
        below |= new
    return [int(each[0]) for each in processes if int(each[0]) in below and each[2].startswith("ray::MapWorker")]


@needs_ray
@pytest.mark.slow
def test_the_bundled_model_answers_through_an_actor_that_is_killed_as_without(run: Run) -> None:
    run.give(*(as_prompt(request) for request in test_requests(12, 28, 3)))
    whole = run.out.with_name("whole.jsonl")
    command = [sys.executable, "-c", "from langchain_rain.cli import main; main()", "run", str(run.prompts)]
    command += ["--max-tokens", "64", "--concurrency", "2", "--out"]
    assert subprocess.run([*command, str(whole)], timeout=300, check=False).returncode == 0
    with subprocess.Popen([*command, str(run.out), "--ray"]) as process:
        try:
            while process.poll() is None and (not run.out.exists() or run.out.read_bytes().count(b"\n") < 5):
                time.sleep(0.1)  # the cores are for the model
            (worker,) = workers_below(process.pid)
            os.kill(worker, signal.SIGKILL)
            assert process.wait(300) == 0
        finally:
            process.kill()
    assert run.answers == {row["id"]: row["answer"] for row in rows_in(whole)}
    assert len(run.answers) == 40
