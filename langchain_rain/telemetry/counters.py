"""Answers as OpenTelemetry metrics: few labels of few values, so that a series stays one of few."""

from collections.abc import Mapping

from opentelemetry import metrics
from opentelemetry.metrics import MeterProvider

from langchain_rain._version import __version__
from langchain_rain.errors import EngineError
from langchain_rain.search.state import Search
from langchain_rain.telemetry.answers import Beginning, Ending

SCOPE = "langchain_rain"
"""Names what reports."""

PROVIDER = "rain"
"""As LangChain's tracers name it (`ls_provider`)."""

SECONDS = tuple(0.01 * 2**power for power in range(14))
TOKENS = tuple(4**power for power in range(14))
"""Bounds of buckets, those of the semantic conventions."""


class Counters:
    """Counts what happens in searches; made once for many answers.

    Args:
        meter_provider: None for the global one, also if that is set later.
    """

    def __init__(self, meter_provider: MeterProvider | None) -> None:
        meter = metrics.get_meter(SCOPE, __version__, meter_provider)
        count, measure = meter.create_counter, meter.create_histogram
        self._searches = count("rain.searches", "{search}", "Searches that ended, by why.")
        self._rewinds = count("rain.rewinds", "{rewind}", "Simulations that gave up tokens of the one before.")
        self._rewound_tokens = count("rain.rewound_tokens", "{token}", "Tokens that were given up.")
        self._abstentions = count("rain.abstentions", "{judgement}", "Judgements in which the judge abstained.")
        self._refusals = count("rain.refusals", "{answer}", "Answers that were refused.")
        self._budget_ends = count("rain.budget_ends", "{search}", "Searches that a spent budget ended.")
        self._bypasses = count("rain.bypasses", "{answer}", "Answers let out that do not satisfy the rubric.")
        self._engine_errors = count("rain.engine_errors", "{error}", "Searches that an engine failed.")
        self._judge_duration = measure(
            "rain.judge.duration",
            "s",
            "One judgement: from asking to its last reply.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._duration = measure(
            "gen_ai.client.operation.duration", "s", "One search.", explicit_bucket_boundaries_advisory=SECONDS
        )
        self._usage = measure(
            "gen_ai.client.token.usage", "{token}", "Tokens of one search.", explicit_bucket_boundaries_advisory=TOKENS
        )

    def judged(self, beginning: Beginning, *, seconds: float | None, is_abstained: bool) -> None:
        """Counts a judgement; without a time it needed nobody's answer."""
        labels = _labels(beginning)
        self._abstentions.add(int(is_abstained), labels)
        if seconds is not None:
            self._judge_duration.record(seconds, {**labels, "gen_ai.request.model": beginning.judge_model})

    def ended(self, beginning: Beginning, ending: Ending, search: Search, seconds: float) -> None:
        """Counts a search; noughts too, so that a series is there before anything has happened."""
        labels, decision = _labels(beginning), ending.decision
        self._searches.add(1, {**labels, "rain.stop_reason": ending.stop_reason})
        self._rewinds.add(search.num_rewinds, labels)
        self._rewound_tokens.add(search.num_rewound_tokens, labels)
        self._budget_ends.add(int(ending.stop_reason == "budget"), labels)
        self._refusals.add(int(decision is not None and decision.action == "refuse"), labels)
        if decision is not None and decision.bypass is not None:
            self._bypasses.add(1, {**labels, "rain.bypass": decision.bypass})
        if isinstance(ending.error, EngineError):
            self._engine_errors.add(1, labels)
        of_operation = {
            **labels,
            "gen_ai.operation.name": beginning.operation,
            "gen_ai.provider.name": PROVIDER,
        }
        self._duration.record(seconds, {**of_operation, **ending.error_type})
        for kind, number in ending.usage.items():
            self._usage.record(number, {**of_operation, "gen_ai.token.type": kind})


def _labels(beginning: Beginning) -> Mapping[str, str]:
    return {"gen_ai.request.model": beginning.model, "rain.rubric.name": str(beginning.rubric["name"])}
