"""Spans and metrics of answers by OpenTelemetry: `ChatRain(..., telemetry=Telemetry())`.

An argument, and no switch for the whole process: two models may report to different providers, a test needs nothing put
back, and where it is not given a search is asked once a step whether somebody looks on, and `opentelemetry` is not
imported. Nor a callback handler, which a call would bring: it hears what is committed and drafted, but not when a judge
was asked, and not of `RainLLM` what it searched.

Only the API of OpenTelemetry is needed (extra `otel`). Where spans and metrics go, how many and how often, is set as
always in its SDK; without one nothing happens. Whatever fails there is logged and changes no answer.
"""

from langchain_rain.telemetry.reporting import Telemetry

__all__ = ["Telemetry"]
