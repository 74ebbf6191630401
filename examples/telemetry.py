"""Shows what a guardrail did as OpenTelemetry spans, and counts it.

`pip install 'langchain-rain[otel]' opentelemetry-sdk`. Instead of the console any exporter will do.
"""

import sys

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from langchain_rain import ChatRain
from langchain_rain.telemetry import Telemetry

console = ConsoleSpanExporter(out=sys.stdout, formatter=lambda span: f"{span.name} {span.attributes}\n")
spans = TracerProvider()
spans.add_span_processor(SimpleSpanProcessor(console))
figures = InMemoryMetricReader()
telemetry = Telemetry(tracer_provider=spans, meter_provider=MeterProvider([figures]))

chat = ChatRain(rubric="harmlessness", seed=7, max_tokens=48, telemetry=telemetry)
with spans.get_tracer("shop").start_as_current_span("request"):
    answer = chat.invoke("How do I clean the lamp at school?")
print(answer.text)

data = figures.get_metrics_data()
for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
    for point in metric.data.data_points:
        print(metric.name, getattr(point, "value", None) or getattr(point, "sum", 0))
