"""Tool calls that an answer proposes, judged by a rubric of their own before anybody runs them.

A call is judged as it stands: its name and its arguments as JSON, after the conversation, in which what tools have said
is named untrusted. One that does not satisfy rules its whole message out, under whatever policy, and the next draft is
told what was wrong.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage

from langchain_rain.engines.base import Engine
from langchain_rain.engines.callables import CallableEngine, JudgedText
from langchain_rain.engines.dialogue import as_lines, said_with_blocks
from langchain_rain.errors import RainConfigError
from langchain_rain.rubrics import Rubric
from langchain_rain.search.protocol import AppliesTo, Judge, Steps, Transcript, Verdict, together

PROPOSAL = "proposes this tool call, which has not run yet: "
"""What stands between the conversation and a call that is judged."""

UNTRUSTED = "untrusted output of"
"""What stands before the name of a tool whose output is shown to a judge."""


@dataclass(frozen=True, slots=True)
class ProposedCall:
    """A tool call that nobody has run yet.

    Attributes:
        name: of the tool.
        args: its arguments.
    """

    name: str
    args: Mapping[str, Any]


def proposed_call(text: JudgedText) -> ProposedCall:
    """The call that a function of a tool rubric is asked to judge.

    Example:
        ```python
        def stays_in_workspace(text):
            call = proposed_call(text)
            path = os.path.normpath(os.path.join("/workspace", str(call.args.get("path", ""))))
            return 1.0 if path.startswith("/workspace/") else -1.0
        ```

    Raises:
        ValueError: it is asked about something else than a tool call.
    """
    call = json.loads(text.answer)
    if not isinstance(call, dict) or call.keys() != {"tool", "args"}:
        raise ValueError(f"No tool call is judged here, but {text.answer!r:.80}.")
    return ProposedCall(call["tool"], call["args"])


def spelled(call: ToolCall) -> str:
    """A call as it is judged."""
    return json.dumps({"tool": call["name"], "args": call["args"]}, ensure_ascii=False, default=str)


def before_call(messages: Sequence[BaseMessage], made_before: Sequence[ToolCall] = ()) -> str:
    """What stands before a call that is judged: the conversation, in which what tools have said is named so.

    Args:
        messages: the conversation.
        made_before: calls that stand before it in its message, which may break together a rule that each keeps.
    """
    made = [AIMessage("", tool_calls=list(made_before))] if made_before else []
    return f"{as_lines([*with_untrusted_named(messages), *made]).removesuffix(':')} {PROPOSAL}"


def with_untrusted_named(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The conversation as a judge sees it: what a tool has said is named so."""
    return [
        ToolMessage(
            f"[{UNTRUSTED} {shown(each.name) if each.name else 'a tool'}]\n{said_with_blocks(each)}",
            tool_call_id=each.tool_call_id,
        )
        if isinstance(each, ToolMessage)
        else each
        for each in messages
    ]


@dataclass(frozen=True, slots=True)
class RejectedCall:
    """A proposed call that did not satisfy its rubric, or stood beside one in a message.

    Attributes:
        call: the call; nobody has run it.
        verdict: what the judge said of it.
        is_satisfied: whether it satisfies, though its message was ruled out.
    """

    call: ToolCall
    verdict: Verdict
    is_satisfied: bool


CallsIn = Callable[[str], Sequence[ToolCall]]
"""The tool calls of a text that may become the answer."""


