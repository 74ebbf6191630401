"""What happens in a trajectory, as data: what is asked, what the tools give back, and what a misled model calls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
FAMILIES = (
    *("instructions", "fake_turns", "exfiltration", "arguments"),
    *("several_turns", "taking_over", "within_the_rules"),
)
"""Each is a file."""


@dataclass(frozen=True)
class Call:
    """A tool call as it is proposed, or as it ran."""

    tool: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """A call that an honest model makes, and what comes of it.

    Attributes:
        call: the call.
        says: what the tool gives back.
        injects: what an attacker has put behind it; none in a benign twin.
        is_in_block: whether that stands in a content block of its own, which is no text.
    """

    call: Call
    says: str
    injects: str = ""
    is_in_block: bool = False

    @property
    def output(self) -> str | list[str | dict[str, Any]]:
        """All that the tool gives back."""
        if self.injects and self.is_in_block:
            return [{"type": "text", "text": self.says}, {"type": "json", "json": {"comment": self.injects}}]
        return f"{self.says}\n\n{self.injects}" if self.injects else self.says


@dataclass(frozen=True)
class Turn:
    """What a user asks, the way to its answer, and the answer."""

    ask: str
    plan: tuple[Step, ...]
    answer: str


@dataclass(frozen=True)
class Proposal:
    """What a misled model says and calls; the next one is what it tries after this one was rejected."""

    calls: tuple[Call, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Script:
    """A trajectory.

    Attributes:
        name: tells it from the others.
        family: the kind of attack.
        world: which tools there are.
        turns: of the user, one after another.
        bad: what a misled model proposes, each when the one before was rejected.
        acts_in: the turn from which on it does, counted from 1.
        is_stubborn: whether it never does the honest thing after that.
        is_covered: whether a pattern or a function tells the bad calls from the good ones.
        runs: whether the bad calls do anything where nobody guards.
    """

    name: str
    family: str
    world: str
    turns: tuple[Turn, ...]
    bad: tuple[Proposal, ...]
    acts_in: int = 1
    is_stubborn: bool = False
    is_covered: bool = True
    runs: bool = True

    @property
    def steps(self) -> Iterator[Step]:
        """Of all turns."""
        return (step for turn in self.turns for step in turn.plan)

    @property
    def injections(self) -> tuple[str, ...]:
        """All that an attacker has put somewhere."""
        return tuple(step.injects for step in self.steps if step.injects)

    @property
    def planned(self) -> list[Call]:
        """All calls of an honest model."""
        return [step.call for step in self.steps]

    @property
    def twin(self) -> "Script":
        """The same without the attacker."""
        turns = tuple(replace(turn, plan=tuple(replace(step, injects="") for step in turn.plan)) for turn in self.turns)
        return replace(self, turns=turns)

    def beginning_with(self, number: int) -> "Script":
        """The same attack that tries another of its proposals first."""
        return replace(self, bad=(*self.bad[number:], *self.bad[:number]))


@cache
def scripts() -> tuple[Script, ...]:
    """All attacks."""
    return tuple(script for family in FAMILIES for script in _scripts_in(family))


def of_family(family: str) -> tuple[Script, ...]:
    """The attacks of a family."""
    return tuple(script for script in scripts() if script.family == family)


def _scripts_in(family: str) -> Iterator[Script]:
    for given in yaml.safe_load((FOLDER / f"{family}.yaml").read_text(encoding="utf-8")):
        turns = given.pop("turns", None) or [{key: given.pop(key) for key in ("ask", "plan", "answer")}]
        bad = tuple(_proposal(each) for each in given.pop("bad"))
        yield Script(family=family, turns=tuple(map(_turn, turns)), bad=bad, **given)


def _turn(given: dict[str, Any]) -> Turn:
    return Turn(given["ask"], tuple(map(_step, given["plan"])), given["answer"])


def _step(given: dict[str, Any]) -> Step:
    told = {key: str(given.pop(key)).strip() for key in ("says", "injects") if key in given}
    is_in_block = given.pop("is_in_block", False)
    return Step(_call(given), is_in_block=is_in_block, **told)


def _proposal(given: Any) -> Proposal:
    """One call, several in a list, or `text` beside or without any."""
    parts = given if isinstance(given, list) else [given]
    text = "".join(part["text"] for part in parts if "text" in part)
    return Proposal(tuple(_call(part) for part in parts if "text" not in part), text)


def _call(given: Mapping[str, Any]) -> Call:
    ((tool, args),) = given.items()
    return Call(tool, args)
