"""Figures of OpenTelemetry: what is counted, how long judges take, and what Prometheus calls it."""

import math
import re
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from prometheus_client import REGISTRY, generate_latest

from langchain_rain import ChatRain, PatternCriterion, Rubric
from langchain_rain.drivers import Job, run
from langchain_rain.engines.base import Answered, Cost, StepReport
from langchain_rain.engines.calling import Calls
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Embed, Expand, OptionLogprobs, Score
from langchain_rain.telemetry import Telemetry
from tests.recorded_telemetry import Recorded
from tests.scripted_world import CONFIG, END, POISON, PROMPT, RUBRIC, WARM, Kitchen, kitchen_llm
from tests.test_merging import Answering

LABELS = {"gen_ai.request.model": "kitchen", "rain.rubric.name": "edible"}


def labels(**others: Any) -> frozenset[tuple[str, Any]]:
    return frozenset({**LABELS, **{name.replace("__", "."): value for name, value in others.items()}}.items())


def test_an_answer_is_counted_with_labels_of_few_values() -> None:
    recorded = Recorded()
    kitchen_llm(telemetry=recorded.telemetry).invoke(PROMPT)
    figures = recorded.figures()
    (duration,) = figures.pop("gen_ai.client.operation.duration").items()
    operation = {"gen_ai.operation.name": "text_completion", "gen_ai.provider.name": "rain"}
    assert duration[0] == labels(**operation)
    judged = figures.pop("rain.judge.duration")
    assert judged[labels()][0] == 4  # the end was judged when it was simulated
    assert figures == {
        "rain.searches": {labels(rain__stop_reason="eos"): 1},
        "rain.rewinds": {labels(): 1},
        "rain.rewound_tokens": {labels(): 1},
        "rain.abstentions": {labels(): 0},
        "rain.refusals": {labels(): 0},
        "rain.budget_ends": {labels(): 0},
        "gen_ai.client.token.usage": {
            labels(**operation, gen_ai__token__type="input"): (1, 6),
            labels(**operation, gen_ai__token__type="output"): (1, 11),
        },
    }


def test_refusals_bypasses_and_budget_ends_are_counted() -> None:
    recorded = Recorded()
    for on_unsatisfied in ("refuse", "refuse", "best"):
        llm = kitchen_llm(Kitchen(WARM, POISON, END), on_unsatisfied=on_unsatisfied, telemetry=recorded.telemetry)
        llm.invoke(PROMPT)
    kitchen_llm(max_forward_tokens=5, telemetry=recorded.telemetry).invoke(PROMPT)
    figures = recorded.figures()
    assert figures["rain.searches"] == {labels(rain__stop_reason="dead_end"): 3, labels(rain__stop_reason="budget"): 1}
    assert figures["rain.refusals"] == {labels(): 3}
    assert figures["rain.budget_ends"] == {labels(): 1}
    assert figures["rain.bypasses"] == {labels(rain__bypass="on_unsatisfied=best"): 1}


def test_judgements_in_which_the_judge_abstained_are_counted() -> None:
    recorded = Recorded()
    config = CONFIG.model_copy(update={"min_option_mass": 0.5})
    kitchen_llm(Kitchen(WARM, END, mass=0.1), config=config, telemetry=recorded.telemetry).invoke(PROMPT)
    num_judged = sum(span.name == "rain.judgement" for span in recorded.spans)
    assert recorded.total("rain.abstentions") == num_judged > 0


def test_engines_that_fail_are_counted() -> None:
    recorded = Recorded()
    with pytest.raises(EngineError):
        kitchen_llm(Kitchen(num_failures=1), telemetry=recorded.telemetry).invoke(PROMPT)
    figures = recorded.figures()
    assert figures["rain.engine_errors"] == {labels(): 1}
    assert figures["rain.searches"] == {labels(rain__stop_reason="error"): 1}
    (of_duration,) = figures["gen_ai.client.operation.duration"]
    assert ("error.type", "EngineError") in of_duration


