"""What telemetry costs: answers with it, against the same answers without.

    OMP_NUM_THREADS=1 python -m benchmarks.telemetry --threads 1 --out benchmarks/results/telemetry.json

Sides:

* `on`: spans are batched in memory and metrics aggregated, as with an exporter that is fast;
* `on, no SDK`: only the API is there, which drops everything;
* `off`: no `telemetry`. Once more beside itself, which tells how far two times of the same differ.

All sides answer a prompt right after one another, in another order each time; the answers are the same. What the cache
holds of a prompt is computed before anything is measured, so the models have as little to do as they ever do, and the
ratios are as large as they ever are. The scripted engine takes no time at all: what is left is the search, and the
absolute cost of a span. Times are of the processor, of all threads of the process together, the one that exports too:
other work on the machine changes them least.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider

from benchmarks.measuring import Row, argument_parser, begin
from benchmarks.models import demo_engine, demo_prompts
from langchain_rain import RainConfig, RainLLM
from langchain_rain.telemetry import Telemetry
from tests.scripted_world import CONFIG, PROMPT, RUBRIC, Kitchen

OFF = "off"
SCRIPTED = "scripted engine"


class Side:
    """A way to answer, and what it took; `tracers` put their spans into `exporter`."""

    def __init__(
        self,
        telemetry: Telemetry | None,
        tracers: TracerProvider | None = None,
        exporter: InMemorySpanExporter | None = None,
    ) -> None:
        self.telemetry = telemetry
        self._tracers = tracers
        self._exporter = exporter
        self.seconds: list[float] = []

    def answer(self, arguments: Mapping[str, Any], prompt: str) -> str:
        """Answers a prompt, and notes how long it took."""
        llm = RainLLM(**arguments, telemetry=self.telemetry)
        started = time.process_time()
        text = llm.invoke(prompt)
        self.seconds.append(time.process_time() - started)
        return text

    def take_spans(self) -> int:
        """How many spans there were since it was asked last; lets go of them."""
        if self._tracers is None or self._exporter is None:
            return 0
        self._tracers.force_flush()
        num_spans = len(self._exporter.get_finished_spans())
        self._exporter.clear()
        return num_spans


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    report.add("Time of an answer with telemetry, against the same without", _rows(arguments))
    report.write()


def _rows(arguments: argparse.Namespace) -> Iterator[Row]:
    num_prompts = 2 if arguments.quick else arguments.num_prompts
    prompts = demo_prompts(num_prompts // 2, num_prompts - num_prompts // 2, arguments.seed)
    engine = demo_engine()
    for preset in ("balanced", "paper"):
        demo = {"model": engine, "rubric": "harmlessness", "seed": 7, "config": RainConfig.preset(preset)}
        yield from _compared(f"demo model, {preset}", demo, prompts, arguments.repetitions)
    scripted = {"model": Kitchen(), "rubric": RUBRIC, "seed": 1, "config": CONFIG}
    yield from _compared(SCRIPTED, scripted, [PROMPT] * 20, arguments.repetitions)


def _compared(what: str, arguments: Mapping[str, Any], prompts: Sequence[str], repetitions: int) -> Iterator[Row]:
    sides = _sides()
    for side in sides.values():
        for prompt in prompts:
            side.answer(arguments, prompt)
    spans_an_answer = sides["on"].take_spans() / len(prompts)
    of_each: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repetitions):
        for side in sides.values():
            side.seconds.clear()
        for place, prompt in enumerate(prompts):
            _answer_by_all(sides, arguments, prompt, number + place)
        for name, side in sides.items():
            of_each[name].append(sum(side.seconds) / len(prompts))
        sides["on"].take_spans()
    for name in sides:
        if name != OFF:
            yield _row(f"{what}: {name}", of_each[name], of_each[OFF], spans_an_answer if name == "on" else None)


def _answer_by_all(sides: Mapping[str, Side], arguments: Mapping[str, Any], prompt: str, turn: int) -> None:
    ordered = list(sides.values())
    first = turn % len(ordered)
    answers = {side.answer(arguments, prompt) for side in [*ordered[first:], *ordered[:first]]}
    assert len(answers) == 1, "telemetry changed an answer"


def _row(what: str, seconds: Sequence[float], without: Sequence[float], spans: float | None) -> Row:
    each = [own / other for own, other in zip(seconds, without, strict=True)]
    more = statistics.median(own - other for own, other in zip(seconds, without, strict=True))
    is_bare = what.startswith(SCRIPTED)  # beside a model a span is lost in the noise
    return {
        "side": what,
        "ratio": statistics.median(each),
        "least": min(each),
        "greatest": max(each),
        "ms an answer, without": 1000 * statistics.median(without),
        "spans an answer": spans,
        "microseconds a span": 1e6 * more / spans if spans and is_bare else None,
    }


def _sides() -> dict[str, Side]:
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=100_000))
    on = Telemetry(tracer_provider=tracers, meter_provider=MeterProvider([InMemoryMetricReader()]))
    nothing = Telemetry(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    return {
        "on": Side(on, tracers, exporter),
        "on, no SDK": Side(nothing),
        OFF: Side(None),
        "off, again": Side(None),
    }


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=9)
    parser.add_argument("--num-prompts", type=int, default=12, help="half of them harmful")
    return parser.parse_args()


if __name__ == "__main__":
    main()
