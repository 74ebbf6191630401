"""What a user makes of it: `Telemetry`."""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_rain._version import __version__
from langchain_rain.errors import RainConfigError
from langchain_rain.observing import Observer
from langchain_rain.search.state import Search
from langchain_rain.telemetry.answers import Beginning
from langchain_rain.telemetry.watching import Watch

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""By which users of OpenTelemetry say whether messages are part of spans, for all that instruments models."""

CONTENT_IN_SPANS = frozenset({"true", "1", "span_only", "span_and_event"})
"""Its values that want them there; "event_only" asks for what is not done here."""


class Telemetry:
    """Reports answers to OpenTelemetry; one may serve many models.

    A copy is the same one. A pickle reports to the global providers of the process that reads it.

    Args:
        tracer_provider: where spans go; None for the global one, also if that is set later.
        meter_provider: the same for metrics.
        captures_content: whether the conversation and the answer as it is given are part of the span of a search;
            rejected text is not, however this is set. None: as `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`
            says, and without it no.
        epoch_clock: nanoseconds since 1970.

    Raises:
        RainConfigError: opentelemetry-api is missing (extra `otel`).
    """

    def __init__(
        self,
        *,
        tracer_provider: "TracerProvider | None" = None,
        meter_provider: "MeterProvider | None" = None,
        captures_content: bool | None = None,
        epoch_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        try:
            from opentelemetry import trace

            from langchain_rain.telemetry.counters import SCOPE, Counters
            from langchain_rain.telemetry.spans import AnswerSpans
        except ModuleNotFoundError as error:
            raise RainConfigError(
                "telemetry: opentelemetry-api is needed: pip install 'langchain-rain[otel]'"
            ) from error
        if captures_content is None:
            captures_content = os.environ.get(CONTENT_VARIABLE, "").strip().lower() in CONTENT_IN_SPANS
        self.captures_content = captures_content
        self._counters = Counters(meter_provider)
        self._spans = partial(
            AnswerSpans,
            trace.get_tracer(SCOPE, __version__, tracer_provider),
            captures_content=captures_content,
            epoch_clock=epoch_clock,
        )

    def watch(self, search: Search, beginning: Beginning) -> Observer:
        """Whoever runs this search tells this observer; its spans are below the one that is current now."""
        return Watch(search, self._spans(self._counters, search, beginning))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Telemetry":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_this_process, (self.captures_content,)


def _of_this_process(captures_content: bool) -> Telemetry:
    return Telemetry(captures_content=captures_content)
