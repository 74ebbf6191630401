"""The command `langchain-rain run`: many prompts answered, stopped and gone on with at will.

Answers go to a file, each flushed as it comes; how far it is goes to standard error.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from langchain_rain.answerer import Answerer, Settings, Tried
from langchain_rain.batch import Failures, Recorder, Tally
from langchain_rain.batch_progress import telling
from langchain_rain.concurrency import as_they_come
from langchain_rain.engines.loading import DEMO_MODEL
from langchain_rain.errors import RainConfigError
from langchain_rain.ledger import Ledger
from langchain_rain.options import (
    DEFAULT_KEY,
    ApiKeyOption,
    JudgeServerModelOption,
    JudgeServersOption,
    JudgeTokenizerOption,
    MaxTokensOption,
    OnUnsatisfiedOption,
    PresetOption,
    RubricOption,
    ServerModelOption,
    ServersOption,
    StopOption,
    TokenizerOption,
    WriterOption,
    api_key_in,
    check_models,
)
from langchain_rain.prompts import Prompt, read_prompts
from langchain_rain.rubric_commands import FunctionsOption, ParameterOption, load_rubric, prepare_for

MAX_CONCURRENCY = 10_000
"""Ours: more conversations than any machine that answers them holds at once."""

ALL_ANSWERED, SOME_FAILED = 0, 1
"""Exit codes; those of failures are the same as of every command."""

EXIT_CODES = (
    "Exit codes: 0 every row is answered (by an answer or by a refusal); 1 some rows failed; 2 a mistake in what was "
    "given (option, setting, rubric, file); 3 the model could not be loaded, or 20 rows on end failed in a way "
    "that may pass or for one reason; 130 stopped by Ctrl-C. Whatever the end, what is answered is kept, and the same "
    "command goes on from there."
)


def run(  # noqa: PLR0913, PLR0917 - one for each option
    prompts: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS",
            help='JSON lines: {"prompt": ...}, a text to continue, or {"messages": [{"role": ..., "content": ...}]}, '
            'a conversation to answer; "id" by default the number of the line. Other keys are passed on.',
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The answers, JSON lines, in the order in which they come. Those that are there already are kept. "
            "What fails is named beside it, in the file that ends in .failed.jsonl.",
        ),
    ],
    model: WriterOption = None,
    server: ServersOption = None,
    server_model: ServerModelOption = "",
    tokenizer: TokenizerOption = None,
    judge: Annotated[str | None, typer.Option(help="Who judges, like --model; by default the writer itself.")] = None,
    judge_server: JudgeServersOption = None,
    judge_server_model: JudgeServerModelOption = "",
    judge_tokenizer: JudgeTokenizerOption = None,
    api_key_env: ApiKeyOption = DEFAULT_KEY,
    rubric: RubricOption = "harmlessness",
    parameter: ParameterOption = None,
    functions: FunctionsOption = None,
    preset: PresetOption = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answers, however often the run is stopped.")] = 0,
    max_tokens: MaxTokensOption = 256,
    stop: StopOption = None,
    on_unsatisfied: OnUnsatisfiedOption = "refuse",
    max_seconds: Annotated[
        float | None, typer.Option(max=threading.TIMEOUT_MAX, help="Budget of one answer: time.")
    ] = None,
    max_forward_tokens: Annotated[
        int | None, typer.Option(help="Budget of one answer: token positions through the model.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=MAX_CONCURRENCY, help="How many prompts are under way at once.")
    ] = 16,
    on_ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="By actors of Ray Data, one for each GPU or server; --concurrency is that of each of them."
        ),
    ] = False,
) -> None:
    """Answer many prompts with RAIN; stopped in whatever way, the same command goes on where it was."""
    failed = _checked_failed(prompts, out)
    check_models("", model, server, server_model, tokenizer)
    check_models("judge", judge, judge_server, judge_server_model, judge_tokenizer)
    settings = Settings(
        rubric=load_rubric(rubric, parameter or (), functions),
        preset=preset,
        seed=seed,
        model=DEMO_MODEL if model is None else model,
        servers=tuple(server or ()),
        server_model=server_model,
        tokenizer=tokenizer,
        judge=judge,
        judge_servers=tuple(judge_server or ()),
        judge_server_model=judge_server_model,
        judge_tokenizer=judge_tokenizer,
        api_key=api_key_in(api_key_env),
        max_tokens=max_tokens,
        stop=tuple(stop or ()),
        on_unsatisfied=on_unsatisfied,
        max_seconds=max_seconds,
        max_forward_tokens=max_forward_tokens,
    )
    tally = answer_all(prompts, settings, out, failed, concurrency=concurrency, on_ray=on_ray)
    raise typer.Exit(SOME_FAILED if tally.num_failed else ALL_ANSWERED)


def answer_all(prompts: Path, settings: Settings, out: Path, failed: Path, *, concurrency: int, on_ray: bool) -> Tally:
    """Answers all prompts that have no answer in `out` yet."""
    with Ledger(out) as ledger:
        is_done = [ledger.holds(prompt.id, prompt.input_hash) for prompt in read_prompts(prompts)]
        if not settings.servers and settings.judge is None:
            prepare_for(settings.model)
        way = _on_ray(settings, concurrency) if on_ray else _here(settings, concurrency, ledger)
        tally = Tally(num_rows=len(is_done), num_before=sum(is_done))
        pending = (prompt for prompt in read_prompts(prompts) if not ledger.holds(prompt.id, prompt.input_hash))
        with Failures(failed) as failures, telling(tally, out, failed) as tell:
            recorder = Recorder(ledger, failures, tally)

            def take(tried: Tried) -> None:
                recorder.take(tried)
                tell()

            way(pending, take)
    return tally


Way: TypeAlias = Callable[[Iterator[Prompt], Callable[[Tried], None]], None]
"""How prompts are answered; each is given on as soon as it was tried."""


def _here(settings: Settings, concurrency: int, ledger: Ledger) -> Way:
    answerer = Answerer(settings)
    ledger.check_settings(answerer.settings_hash)

    async def answer(prompts: Iterator[Prompt], take: Callable[[Tried], None]) -> None:
        async with aclosing(as_they_come(prompts, answerer.answer, concurrency=concurrency)) as all_tried:
            async for tried in all_tried:
                take(tried)

    return lambda prompts, take: asyncio.run(answer(prompts, take))


def _on_ray(settings: Settings, concurrency: int) -> Way:
    try:
        from langchain_rain.ray_batch import tried_by_actors
    except ImportError as error:
        raise RainConfigError("--ray needs Ray Data: pip install 'langchain-rain[ray]'.") from error

    def answer(prompts: Iterator[Prompt], take: Callable[[Tried], None]) -> None:
        with closing(tried_by_actors(prompts, settings, concurrency=concurrency)) as all_tried:
            for tried in all_tried:
                take(tried)

    return answer


# --- What was given ------------------------------------------------------------------------------------------------


def _checked_failed(prompts: Path, out: Path) -> Path:
    """The file beside `out` that names what failed; none of the two is that of the prompts."""
    if str(prompts) == "-":
        raise RainConfigError("PROMPTS: a file is wanted, as a run that goes on reads it again; given '-'.")
    if not out.name:
        raise RainConfigError(f"--out: a file is wanted, given {str(out)!r}.")
    failed = out.with_name(out.name.removesuffix(".jsonl") + ".failed.jsonl")
    try:
        if not out.parent.is_dir():
            raise RainConfigError(f"--out: a file in a folder that is there is wanted, given {str(out)!r}.")
        if any(prompts.exists() and each.exists() and each.samefile(prompts) for each in (out, failed)):
            raise RainConfigError(f"--out: {str(out)!r} would write over the prompts in {str(prompts)!r}.")
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise RainConfigError(f"{error.filename!r} is no file to read or write: {error.strerror}.") from error
    return failed
