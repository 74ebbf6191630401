"""`langchain-rain demo`: the bundled model by ordinary sampling, and in a LangChain chain with RAIN, side by side."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import LLMResult
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableConfig
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from langchain_rain import drivers
from langchain_rain.config import RainConfig
from langchain_rain.drivers import Job, Outcome
from langchain_rain.engines.base import Cost, Engine
from langchain_rain.evaluation.demo_world import Kind, Request, as_prompt, is_harmless, is_helpful, test_requests
from langchain_rain.evaluation.strategies import sample
from langchain_rain.judging import Loaded, open_judge
from langchain_rain.llms import RainLLM
from langchain_rain.quoting import visible
from langchain_rain.rubrics import Rubric
from langchain_rain.search.protocol import Context, Steps, TokenSet, Transcript, Verdict, derive_search_seed

T = TypeVar("T")

NUM_HARMFUL, NUM_BENIGN = 4, 6
TEMPLATE = "Human: {request}\n\nAssistant:"
RUBRIC = "harmlessness"
CONFIG = RainConfig.preset("paper")
MAX_TOKENS = 256

KIND_NAMES: dict[Kind, str] = {
    "harmful": "harmful",
    "late": "benign, many steps",
    "plain": "benign",
    "contact": "benign, on a person",
}
CAPTION = (
    "harmless or HARMFUL, complete or not: by the exact rules of the generated world that the model was trained on, "
    "which RAIN does not know; judge: what the model itself thinks of the answer, from -1 to +1"
)

MAX_PIECE = 80
"""Characters that the table shows of a line or sentence."""


class AnswerRecorder(BaseCallbackHandler):
    """Keeps what a `RainLLM` tells of the answer to one call.

    Attributes:
        text: the answer.
        info: its `generation_info`.
    """

    def __init__(self) -> None:
        self.text = ""
        self.info: dict[str, Any] = {}

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Takes the answer when it is complete."""
        generation = response.generations[0][0]
        self.text = generation.text
        self.info = dict(generation.generation_info or {})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request.

    Attributes:
        text: the answer, without space around it and without a refusal message of the guardrail.
        cost: what was run for it.
        value: what the judge thinks of it, in [-1, 1]; None if the engine was not asked.
        rain: what `RainLLM` tells of it; empty for ordinary sampling.
        is_refused: whether the guardrail refused to go on.
    """

    request: Request
    text: str
    cost: Cost
    value: float | None = None
    rain: dict[str, Any] = field(default_factory=dict)
    is_refused: bool = False

    @property
    def pieces(self) -> list[str]:
        """Its lines, and the sentences of its lines."""
        return re.split(r"(?<=[.?]) |\n", self.text)

    @property
    def dangerous_piece(self) -> int | None:
        """The index of the first piece that makes it harmful; None if it is harmless."""
        so_far = (" ".join(self.pieces[: index + 1]) for index in range(len(self.pieces)))
        return next((index for index, text in enumerate(so_far) if not is_harmless(self.request, text)), None)

    @property
    def is_harmless(self) -> bool:
        """What is true of it, by the rules of the demonstrator's world."""
        return is_harmless(self.request, self.text)

    @property
    def is_good(self) -> bool:
        """Whether it is harmless, and to a benign request complete."""
        return self.is_harmless and (not self.request.is_benign or is_helpful(self.request, self.text))


def run_demo(engine: Engine, *, seed: int, out: Console, err: Console) -> None:
    """Answers ten requests in both ways; the table goes to `out`, progress to `err`."""
    requests = test_requests(NUM_HARMFUL, NUM_BENIGN, seed)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        sampling = progress.add_task("ordinary sampling", total=len(requests))
        started = monotonic()
        vanilla = sample_vanilla(engine, requests, seed)
        seconds = [monotonic() - started]
        progress.update(sampling, completed=len(requests))
        searching = progress.add_task("RAIN", total=len(requests))
        started = monotonic()
        rain = asyncio.run(answer_with_rain(engine, requests, seed, on_answer=lambda: progress.advance(searching)))
        seconds.append(monotonic() - started)
    title = f"PromptTemplate | RainLLM | StrOutputParser: rubric {RUBRIC}, preset {CONFIG.preset_name}, seed {seed}"
    out.print(compare(vanilla, rain, title=title))
    out.print(summarise(vanilla, rain, *seconds))


def sample_vanilla(engine: Engine, requests: Sequence[Request], seed: int) -> list[Answer]:
    """Answers all requests by sampling token after token; judges the answers afterwards, which is not counted."""
    rubric, loaded = Rubric.load(RUBRIC), Loaded()

    def write(context: Context, prompt: str) -> Steps[TokenSet]:
        return sample(context, temperature=CONFIG.temperature, seed=derive_search_seed(seed, prompt))

    def judge(context: Context, transcript: Transcript) -> Steps[Verdict]:
        return open_judge(rubric, engine, CONFIG, loaded=loaded, context=context).judge(transcript)

    prompts = [as_prompt(request) for request in requests]
    written = _run_all(engine, prompts, write)
    transcripts = [Transcript(prompt, outcome.result.text) for prompt, outcome in zip(prompts, written, strict=True)]
    judged = _run_all(engine, transcripts, judge)
    return [
        Answer(request, answer.result.text.strip(), answer.cost, verdict.result.value)
        for request, answer, verdict in zip(requests, written, judged, strict=True)
    ]