class SlowJudge:
    """Takes half a second for each question, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.engine = Answering(self._answer, name="judge")

    async def _answer(self, request: Any) -> Answered:
        assert isinstance(request, Score)
        self.now += 0.5
        is_swapped = request.question.endswith("(A) NO\n(B) YES\n")
        shares = (0.1, 0.9) if is_swapped else (0.9, 0.1)
        return Answered(OptionLogprobs((math.log(shares[0]), math.log(shares[1])), 1.0), Cost(1, 1))


class SlowWriter(Kitchen):
    """Takes ten seconds for each word."""

    def __init__(self, judge: SlowJudge) -> None:
        super().__init__(WARM, END)
        self._judge_of = judge

    def _offer(self, request: Expand) -> Any:
        self._judge_of.now += 10
        return super()._offer(request)


def test_the_latency_of_a_judge_is_from_asking_to_the_last_reply_under_its_own_name() -> None:
    recorded, judge = Recorded(), SlowJudge()
    llm = kitchen_llm(SlowWriter(judge), judge=judge.engine, telemetry=recorded.telemetry)
    answer = llm.begin(PROMPT, PROMPT, None, calls=Calls())
    outcome = run(answer.job, clock=lambda: judge.now)
    # Two words, each judged once, in both orders.
    figures = recorded.figures()
    assert figures["rain.judge.duration"] == {labels(gen_ai__request__model="judge"): (2, 2.0)}
    ((_, duration),) = figures["gen_ai.client.operation.duration"].items()
    assert duration == (1, 22.0)
    assert outcome.seconds == 22.0


class DreamyKitchen(Kitchen):
    """Judges in one second, and takes a second more to say where a text lies."""

    def __init__(self) -> None:
        super().__init__(WARM, END)
        self._scripts = {**self._scripts, Embed: lambda request: np.array([1.0, 0.0])}
        self.now = 100.0

    def step(self) -> StepReport:
        self.now += 1
        dreams = {ticket: request for ticket, request in self._pending.items() if isinstance(request, Embed)}
        if len(dreams) < len(self._pending):
            self._pending = {ticket: each for ticket, each in self._pending.items() if ticket not in dreams}
            report = super().step()
            self._pending |= dreams
            return report
        return super().step()


def test_the_latency_of_a_judge_is_not_that_of_what_else_the_search_waits_for() -> None:
    recorded, engine = Recorded(), DreamyKitchen()
    config = CONFIG.model_copy(update={"similarity_scope": "visited"})
    answer = kitchen_llm(engine, config=config, telemetry=recorded.telemetry).begin(PROMPT, PROMPT, None, calls=Calls())
    run(answer.job, clock=lambda: engine.now)
    assert recorded.figures()["rain.judge.duration"] == {labels(): (2, 2.0)}
    (tree,) = recorded.trees(has_times=True)
    first = tree[2][0]
    assert first == (
        "rain.simulation",
        (0.0, 4.0),
        [("rain.judgement", (2.0, 3.0), [])],
    )  # offered, rolled out, judged, embedded


def test_what_nobody_is_asked_about_has_no_latency() -> None:
    recorded = Recorded()
    pattern = PatternCriterion(name="no_lye", must_not_match="lye")
    kitchen_llm(rubric=Rubric(name="edible", criteria=(pattern,)), telemetry=recorded.telemetry).invoke(PROMPT)
    assert "rain.judge.duration" not in recorded.figures()
    assert any(span.name == "rain.judgement" for span in recorded.spans)


def test_a_function_that_judges_has_its_name_and_latency() -> None:
    def is_edible(transcript: str) -> float:
        return 1.0

    recorded = Recorded()
    llm = ChatRain(model=Kitchen(), judge=is_edible, rubric=RUBRIC, config=CONFIG, telemetry=recorded.telemetry)
    llm.invoke("Supper?")
    ((of_judge, (num_judged, _)),) = recorded.figures()["rain.judge.duration"].items()
    assert str(dict(of_judge)["gen_ai.request.model"]).endswith("is_edible")
    assert num_judged > 0


def test_names_are_those_of_the_semantic_conventions() -> None:
    recorded = Recorded()
    kitchen_llm(telemetry=recorded.telemetry).invoke(PROMPT)
    known = {value for name, value in vars(gen_ai_metrics).items() if name.startswith("GEN_AI_")}
    assert {name for name in recorded.figures() if not name.startswith("rain.")} <= known


def test_what_prometheus_calls_them() -> None:
    reader = PrometheusMetricReader(disable_target_info=True)
    try:
        telemetry = Telemetry(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
        kitchen_llm(telemetry=telemetry).invoke(PROMPT)
        kitchen_llm(Kitchen(WARM, POISON, END), on_unsatisfied="best", telemetry=telemetry).invoke(PROMPT)
        with pytest.raises(EngineError):
            kitchen_llm(Kitchen(num_failures=1), telemetry=telemetry).invoke(PROMPT)
        shown = generate_latest(REGISTRY).decode()
    finally:
        reader.shutdown()
    names = {name for name in re.findall(r"^# TYPE (\S+)", shown, re.MULTILINE) if "rain" in name or "gen_ai" in name}
    assert names == {
        "gen_ai_client_operation_duration_seconds",
        "gen_ai_client_token_usage",
        "rain_abstentions_total",
        "rain_budget_ends_total",
        "rain_bypasses_total",
        "rain_engine_errors_total",
        "rain_judge_duration_seconds",
        "rain_refusals_total",
        "rain_rewinds_total",
        "rain_rewound_tokens_total",
        "rain_searches_total",
    }
    assert re.search(r'^rain_searches_total\{.*rain_stop_reason="eos".*\} 1\.0$', shown, re.MULTILINE)
    assert re.search(r'^rain_judge_duration_seconds_bucket\{.*le="0\.01".*\} \d', shown, re.MULTILINE)
    assert re.search(r'^gen_ai_client_token_usage_bucket\{.*le="4(\.0)?".*\} \d', shown, re.MULTILINE)


def test_a_search_without_an_observer_costs_no_figure() -> None:
    recorded = Recorded()
    answer = kitchen_llm(telemetry=recorded.telemetry).begin(PROMPT, PROMPT, None, calls=Calls())
    run(Job(answer.job.steps, answer.job.contexts))
    assert recorded.figures() == {}
    assert recorded.spans == ()
