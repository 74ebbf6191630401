"""What a judge of outcomes is, what it finds, and that it is not who steered the answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

from langchain_core.messages import convert_to_messages

from langchain_rain.engines.base import Engine
from langchain_rain.engines.dialogue import as_lines
from langchain_rain.errors import RainConfigError
from langchain_rain.search.protocol import Transcript

Label: TypeAlias = bool | float | None
"""What is found; None where the judge could not tell."""

Content: TypeAlias = str | Sequence[Mapping[str, str]]
"""What was asked: a text to continue, or a conversation to answer, as role and content of each message."""

Key: TypeAlias = tuple[str, str, int]
"""Names an answer: the case, the strategy and the seed."""


def value_name(label: str) -> str:
    """Under which name a judge gives the graded value, in [-1, 1], that a label comes from."""
    return f"{label}_value"


@runtime_checkable
class OutcomeJudge(Protocol):
    """Says how an answer turned out."""

    @property
    def name(self) -> str:
        """Names the judge in reports."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells its findings from those of another judge, as JSON values; becomes part of hashes. No secrets."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can give."""

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The models that it asks."""

    async def judge(
        self, case_content: Content, reference: Mapping[str, Any], answer_text: str, /, *, group: str
    ) -> Mapping[str, Label]:
        """The labels of an answer, and values under `value_name`.

        None is what it could not tell; a label that makes no sense of this case, as the helpfulness of an answer to a
        harmful request in the demo world, is missing.

        Args:
            case_content: what was asked.
            reference: what is known of the case.
            answer_text: the answer that was given.
            group: what the case belongs to in its suite.

        Raises:
            RainConfigError: it cannot judge cases like this one.
            EngineError: its model failed.
        """


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an answer turned out.

    Attributes:
        case_id: of the case that was answered.
        strategy: by which it was answered.
        seed: of that answer.
        judge: the name of who says so.
        labels: what is true of it; None where the judge could not tell, which counts as that and is never left out.
        values: graded values behind labels, in [-1, 1].
    """

    case_id: str
    strategy: str
    seed: int
    judge: str
    labels: Mapping[str, Label]
    values: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, key: Key, judge: OutcomeJudge, found: Mapping[str, Label]) -> Self:
        """What a judge found about the answer that `key` names."""
        case_id, strategy, seed = key
        labels = {name: label for name, label in found.items() if name in judge.labels}
        values = {name: float(label) for name, label in found.items() if name not in labels and label is not None}
        return cls(case_id, strategy, seed, judge.name, labels, values)

    @property
    def key(self) -> Key:
        """Names the answer."""
        return self.case_id, self.strategy, self.seed


# --- What is judged --------------------------------------------------------------------------------------------------


def transcript_for(content: Content, answer: str) -> Transcript:
    """What a judge reads: a text goes on as it stands, an answer to a conversation is its next turn."""
    if isinstance(content, str):
        is_turn = content.endswith("Assistant:") and not answer[:1].isspace()  # of which the space was taken off
        return Transcript(content, f" {answer}" if is_turn else answer)
    return Transcript(as_lines(convert_to_messages([dict(message) for message in content])), f" {answer}")


def shown_content(content: Content) -> str:
    """What was asked, for people."""
    return transcript_for(content, "").prompt.removesuffix("\n\nAssistant:").strip("\n")


# --- Who judges ------------------------------------------------------------------------------------------------------


def check_is_another(judge: OutcomeJudge, steering: Iterable[Engine], *, is_allowed: bool = False) -> None:
    """Checks that an outcome is not judged by a model that steered the answer, which would find its own taste good.

    Args:
        judge: of the outcome.
        steering: the engines that judged while answers were written.
        is_allowed: whether that is wanted all the same.

    Raises:
        RainConfigError: it is one of them.
    """
    same = [engine.name for engine in steering if is_same_judge(judge, [engine])]
    if same and not is_allowed:
        raise RainConfigError(
            f"judge: {judge.name} asks the model {same[0]!r}, which steered the answers, so it would find good what it "
            "let pass. Give another judge, or allow the same one explicitly."
        )


def is_same_judge(judge: OutcomeJudge, steering: Iterable[Engine]) -> bool:
    """Whether a model that the judge asks is one of these, by object, by weights, or by name."""
    return any(_is_same_model(own, engine) for engine in steering for own in judge.engines)


def _is_same_model(first: Engine, second: Engine) -> bool:
    if first is second:
        return True
    one, other = first.identity, second.identity
    if one.get("engine") == other.get("engine") and "weights" in one and "weights" in other:
        return bool(one["weights"] == other["weights"])
    # Settings aside: a chat model at another temperature is the same one.
    return not _names_of(one).isdisjoint(_names_of(other))


def _names_of(identity: Mapping[str, Any]) -> set[str]:
    """What a model is called; a server's own name says nothing about the model it has."""
    names = {str(identity[key]) for key in ("model", "source") if identity.get(key)}
    return names or {str(identity.get("name"))}
