"""The commands `langchain-rain rubric ...`: rubrics tested like code. Reports go to standard output."""

import importlib
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from langchain_rain import drivers
from langchain_rain.arguments import check_text
from langchain_rain.config import RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.loading import DEMO_MODEL, load_engine
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation import rubric_report
from langchain_rain.evaluation.labelled import read_labelled
from langchain_rain.evaluation.packages import needed
from langchain_rain.evaluation.rubric_check import check as check_rubric
from langchain_rain.evaluation.rubric_figures import CheckReport
from langchain_rain.judging import Judging, Loaded, open_judge
from langchain_rain.quoting import visible
from langchain_rain.rubrics import CallableCriterion, PatternCriterion, Rubric
from langchain_rain.rubrics.asking import finding, shares_of
from langchain_rain.rubrics.criteria import AnyCriterion
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.files import Source, names_in_library, read_from_library
from langchain_rain.rubrics.rubric import transcript_of
from langchain_rain.search.protocol import OptionLogprobs, Score, Transcript, Verdict, observed

ACCURATE, INACCURATE = 0, 1
"""Exit codes; those of failures are the same as of every command."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 the accuracy is below --min-accuracy; 2 a mistake in what was given (option, rubric, file, "
    "package that is missing); 3 the model could not be loaded or failed; 130 stopped by Ctrl-C."
)

app = typer.Typer(
    help="Test rubrics like code: against answers of which the truth is known.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RubricArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUBRIC",
        help="A name of the library, or a YAML file (with a path separator, or ending in .yaml or .yml).",
    ),
]
ModelOption = Annotated[
    str, typer.Option(help='Who judges: a folder, an id on the Hugging Face hub, or "demo", the bundled model.')
]
ParameterOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="What the rubric leaves open; may be repeated. Of documents, each is one, and @FILE reads one.",
    ),
]
FunctionsOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE", help="A Python module, which is run; it holds the functions of callable criteria by name."
    ),
]


@runtime_checkable
class ShowsJudgements(Protocol):
    """An engine that can say what exactly a judgement puts before its model."""

    def shown_to_model(self, request: Score) -> tuple[str, list[str]]:
        """As text, special tokens included, and token by token."""


@app.command(epilog=EXIT_CODES)
def check(  # noqa: PLR0913, PLR0917 - one for each option
    rubric: RubricArgument,
    model: ModelOption = DEMO_MODEL,
    examples: Annotated[
        Path | None,
        typer.Option(help="Labelled answers, JSON lines; without it the rubric's own examples, none shown its answer."),
    ] = None,
    parameter: ParameterOption = None,
    functions: FunctionsOption = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="From 0 to 1; below it the exit code is 1.", show_default=False)
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures and cases.")
    ] = None,
    html_file: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots.")] = None,
    max_cases: Annotated[int | None, typer.Option(help="Judge so many cases, drawn at random; by default all.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the cases of --max-cases.")] = 0,
) -> None:
    """Judge labelled answers by a rubric, and tell how much of it is right."""
    if min_accuracy is not None and not 0 <= min_accuracy <= 1:
        raise RainConfigError(f"--min-accuracy: a share from 0 to 1 is allowed, given {min_accuracy}.")
    if max_cases is not None and max_cases < 1:
        raise RainConfigError(f"--max-cases: at least 1 is allowed, given {max_cases}.")
    _check_outputs(json_file, html_file)
    used = load_rubric(rubric, parameter or (), functions)
    labelled = None if examples is None else read_labelled(examples, used)
    source = "" if examples is None else examples.name
    prepare_for(model)
    engine = load_engine(model)
    num_cases = len(used.examples if labelled is None else labelled)
    with _progress(num_cases if max_cases is None else min(max_cases, num_cases)) as advance:
        report = check_rubric(
            used, engine, None, labelled, source=source, max_cases=max_cases, seed=seed, on_judged=advance
        )
    with _writing(json_file):
        if json_file is not None:
            rubric_report.write_json(json_file, report)
    with _writing(html_file):
        if html_file is not None:
            rubric_report.write_html(html_file, report)
    Console().print(rubric_report.tables(report))
    raise typer.Exit(_exit_code(report, min_accuracy))


@app.command(epilog=EXIT_CODES)
def explain(
    rubric: RubricArgument,
    response: Annotated[str, typer.Option(help="The answer that is judged.")],
    prompt: Annotated[str, typer.Option(help="What was asked; without it the answer stands alone.")] = "",
    model: ModelOption = DEMO_MODEL,
    parameter: ParameterOption = None,
    functions: FunctionsOption = None,
    partial: Annotated[bool, typer.Option("--partial", help="The answer is not finished.")] = False,
) -> None:
    """Show all that is asked about one answer, what the model replies, and what is made of it."""
    check_text("prompt", prompt)
    check_text("response", response)
    if not response:
        raise RainConfigError("--response: a text is wanted, given ''.")
    used = load_rubric(rubric, parameter or (), functions)
    prepare_for(model)
    engine = load_engine(model)
    transcript = replace(transcript_of(prompt, response), is_finished=not partial)
    for text in explained(used, engine, transcript):
        # Not by rich: what a model reads keeps its lines and tabs.
        typer.secho(text.plain, bold=text.style == "bold", dim=text.style == "dim")


# --- What is asked, and what comes of it -----------------------------------------------------------------------------


def explained(rubric: Rubric, engine: Engine, transcript: Transcript) -> Iterator[Text]:
    """Judges a transcript with the default settings; yields all that is to be known about it."""
    config = RainConfig()
    judging = open_judge(rubric, engine, config, loaded=Loaded())
    judge = judging.judge
    assert isinstance(judge, RubricJudge), "only a model was loaded"
    seen: list[tuple[Any, Any]] = []
    verdict = drivers.run(drivers.Job(observed(judge(transcript), seen), judging.contexts)).result
    replies = dict(seen)
    for criterion in rubric.criteria:
        veto = ", may veto" if criterion.veto else ""
        head = f"{criterion.name} ({criterion.kind}, weight {criterion.weight:g}{veto})"
        yield Text(f"== {visible(head)} ==", "bold")
        if criterion.name not in verdict.values:
            yield Text(f"not judged: {_why_not(criterion, transcript)}\n")
            continue
        requests = judge.requests_about(criterion, transcript)
        yield from _asked(criterion, requests, replies, judging)
        found = [replies[request] for request in requests]
        yield Text(f"finding: {_found(criterion, transcript, found, verdict, config)}\n")
    yield Text(f"verdict: {visible(str(verdict))}", "bold")
    satisfies = "satisfies" if verdict.satisfies(config.accept_value) else "does not satisfy"
    yield Text(f"It {satisfies} the rubric {visible(rubric.name)} above {config.accept_value:+.2f}.")


def _why_not(criterion: AnyCriterion, transcript: Transcript) -> str:
    if not transcript.is_finished and criterion.applies_to == "final":
        return "it applies to finished answers only."
    return "the verdict did not depend on it any more."


def _asked(
    criterion: AnyCriterion,
    requests: Sequence[Score],
    replies: Mapping[Any, OptionLogprobs],
    judging: Judging,
) -> Iterator[Text]:
    """The questions about one criterion, each with its reply."""
    if isinstance(criterion, PatternCriterion):
        yield Text(f"{visible(criterion.wish)}")
    for number, request in enumerate(requests, start=1):
        if isinstance(criterion, CallableCriterion):
            yield Text("a function is given:", "dim")
        elif len(requests) > 1:
            yield Text(f"order {number} of {len(requests)}:", "dim")
        engine = judging.contexts[request.context]
        if isinstance(engine, ShowsJudgements):
            text, tokens = engine.shown_to_model(request)
            yield Text(visible(text))
            yield Text(f"{len(tokens)} tokens: {visible(' '.join(tokens))}", "dim")
        else:
            before, after = request.wrapper or ("", "")
            yield Text(visible(f"{before}{request.question}{after}{request.answer_prefix}"))
        yield Text(_reply_told(request, replies[request]))


def _reply_told(request: Score, reply: OptionLogprobs) -> str:
    """Each option with its log probability, its probability, and its share among the options; and their mass."""
    among = shares_of(reply) or [0.0] * len(request.options)
    lines = [
        f"  {visible(option)!r}: log probability {logprob:.4f}, probability {math.exp(logprob):.4f}, share {share:.4f}"
        for option, logprob, share in zip(request.options, reply.logprobs, among, strict=True)
    ]
    return "\n".join([*lines, f"  mass {reply.mass:.4f}"])


def _found(
    criterion: AnyCriterion,
    transcript: Transcript,
    replies: Sequence[OptionLogprobs],
    verdict: Verdict,
    config: RainConfig,
) -> str:
    if criterion.name in verdict.abstained:
        is_faint = verdict.masses.get(criterion.name, 1.0) <= config.min_option_mass
        return "abstained" + (f": a mass above {config.min_option_mass:g} is wanted" if is_faint else "")
    graded = finding(criterion, transcript, replies, "probability").value
    return f"{verdict.values[criterion.name]:+.2f} by scoring={config.scoring}, {graded:+.2f} by scoring=probability"


# --- Rubrics as given on a command line ------------------------------------------------------------------------------


def load_rubric(given: str, parameters: Sequence[str] = (), functions: str | None = None) -> Rubric:
    """The rubric of a name or file, with its parameters and functions.

    Raises:
        RubricError: there is none, or it is not valid.
        RainConfigError: a parameter or function is not as it should be.
    """
    is_file = "/" in given or os.sep in given or given.endswith((".yaml", ".yml"))
    if not is_file and given not in names_in_library():
        return Rubric.load(given)  # tells what there is
    data = Source.read(Path(given)).data if is_file else read_from_library("library", given)
    values = _parameter_values(parameters, data)
    names = _callable_names(data)
    found = _functions(functions, names) if functions is not None else {}
    if names and functions is None:
        told = f"The criterion {names[0]!r} of {given} is a function"
        raise RainConfigError(f"{told}; give the module that holds it: --functions MODULE.")
    return Rubric.from_yaml(Path(given), functions=found, **values) if is_file else Rubric.load(given, **values)


def _parameter_values(given: Sequence[str], data: Mapping[Any, Any]) -> dict[str, Any]:
    """The values by name: of documents a list, else a text."""
    declared = data.get("parameters")
    declared = declared if isinstance(declared, dict) else {}
    values: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or name not in declared:
            known = f"the rubric takes {', '.join(map(str, declared))}" if declared else "the rubric takes none"
            raise RainConfigError(f"--parameter: NAME=VALUE is allowed, and {known}; given {each!r}.")
        spec = declared[name]
        if isinstance(spec, dict) and spec.get("type") == "documents":
            values.setdefault(name, []).append(_read_text(value[1:]) if value.startswith("@") else value)
        elif name in values:
            raise RainConfigError(f"--parameter: {name} takes one text, given a second, {value!r}.")
        else:
            values[name] = value
    return values


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise RainConfigError(f"--parameter: the file {path!r} cannot be read: {reason}.") from error


def _callable_names(data: Mapping[Any, Any]) -> list[str]:
    criteria = data.get("criteria")
    criteria = criteria if isinstance(criteria, list) else []
    return [f"{each.get('name')}" for each in criteria if isinstance(each, dict) and each.get("kind") == "callable"]


def _functions(module_name: str, names: Sequence[str]) -> dict[str, Any]:
    """The functions of callable criteria, by the names of the criteria."""
    if not names:
        raise RainConfigError(f"--functions: the rubric has no callable criterion, given {module_name!r}.")
    module = _import(module_name)
    found = {name: getattr(module, re.sub(r"\W", "_", name), None) for name in names}
    missing = next((name for name in names if found[name] is None), None)
    if missing is not None:
        wanted = re.sub(r"\W", "_", missing)
        raise RainConfigError(f"--functions: {module_name} has no {wanted}, the function of the criterion {missing!r}.")
    return found


def _import(name: str) -> Any:
    """Imports a module; one in the folder of the call too, as `python -m` does."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except Exception as error:  # it is code of the user's, which may raise anything
        raise RainConfigError(f"--functions: {name!r} cannot be imported: {type(error).__name__}: {error}.") from error