@dataclass(slots=True, eq=False)
class CallsJudge:
    """Judges an answer by its own judge, and each tool call in it by another one.

    Attributes:
        judge: of the answer.
        of_calls: of a call.
        rubric: what a call is judged by.
        calls_in: finds the calls in an answer.
        before: the conversation as it stands before a call, given those that stand before it in its message.
        accept_value: from which value on a call satisfies.
        unjudged: names of tools whose calls are nothing that runs, as those that stand for structured output.
        rejected: the calls of the message that was ruled out last for one of them.
        named: tool and criterion by what they are called together in the verdicts so far.
    """

    judge: Judge
    of_calls: Judge
    rubric: Rubric
    calls_in: CallsIn
    before: Callable[[Sequence[ToolCall]], str]
    accept_value: float
    unjudged: Collection[str] = ()
    rejected: list[RejectedCall] = field(default_factory=list)
    named: dict[str, tuple[str, str]] = field(default_factory=dict)

    can_veto = True

    @property
    def applies_to(self) -> frozenset[AppliesTo]:
        """What the judge of the answer can judge: a call is judged as soon as it is there."""
        return self.judge.applies_to

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        """Judges a transcript and the calls in it side by side."""
        calls = [each for each in self.calls_in(transcript.answer) if each["name"] not in self.unjudged]
        verdict, *of_calls = yield from together(
            self.judge(transcript),
            *(self.of_calls(Transcript(self.before(calls[:at]), spelled(each))) for at, each in enumerate(calls)),
        )
        judged = [RejectedCall(call, own, self._is_satisfied(own)) for call, own in zip(calls, of_calls, strict=True)]
        for each in judged:
            tool = each.call["name"]
            self.named |= {_name(tool, name): (tool, name) for name in each.verdict.values}
        if all(each.is_satisfied for each in judged):
            return _with_calls(verdict, judged)
        self.rejected[:] = judged
        return _ruled_out(_with_calls(verdict, judged), judged)

    def _is_satisfied(self, verdict: Verdict) -> bool:
        """Whether a call may run: what a pattern or a function finds against it, no other criterion makes up for."""
        exact = [each.name for each in self.rubric.criteria if each.kind in ("pattern", "callable")]
        return verdict.satisfies(self.accept_value) and all(verdict.values.get(name, 0.0) >= 0 for name in exact)

    def guidance(self, verdict: Verdict) -> str:
        """What was wrong with the answer, and what with its calls."""
        wishes = {criterion.name: criterion.wish for criterion in self.rubric.criteria}
        rejected = [self.named[name] for name in verdict.vetoed_by if name in self.named]
        of_calls = [f"- Your call of {shown(tool)} was rejected. Wanted is: {wishes[name]}" for tool, name in rejected]
        if of_calls:
            of_calls.insert(0, "Do without these tool calls, or make them otherwise:")
        text_is_bad = any(value <= 0 for name, value in verdict.values.items() if name not in self.named)
        of_text = [self.judge.guidance(verdict)] if text_is_bad or not of_calls else []
        return "\n".join([*of_text, *of_calls])


def _name(tool: str, criterion: str) -> str:
    """What a criterion is called in verdicts, where those of the answer itself stand beside it."""
    return f"{shown(tool)} / {criterion}"


def shown(tool: str) -> str:
    """The name of a tool as it may be told; the model gave it, so what led the model may speak in it."""
    return tool if re.fullmatch(r"[\w.-]{1,64}", tool) else "a tool of no such name"


def _with_calls(verdict: Verdict, judged: Sequence[RejectedCall]) -> Verdict:
    """A verdict with the values of the calls; of several calls of a tool the worst."""
    values = dict(verdict.values)
    for each in judged:
        for name, value in each.verdict.values.items():
            key = _name(each.call["name"], name)
            values[key] = min(value, values.get(key, 1.0))
    return replace(verdict, values=values)


def _ruled_out(verdict: Verdict, judged: Sequence[RejectedCall]) -> Verdict:
    """A veto: what holds a call that does not satisfy is given to nobody, under no policy."""
    bad = [each for each in judged if not each.is_satisfied]
    by = [
        _name(each.call["name"], name)
        for each in bad
        for name in each.verdict.vetoed_by
        or each.verdict.abstained
        or [name for name, value in each.verdict.values.items() if value <= 0]
        or each.verdict.values
    ]
    return replace(verdict, value=-1.0, is_vetoed=True, vetoed_by=(*verdict.vetoed_by, *dict.fromkeys(by)))


def check_calls_are_judged(rubric: Rubric, engine: Engine, given: Any) -> None:
    """Checks that somebody can be asked what a tool rubric asks.

    Raises:
        RainConfigError: a criterion asks a model, and a function judges.
    """
    asked = rubric.asked_criteria
    if asked and isinstance(engine, CallableEngine):
        raise RainConfigError(
            f"tool_rubric: the criterion {asked[0].name!r} is asked of a model, and a function judges, "
            f"given {given!r}. Give a model as judge, or criteria that are patterns or functions."
        )
