"""Answers as OpenTelemetry spans.

Names are those of the semantic conventions for generative AI where these have one, else begin with `rain.`. Only the
span of the search has `gen_ai.operation.name` and usage, as only it is an answer: whoever sums them up counts once.

Of texts nothing but the conversation and what its caller is given ever gets into a span, and that only on request;
what was rejected never does.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from langchain_rain.drivers import Outcome
from langchain_rain.engines.base import Cost
from langchain_rain.engines.dialogue import TEMPLATE_ROLES, Dialogue
from langchain_rain.errors import EngineError
from langchain_rain.policy import Release, finish_reason, named
from langchain_rain.search.protocol import Committed, Simulated, Verdict
from langchain_rain.search.state import Search
from langchain_rain.telemetry.answers import Beginning, Ending
from langchain_rain.telemetry.counters import PROVIDER, Counters
from langchain_rain.telemetry.watching import Judgement


class AnswerSpans:
    """Makes spans of what happens in one search, below the span that is current when it is made, and has it counted.

    Args:
        tracer: makes them.
        counters: count it.
        search: the search.
        beginning: what is known of the answer.
        captures_content: whether the conversation and the answer as it is given are part of the span.
        epoch_clock: nanoseconds since 1970, read once: all else goes by the driver's clock, which never jumps.
    """

    def __init__(
        self,
        tracer: Tracer,
        counters: Counters,
        search: Search,
        beginning: Beginning,
        *,
        captures_content: bool,
        epoch_clock: Callable[[], int],
    ) -> None:
        self._tracer = tracer
        self._counters = counters
        self._search = search
        self._beginning = beginning
        self._captures_content = captures_content
        self._epoch_clock = epoch_clock
        self._outside = context.get_current()
        self._epoch = 0
        self._began = 0.0
        self._span: Span = trace.INVALID_SPAN

    def begin(self, at: float) -> None:
        """Begins the span of the search; what is called for it is below that too."""
        self._epoch, self._began = self._epoch_clock(), at
        attributes = _of_beginning(self._beginning)
        self._span = self._tracer.start_span(
            "rain.search", self._outside, attributes=attributes, start_time=self._epoch
        )
        self._beginning.calls.run(context.attach, trace.set_span_in_context(self._span, self._outside))

    def simulation(self, event: Simulated, began: float, ended: float) -> Span:
        """The span of a simulation."""
        attributes = {
            **_of_verdict(event.verdict),
            "rain.num_tokens": len(event.prefix),
            "rain.num_rewound_tokens": event.num_rewound_tokens,
        }
        return self._told("rain.simulation", attributes, None, began, ended)

    def commit(self, event: Committed, began: float, ended: float) -> Span:
        """The span of a commit."""
        attributes = {
            "rain.value": event.value,
            "rain.is_satisfied": event.is_satisfied,
            "rain.num_tokens": len(event.token_set.tokens),
            "rain.num_simulations": event.num_simulations,
        }
        return self._told("rain.commit", attributes, None, began, ended)

    def judgement(self, judgement: Judgement, within: Span | None, at: float) -> None:
        """The span of a judgement; one that is not finished is no more than that."""
        began = judgement.began if judgement.began is not None else at
        ended = judgement.ended if judgement.ended is not None else at
        num_questions = len(judgement.asked)
        attributes = {"gen_ai.request.model": self._beginning.judge_model, "rain.num_questions": num_questions}
        verdict = judgement.verdict
        if verdict is not None:
            attributes |= _of_verdict(verdict)
            seconds = ended - began if num_questions else None
            self._counters.judged(self._beginning, seconds=seconds, is_abstained=verdict.is_abstained)
        self._told("rain.judgement", attributes, within, began, ended)

    def end(self, end: Outcome[Any] | BaseException, cost: Cost, at: float) -> None:
        """Ends the span of the search, with what came of it and what is done with it."""
        ending = Ending.of(end, cost, self._search, self._beginning)
        self._counters.ended(self._beginning, ending, self._search, at - self._began)
        self._span.set_attributes(_of_ending(ending, self._search))
        if self._captures_content:
            self._span.set_attributes(_content(self._beginning, ending))
        if ending.error is not None:
            error = ending.error
            self._span.set_status(
                Status(StatusCode.ERROR, named(error) if isinstance(error, EngineError) else type(error).__name__)
            )
        self._span.end(self._nanoseconds(at))

    def _told(self, name: str, attributes: Mapping[str, Any], within: Span | None, began: float, ended: float) -> Span:
        """A span of what has happened already, below the search unless it was within something else."""
        parent = trace.set_span_in_context(self._span if within is None else within, self._outside)
        start = self._nanoseconds(began)
        span = self._tracer.start_span(name, parent, attributes=attributes, start_time=start)
        span.end(self._nanoseconds(ended))
        return span

    def _nanoseconds(self, at: float) -> int:
        return self._epoch + round((at - self._began) * 1e9)


def _of_beginning(beginning: Beginning) -> dict[str, Any]:
    """What is known of an answer when it begins, so that samplers know it too."""
    attributes = {
        "gen_ai.operation.name": beginning.operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": beginning.model,
        "gen_ai.request.max_tokens": beginning.max_tokens,
        "gen_ai.request.seed": beginning.seed,
        "gen_ai.request.temperature": beginning.temperature,
        "rain.judge.model": beginning.judge_model,
        "rain.preset": beginning.preset,
        "rain.rubric.name": beginning.rubric["name"],
        "rain.rubric.hash": beginning.rubric["hash"],
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _of_ending(ending: Ending, search: Search) -> dict[str, Any]:
    result, decision = ending.result, ending.decision
    attributes: dict[str, Any] = {
        "rain.stop_reason": ending.stop_reason,
        "rain.is_satisfied": result is not None and result.is_satisfied,
        "rain.num_token_sets": search.num_token_sets,
        "rain.num_simulations": search.num_simulations,
        "rain.num_rewinds": search.num_rewinds,
        "rain.num_rewound_tokens": search.num_rewound_tokens,
        "rain.forward_passes": ending.cost.forward_passes,
        "rain.token_positions": ending.cost.token_positions,
        **{f"gen_ai.usage.{kind}_tokens": number for kind, number in ending.usage.items()},
        **ending.error_type,
    }
    if result is not None and result.verdict is not None:
        attributes |= _of_verdict(result.verdict)
    if decision is not None:
        attributes["rain.action"] = decision.action
        attributes["gen_ai.response.finish_reasons"] = (finish_reason(result, decision.bypass),)
        if decision.bypass is not None:
            attributes["rain.bypass"] = decision.bypass
    return attributes


def _of_verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "rain.value": verdict.value,
        "rain.is_vetoed": verdict.is_vetoed,
        "rain.is_abstained": verdict.is_abstained,
        **{f"rain.values.{name}": value for name, value in verdict.values.items()},
    }


def _content(beginning: Beginning, ending: Ending) -> dict[str, str]:
    """The conversation, and what is given of the answer; a callable's own words come later and are not known here."""
    prompt, decision = beginning.prompt, ending.decision
    asked = [_message("user", prompt)] if isinstance(prompt, str) else _messages(prompt)
    given: list[dict[str, Any]] = []
    if decision is not None and decision.action != "raise":
        refusal = beginning.policy.refusal_message if decision.action == "refuse" else None
        reason = finish_reason(ending.result, decision.bypass)
        given = [{**_message("assistant", Release(decision.answer, refusal).text), "finish_reason": reason}]
    texts = {"gen_ai.input.messages": asked, "gen_ai.output.messages": given}
    return {name: json.dumps(messages, ensure_ascii=False) for name, messages in texts.items()}


def _messages(dialogue: Dialogue) -> list[dict[str, Any]]:
    return [_message(TEMPLATE_ROLES.get(each.type, each.type), each.text) for each in dialogue.messages]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}