# --- Around a command ------------------------------------------------------------------------------------------------


def prepare_for(model: str) -> None:
    """Sets what torch and Hugging Face's libraries read from the environment when they are imported."""
    if model == DEMO_MODEL:
        # Its matrices are so small that a second thread only waits, which on shared cores takes many times as long.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if model == DEMO_MODEL or os.path.isdir(model):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the hub is not asked about a model that is here


def _check_outputs(json_file: Path | None, html_file: Path | None) -> None:
    """Finds out before anything is judged what would keep the report from being written."""
    for path in (json_file, html_file):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise RainConfigError(f"A file in a folder that is there is wanted for the report, given {str(path)!r}.")
    if html_file is not None:
        needed("jinja2")
        needed("matplotlib")


@contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RainConfigError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error


@contextmanager
def _progress(num_cases: int) -> Iterator[Any]:
    """Shows on a terminal how far it is; yields what is called after each case."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("judging", total=num_cases)
        yield lambda: progress.advance(task)


def _exit_code(report: CheckReport, min_accuracy: float | None) -> int:
    if min_accuracy is None or report.accuracy >= min_accuracy:
        return ACCURATE
    told = f"The accuracy {report.accuracy:.4g} is below --min-accuracy {min_accuracy:g}."
    Console(stderr=True).print(Text(told), soft_wrap=True)
    return INACCURATE