async def answer_with_rain(
    engine: Engine, requests: Sequence[Request], seed: int, *, on_answer: Callable[[], None]
) -> list[Answer]:
    """Answers all requests by a chain, at once: what their searches ask is merged into shared forward passes."""
    llm = RainLLM(model=engine, rubric=RUBRIC, config=CONFIG, seed=seed, max_tokens=MAX_TOKENS)
    chain = PromptTemplate.from_template(TEMPLATE) | llm | StrOutputParser()
    recorders = [AnswerRecorder() for _ in requests]
    configs: list[RunnableConfig] = [{"callbacks": [recorder]} for recorder in recorders]
    async for _ in chain.abatch_as_completed([{"request": request.text} for request in requests], configs):
        on_answer()
    return [
        _recorded_answer(request, recorder, llm.refusal_message)
        for request, recorder in zip(requests, recorders, strict=True)
    ]


def compare(vanilla: Sequence[Answer], rain: Sequence[Answer], *, title: str) -> Table:
    """The answers side by side, the first dangerous piece of each marked."""
    table = Table(title=title, caption=CAPTION, show_lines=True, expand=True)
    table.add_column("request", ratio=2)
    table.add_column("ordinary sampling", ratio=3)
    table.add_column("RAIN", ratio=3)
    table.add_column("search", no_wrap=True)
    for before, after in zip(vanilla, rain, strict=True):
        danger = before.dangerous_piece
        table.add_row(
            Group(Text(KIND_NAMES[before.request.kind], "bold"), Text(before.request.text)),
            _cell(before, shown=danger),
            _cell(after, shown=_counterpart(before.pieces[danger], after) if danger is not None else None),
            Text(_effort(before, after)),
        )
    return table


def summarise(vanilla: Sequence[Answer], rain: Sequence[Answer], vanilla_seconds: float, rain_seconds: float) -> Text:
    """What RAIN gains and what it costs."""
    before, after = (sum((answer.cost for answer in answers), Cost()) for answers in (vanilla, rain))
    return Text.assemble(
        ("Harmless: ", "bold"),
        f"ordinary sampling {sum(answer.is_harmless for answer in vanilla)}/{len(vanilla)}, "
        f"RAIN {sum(answer.is_harmless for answer in rain)}/{len(rain)}.  ",
        ("Benign requests answered harmlessly and in full: ", "bold"),
        f"{_num_helpful(vanilla)}, RAIN {_num_helpful(rain)}.\n",
        ("Cost of RAIN: ", "bold"),
        f"{rain_seconds:.0f} s against {vanilla_seconds:.1f} s for all ten at once; an answer takes "
        f"{after.forward_passes / before.forward_passes:.0f} times the forward passes and "
        f"{after.token_positions / before.token_positions:.0f} times the token positions.",
    )


def _num_helpful(answers: Sequence[Answer]) -> str:
    benign = [answer for answer in answers if answer.request.is_benign]
    return f"{sum(answer.is_good for answer in benign)}/{len(benign)}"


def _run_all(engine: Engine, given: Sequence[T], make: Callable[[Context, T], Steps[Any]]) -> list[Outcome[Any]]:
    """Runs what `make` makes of each prompt or transcript, all at once."""
    jobs = []
    for each in given:
        context = engine.open(each if isinstance(each, str) else "?", max_tokens=MAX_TOKENS)
        jobs.append(Job(make(context, each), {context: engine}))
    outcomes = []
    for outcome in drivers.run_batch(jobs):
        if isinstance(outcome, Exception):
            raise outcome
        outcomes.append(outcome)
    return outcomes


def _recorded_answer(request: Request, recorder: AnswerRecorder, refusal_message: str) -> Answer:
    rain = recorder.info["rain"]
    is_refused = recorder.info["finish_reason"] == "unsatisfied"
    text = recorder.text.removesuffix(refusal_message) if is_refused else recorder.text
    return Answer(
        request, text.strip(), Cost(rain["forward_passes"], rain["token_positions"]), rain["value"], rain, is_refused
    )


def _counterpart(piece: str, answer: Answer) -> int | None:
    """The piece of an answer that has the same number in front as `piece`."""
    number = re.match(r"\d+\) ", piece)
    if number is None:
        return None
    return next((index for index, other in enumerate(answer.pieces) if other.startswith(number.group())), None)


def _cell(answer: Answer, *, shown: int | None) -> Text:
    """The verdicts on an answer; below them its beginning and the piece of index `shown`."""
    danger = answer.dangerous_piece
    cell = Text.assemble(("harmless", "bold green") if danger is None else ("HARMFUL", "bold red"))
    if answer.request.is_benign and answer.is_harmless:
        cell.append(", complete" if answer.is_good else ", incomplete")
    cell.append("" if answer.value is None else f"; judge: {answer.value:+g}", "dim")
    pieces = answer.pieces
    indices = sorted({0, min(1, len(pieces) - 1) if shown is None else shown})
    before = -1
    for index in indices:
        cell.append("\n..." if index > before + 1 else "", "dim")
        cell.append("\n" + _shortened(visible(pieces[index])), "red" if index == danger else "")
        before = index
    cell.append(f"\n... {len(pieces) - before - 1} more" if before + 1 < len(pieces) else "", "dim")
    cell.append("\n(refused by the guardrail)" if answer.is_refused else "", "yellow")
    return cell


def _shortened(piece: str) -> str:
    return piece if len(piece) <= MAX_PIECE else piece[: MAX_PIECE - 3] + "..."


def _effort(before: Answer, after: Answer) -> str:
    ratio = after.cost.forward_passes / before.cost.forward_passes
    return f"{after.rain['num_simulations']} simulations\n{after.rain['num_rewinds']} rewinds\n{ratio:.0f} x passes"
