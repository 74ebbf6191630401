"""Tool calls that an answer proposes, judged by a rubric of their own before anybody runs them.

A call is judged as it stands: its name and its arguments as JSON, after the conversation, in which what tools have said
is named untrusted. One that does not satisfy rules its whole message out, under whatever policy, and the next draft is
told what was wrong.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import BaseMessage, ToolCall, ToolMessage

from langchain_rain.engines.base import Engine
from langchain_rain.engines.callables import CallableEngine, JudgedText
from langchain_rain.engines.dialogue import as_lines, said
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


def before_call(messages: Sequence[BaseMessage]) -> str:
    """What stands before a call that is judged: the conversation, in which what tools have said is named so."""
    return f"{as_lines(with_untrusted_named(messages)).removesuffix(':')} {PROPOSAL}"


def with_untrusted_named(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The conversation as a judge sees it: what a tool has said is named so."""
    return [
        ToolMessage(f"[{UNTRUSTED} {each.name or 'a tool'}]\n{said(each)}", tool_call_id=each.tool_call_id)
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
        before: the conversation as it stands before a call.
        accept_value: from which value on a call satisfies.
        unjudged: names of tools whose calls are nothing that runs, as those that stand for structured output.
        rejected: the calls of the message that was ruled out last for one of them.
    """

    judge: Judge
    of_calls: Judge
    rubric: Rubric
    calls_in: CallsIn
    before: str
    accept_value: float
    unjudged: Collection[str] = ()
    rejected: list[RejectedCall] = field(default_factory=list)

    can_veto = True

    @property
    def applies_to(self) -> frozenset[AppliesTo]:
        """What the judge of the answer can judge: a call is judged as soon as it is there."""
        return self.judge.applies_to

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        """Judges a transcript and the calls in it side by side."""
        calls = [each for each in self.calls_in(transcript.answer) if each["name"] not in self.unjudged]
        verdict, *of_calls = yield from together(
            self.judge(transcript), *(self.of_calls(Transcript(self.before, spelled(each))) for each in calls)
        )
        judged = [
            RejectedCall(call, own, own.satisfies(self.accept_value)) for call, own in zip(calls, of_calls, strict=True)
        ]
        if all(each.is_satisfied for each in judged):
            return _with_calls(verdict, judged)
        self.rejected[:] = judged
        return _ruled_out(_with_calls(verdict, judged), judged)

    def guidance(self, verdict: Verdict) -> str:
        """What was wrong with the answer, and what with its calls."""
        wishes = {criterion.name: criterion.wish for criterion in self.rubric.criteria}
        rejected = [(tool, name) for tool, name in map(_parted, verdict.vetoed_by) if tool]
        of_calls = [f"- Your call of {tool} was rejected. Wanted is: {wishes[name]}" for tool, name in rejected]
        if of_calls:
            of_calls.insert(0, "Do without these tool calls, or make them otherwise:")
        text_is_bad = any(value <= 0 for name, value in verdict.values.items() if not _parted(name)[0])
        of_text = [self.judge.guidance(verdict)] if text_is_bad or not of_calls else []
        return "\n".join([*of_text, *of_calls])


SEPARATOR = " / "
"""Between the name of a tool and that of a criterion of its rubric, in verdicts."""


def _parted(name: str) -> tuple[str, str]:
    """The tool and the criterion that a name in a verdict stands for; no tool for a criterion of the answer itself."""
    tool, separator, criterion = name.rpartition(SEPARATOR)
    return (tool, criterion) if separator else ("", name)


def _with_calls(verdict: Verdict, judged: Sequence[RejectedCall]) -> Verdict:
    """A verdict with the values of the calls; of several calls of a tool the worst."""
    values = dict(verdict.values)
    for each in judged:
        for name, value in each.verdict.values.items():
            key = f"{each.call['name']}{SEPARATOR}{name}"
            values[key] = min(value, values.get(key, 1.0))
    return replace(verdict, values=values)


def _ruled_out(verdict: Verdict, judged: Sequence[RejectedCall]) -> Verdict:
    """A veto: what holds a call that does not satisfy is given to nobody, under no policy."""
    bad = [each for each in judged if not each.is_satisfied]
    by = [
        f"{each.call['name']}{SEPARATOR}{name}"
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
