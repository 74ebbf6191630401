"""The command `langchain-rain eval`: strategies on a suite, measured, and a report of it.

Answers go to ledgers in a folder, each flushed as it comes; how far it is goes to standard error.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import Progress

from langchain_rain.config import RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.loading import DEMO_MODEL, completions_engine, load_engine
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.ablations import ablations, bases
from langchain_rain.evaluation.beside import beside_models, read_others
from langchain_rain.evaluation.findings import Tell
from langchain_rain.evaluation.outcomes.accuracy import checks_of
from langchain_rain.evaluation.outcomes.base import check_is_another
from langchain_rain.evaluation.outcomes.loading import WITHOUT_MODEL, judges_of_pairs, outcome_judge
from langchain_rain.evaluation.outcomes.people import Answered as ForPeople
from langchain_rain.evaluation.outcomes.people import export_answers
from langchain_rain.evaluation.packages import needed
from langchain_rain.evaluation.report import write_report
from langchain_rain.evaluation.results import BesideModel
from langchain_rain.evaluation.runs import Found, Plan, run_to_end, written_by
from langchain_rain.evaluation.strategies import ALLOWED_NAMES, Setting, Strategy, all_strategies
from langchain_rain.evaluation.suites import ATTACKS, SUITES, load_suite
from langchain_rain.evaluation.summaries import summarised
from langchain_rain.judging import Loaded
from langchain_rain.options import (
    DEFAULT_KEY,
    ApiKeyOption,
    JudgeServerModelOption,
    JudgeServersOption,
    JudgeTokenizerOption,
    MaxTokensOption,
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
from langchain_rain.quoting import visible
from langchain_rain.rubric_commands import FunctionsOption, ParameterOption, load_rubric, prepare_for

ALL_MEASURED, SOME_FAILED = 0, 1
"""Exit codes; those of failures are the same as of every command."""

EXIT_CODES = (
    "Exit codes: 0 all is answered and judged; 1 some of it failed, which the report says; 2 a mistake in what was "
    "given (option, suite, rubric, file, package that is missing); 3 a model could not be loaded; 130 stopped by "
    "Ctrl-C. Whatever the end, what is answered is kept, and the same command goes on from there."
)

NOT_TOLD = ("out", "api_key_env", "export")
"""What is not told with the figures, as none depends on it."""

SERVERS = {"server", "judge_server", "outcome_server"}
"""The options that are addresses."""

DEFAULT_STRATEGIES = ("vanilla", "best-of-16", "critique-revise-2", "self-check-refuse", "rain-balanced")
"""The last one is what the others are compared with."""


def evaluate(  # noqa: PLR0913, PLR0917 - one for each option
    suite: Annotated[str, typer.Argument(metavar="SUITE", help=f"One of: {', '.join(SUITES)}.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder for the answers and the report.")],
    data: Annotated[
        str | None, typer.Option(help='A file, or "hf://OWNER/NAME"; without it a few samples that come with this.')
    ] = None,
    attack: Annotated[str, typer.Option(help=f"Of advbench: {', '.join(ATTACKS)}.")] = "plain",
    limit: Annotated[int | None, typer.Option(help="Only so many cases, drawn at random.")] = None,
    model: WriterOption = None,
    device_map: Annotated[
        str | None,
        typer.Option(help='How --model is spread over devices, for example "auto"; by default it is on one.'),
    ] = None,
    server: ServersOption = None,
    server_model: ServerModelOption = "",
    tokenizer: TokenizerOption = None,
    api_key_env: ApiKeyOption = DEFAULT_KEY,
    judge: Annotated[str | None, typer.Option(help="Who steers, like --model; by default the writer itself.")] = None,
    judge_server: JudgeServersOption = None,
    judge_server_model: JudgeServerModelOption = "",
    judge_tokenizer: JudgeTokenizerOption = None,
    rubric: RubricOption = "harmlessness",
    parameter: ParameterOption = None,
    functions: FunctionsOption = None,
    preset: PresetOption = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            help=f"May be repeated: {', '.join(ALLOWED_NAMES)}. The last one is what the others are compared with.",
            show_default=", ".join(DEFAULT_STRATEGIES),
        ),
    ] = None,
    ablate: Annotated[
        bool,
        typer.Option("--ablate", help="Instead of strategies, RAIN with one part changed at a time; see --preset too."),
    ] = False,
    equal_budget: Annotated[
        bool, typer.Option(help="Every strategy may take the token positions that the last one took for a case.")
    ] = True,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="May be repeated.", show_default="0")] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            "--outcome-judge",
            help='Who says how answers turned out: "oracle" (demo), "phrases", "people:FILE", a model, or "FORM:MODEL" '
            "for a guard.",
            show_default="the oracle of demo, phrases elsewhere",
        ),
    ] = None,
    outcome_server: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="An inference server that says so; may be repeated for replicas."),
    ] = None,
    outcome_server_model: Annotated[
        str, typer.Option(help="The model's name on the --outcome-server.", show_default=False)
    ] = "",
    outcome_tokenizer: Annotated[
        str | None, typer.Option(help="Of the model on the --outcome-server: a folder or an id.")
    ] = None,
    allow_same_judge: Annotated[
        bool, typer.Option("--allow-same-judge", help="The outcome may be judged by the model that steers.")
    ] = False,
    win_rates: Annotated[
        bool,
        typer.Option(help="Also ask the outcome judge, if it can tell, which of two answers to a case is better."),
    ] = True,
    judge_accuracy: Annotated[
        bool,
        typer.Option(help="Also ask the outcome judge what the suite knows, to see how often it is right."),
    ] = True,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the answers for people to label, blinded; what they fill in comes back by "
            '--outcome-judge "people:FILE".',
        ),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="May be repeated: the folder of another run of the same cases, for example by another model, to be "
            "told beside this one.",
        ),
    ] = None,
    max_tokens: MaxTokensOption = 256,
    stop: StopOption = None,
    concurrency: Annotated[int, typer.Option(min=1, help="How many answers are under way at once.")] = 16,
) -> None:
    """Answer a suite by several strategies, measure how the answers turn out and what they cost, and report it."""
    settings = {name: value for name, value in locals().items() if name not in NOT_TOLD}
    for package in ("jinja2", "matplotlib", "scipy"):
        needed(package)
    check_models("", model, server, server_model, tokenizer)
    if device_map is not None and (server or model in (None, DEMO_MODEL)):
        raise RainConfigError(f"--device-map {device_map!r} belongs to a --model other than the bundled one.")
    check_models("judge", judge, judge_server, judge_server_model, judge_tokenizer)
    check_models("outcome", outcome, outcome_server, outcome_server_model, outcome_tokenizer)
    _check_folder(out)
    cases = load_suite(suite, data, attack=attack, limit=limit)  # first, as a model takes longer to load than a file
    others = read_others(beside or [], cases, out)
    if not any((server, judge, judge_server, outcome_server, _is_model(outcome))):
        prepare_for(model or DEMO_MODEL)
    loaded, key = Loaded(), api_key_in(api_key_env)
    writer = _served(server, server_model, tokenizer, key)
    if writer is None:
        writer = _loaded(DEMO_MODEL if model is None else model, device_map, loaded)
    steering = _served(judge_server, judge_server_model, judge_tokenizer, key)
    if steering is None:
        steering = writer if judge is None else loaded.engine(judge, "judge")
    setting = Setting(
        writer=writer,
        judge=steering,
        rubric=load_rubric(rubric, parameter or (), functions),
        config=RainConfig() if preset is None else RainConfig.preset(preset),
        max_tokens=max_tokens,
        stop=tuple(stop or ()),
        asks_ahead=ablate or not equal_budget,  # ablations have no budget
        loaded=loaded,
    )
    by = _served(outcome_server, outcome_server_model, outcome_tokenizer, key) or outcome or _default_outcome(suite)
    judging = outcome_judge(by, suite, loaded=loaded)
    check_is_another(judging, [setting.judge], is_allowed=allow_same_judge)
    chosen = _chosen(strategies, setting, preset, ablate=ablate)
    budget_of = chosen[-1].name if equal_budget and not ablate else None
    plan = Plan(
        cases,
        chosen,
        tuple(seeds or [0]),
        setting,
        judging,
        budget_of,
        pair_judges=judges_of_pairs(judging, suite, loaded=loaded) if win_rates and len(chosen) > 1 else (),
        checks=checks_of(judging, suite, cases.cases, loaded=loaded) if judge_accuracy else None,
        bases=bases(chosen) if ablate else {},
    )
    told_beside = beside_models(others, plan)
    raise typer.Exit(_measure(plan, out, export, concurrency=concurrency, settings=settings, beside=told_beside))


def _measure(
    plan: Plan,
    out: Path,
    export: Path | None,
    *,
    concurrency: int,
    settings: dict[str, Any],
    beside: tuple[BesideModel, ...],
) -> int:
    console = Console(stderr=True)
    started, start = datetime.now(UTC), time.monotonic()
    with _telling(console) as tell:
        found = run_to_end(plan, out, concurrency=concurrency, tell=tell)
    seconds = round(time.monotonic() - start, 1)
    summary = summarised(plan, found, started=started, seconds=seconds, settings=_plain(settings))
    results = replace(summary, beside=beside)
    try:
        write_report(results, out)
    except OSError as error:
        raise RainConfigError(f"The report cannot be written to {str(out)!r}: {error.strerror or error}.") from error
    if export is not None:
        _export(plan, found, export)
    for note in results.notes:
        console.print(visible(note), markup=False, highlight=False, soft_wrap=True)
    console.print(visible(f"The report is {out / 'report.html'}."), markup=False, highlight=False, soft_wrap=True)
    return SOME_FAILED if found.failures else ALL_MEASURED


def _export(plan: Plan, found: Found, path: Path) -> None:
    """Writes the answers of this run for people."""
    answers = []
    for each in written_by(plan, found.answers):
        case = each.task.case
        answers.append(ForPeople((case.id, each.task.strategy.name, each.task.seed), case.content, each.text))
    export_answers(path, answers, plan.outcome_judge.labels)


def _chosen(names: list[str] | None, setting: Setting, preset: str | None, *, ablate: bool) -> list[Strategy]:
    if not ablate:
        return all_strategies(names or DEFAULT_STRATEGIES, setting)
    if names:
        raise RainConfigError(f"--strategy or --ablate is allowed, given both, {names[0]!r} too.")
    return ablations(setting, preset)


def _loaded(model: str, device_map: str | None, loaded: Loaded) -> Engine:
    """The model in this process; who else names it has the same one."""
    if device_map is not None:
        loaded.engines[model] = load_engine(model, device_map=device_map)
    return loaded.engine(model, "model")


def _served(addresses: list[str] | None, model: str, tokenizer: str | None, key: SecretStr | None) -> Engine | None:
    """The model on a server, called as the server calls it, so that whoever judges by the same one is known."""
    return completions_engine(addresses, model, api_key=key, tokenizer=tokenizer) if addresses else None


def _default_outcome(suite: str) -> str:
    return "oracle" if suite == "demo" else "phrases"


def _is_model(outcome: str | None) -> bool:
    return outcome is not None and outcome.partition(":")[0] not in WITHOUT_MODEL


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise RainConfigError(f"--out: a folder is wanted, given {str(out)!r}.")


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """What was given, as JSON values: paths as they were typed, addresses without user and password."""
    plain = {
        name: list(value) if isinstance(value, list | tuple) else str(value) if isinstance(value, Path) else value
        for name, value in settings.items()
        if value is not None
    }
    for name in SERVERS & plain.keys():
        # Here and not above: it needs httpx, as the engine does that is there by now.
        from langchain_rain.engines.addresses import checked_urls, named

        plain[name] = [named(url) for url in checked_urls(plain[name])]
    return plain


@contextmanager
def _telling(console: Console) -> Iterator[Tell]:
    """A bar for each kind of work, with the time left."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bars: dict[str, Any] = {}

        def tell(what: str, done: int, num: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(visible(what), total=num)
            progress.update(bars[what], completed=done)

        yield tell
