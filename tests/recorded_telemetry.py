"""Telemetry that is recorded in memory, and the trees and figures in it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from langchain_rain.telemetry import Telemetry

EPOCH = 1_000_000_000
"""When every search begins, in nanoseconds since 1970."""

Labels = frozenset[tuple[str, Any]]


class Recorded:
    """Records what is reported to `telemetry`."""

    def __init__(self, processor: SpanProcessor | None = None, **arguments: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        if processor is not None:
            self.tracer_provider.add_span_processor(processor)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(
            tracer_provider=self.tracer_provider,
            meter_provider=MeterProvider([self._reader], shutdown_on_exit=False),
            epoch_clock=lambda: EPOCH,
            **arguments,
        )

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All that have ended."""
        return self._exporter.get_finished_spans()

    @property
    def search(self) -> ReadableSpan:
        """The only search."""
        (span,) = [span for span in self.spans if span.name == "rain.search"]
        return span

    def trees(self, *shown: str, has_times: bool = False) -> list[Any]:
        """Spans as (name, attributes that are shown, seconds since they could begin, [children])."""
        children: defaultdict[int, list[ReadableSpan]] = defaultdict(list)
        ids = {span.context.span_id for span in self.spans if span.context is not None}
        for span in self.spans:  # in the order in which they ended
            parent = span.parent.span_id if span.parent is not None and span.parent.span_id in ids else 0
            children[parent].append(span)

        def tree(span: ReadableSpan) -> Any:
            assert span.context is not None
            assert span.start_time is not None
            assert span.end_time is not None
            times = [((span.start_time - EPOCH) / 1e9, (span.end_time - EPOCH) / 1e9)] if has_times else []
            attributes = attributes_of(span)
            values = [attributes[name] for name in shown if name in attributes]
            return (span.name, *values, *times, [tree(each) for each in children[span.context.span_id]])

        return [tree(span) for span in children[0]]

    def figures(self) -> dict[str, dict[Labels, Any]]:
        """Sums by the name of the metric and its labels; of histograms (number, sum)."""
        data = self._reader.get_metrics_data()
        figures: dict[str, dict[Labels, Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    figures[metric.name] = {
                        frozenset((point.attributes or {}).items()): _figure(point) for point in metric.data.data_points
                    }
        return figures

    def total(self, name: str) -> float:
        """The sum of a counter over all labels; 0 if it was never added to."""
        return float(sum(self.figures().get(name, {}).values()))


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def texts_of(recorded: Recorded) -> str:
    """All that could be read in what was recorded."""
    spans: Iterable[str] = (span.to_json() for span in recorded.spans)
    return "\n".join([*spans, repr(recorded.figures())])


def _figure(point: Any) -> Any:
    return point.value if hasattr(point, "value") else (point.count, point.sum)
