"""What a strategy is, what all of them share, and what is told of an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from langchain_rain.arguments import DEFAULT_MAX_TOKENS, check_stop
from langchain_rain.config import RainConfig
from langchain_rain.engines.base import ChatEngine, Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.judging import Loaded, check_all_is_judged
from langchain_rain.rubrics import Rubric
from langchain_rain.search.paper import StopReason

Content: TypeAlias = str | Sequence[Mapping[str, str]]
"""What is asked: a text to continue, or a conversation to answer, as role and content of each message."""

FinishReason: TypeAlias = StopReason | Literal["refused"]
"""Why a text ended, or the search that made it; "refused" if a refusal is given in its place."""

MAX_STEPS = 40
"""Of a search that are kept: half of them its first, half its last."""

MAX_STEP_CHARACTERS = 200
"""That are kept of the text of a step."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all strategies share.

    Attributes:
        writer: writes.
        judge: steers, as far as a strategy is steered, and says of every answer whether it satisfies.
        rubric: what is judged by, and where critiques have their principles from.
        config: how questions are scored, from which value on an answer satisfies, and the temperature; RAIN's presets
            bring their own.
        max_tokens: longest answer; None: 256, or what a chat model does by itself.
        stop: an answer ends before any of these.
        asks_ahead: whether a search may ask what it will probably need; at equal budget it must not, as what is then
            given up takes positions that are not counted.
        loaded: guards that were loaded, and what was learnt of engines.

    Raises:
        RainConfigError: a stop string is not allowed, or a criterion would not be judged.
        EngineError: a guard of the rubric cannot be loaded.
    """

    writer: Engine
    judge: Engine
    rubric: Rubric
    config: RainConfig = field(default_factory=RainConfig)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    asks_ahead: bool = True
    loaded: Loaded = field(default_factory=Loaded)

    def __post_init__(self) -> None:
        check_stop(list(self.stop))
        check_all_is_judged(self.rubric, self.judge, self.judge)
        self.loaded.guards(self.rubric)

    @property
    def answer_limit(self) -> int:
        """The longest answer of a model that shows its tokens."""
        return self.max_tokens if self.max_tokens is not None else DEFAULT_MAX_TOKENS

    @property
    def writes_whole_messages(self) -> bool:
        """Whether the writer shows no tokens."""
        return isinstance(self.writer, ChatEngine) and self.writer.writes_whole_messages

    @property
    def identity(self) -> dict[str, Any]:
        """All that answers depend on but for the strategy, as JSON values. No secrets."""
        goes_by_itself = isinstance(self.judge, CallableEngine)
        return {
            "writer": dict(self.writer.identity),
            "judge": dict(self.judge.identity),
            "rubric": None if goes_by_itself else self.rubric.content_hash,
            "wishes": [criterion.wish for criterion in self.rubric.criteria],
            "guards": {name: dict(guard.identity) for name, guard in self.loaded.guards(self.rubric).items()},
            "config": self.config.model_dump(mode="json"),
            "max_tokens": self.max_tokens,
            "stop": list(self.stop),
            "asks_ahead": self.asks_ahead,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of text that was drafted, taken back or kept on the way to an answer.

    Attributes:
        text: the piece, of a long one the beginning.
        value: by the steering judge, of all up to its end; None if nobody judged it.
        event: what happened to it.
        num_tokens: of the piece, without those that a search wrote only to judge it.
    """

    text: str
    value: float | None
    event: Literal["draft", "rewind", "commit"]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and how it came about; `asdict` makes JSON values of it.

    Attributes:
        case_id: of what was asked.
        strategy: the name of the strategy.
        text: what is given to the caller, without the first words that were put into the assistant's mouth.
        finish_reason: why it ended, see `FinishReason`.
        value: by the steering judge, of the finished answer, in [-1, 1]; of a refused one, not of the refusal.
        values: the value of each criterion.
        is_satisfied: whether that judgement lets the answer be given to the caller; a guardrail would refuse otherwise.
        is_refusal_by_policy: whether `text` is the refusal message of the strategy, which nobody wrote.
        forward_passes: that the answer took part in; with a model behind an interface, calls.
        token_positions: that went through models, as the engines tell. In a process they share what others computed.
        judging_positions: those of them that went into judgements.
        counted_positions: what the answer takes alone, which is what equal budgets are about (`metering`).
        checking_positions: of a judgement that the strategy has no use for, made for `value` alone. They are in none of
            the figures above.
        num_estimated: calls whose model did not tell what they took, so that their positions are estimated.
        max_positions: the budget it was given; None for none.
        num_tokens: of the answer, of a refused one too; None where the writer shows none.
        num_drafts: whole answers that were considered.
        num_simulations: of a search; 0 without one.
        num_rewinds: likewise.
        rewinds_at: where in the answer they happened, as the number of tokens that stayed, in their order.
        seconds: that it took, from the first request to the last, without the judgement for the record.
        num_steps: how many steps there were.
        steps: the first and the last of them.
    """

    case_id: str
    strategy: str
    seed: int
    text: str
    finish_reason: FinishReason
    value: float
    values: Mapping[str, float]
    is_satisfied: bool
    is_refusal_by_policy: bool
    forward_passes: int
    token_positions: int
    judging_positions: int
    counted_positions: int
    checking_positions: int
    num_estimated: int
    max_positions: int | None
    num_tokens: int | None
    num_drafts: int
    num_simulations: int
    num_rewinds: int
    rewinds_at: tuple[int, ...]
    seconds: float
    num_steps: int
    steps: tuple[Step, ...]


class Strategy(Protocol):
    """A way to answer. The same seed brings the same answer, whatever is answered beside it or was before."""

    @property
    def name(self) -> str:
        """Names it in reports."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its answers depend on, as JSON values; becomes part of hashes. No secrets."""

    async def answer(
        self, case_id: str, content: Content, *, seed: int, prefill: str = "", max_positions: int | None = None
    ) -> Answered:
        """Answers what is asked.

        Args:
            case_id: names it in the result.
            content: what is asked.
            seed: of all that is drawn.
            prefill: first words that are put into the assistant's mouth: part of what is asked and judged, not of the
                answer, which goes on from there.
            max_positions: the budget, see the package.

        Raises:
            RainConfigError: what is asked is not allowed.
            EngineError: a model failed.
        """


def first_and_last(steps: Sequence[Step]) -> tuple[Step, ...]:
    """As many steps as are kept, and of their texts as much."""
    half = MAX_STEPS // 2
    kept = steps if len(steps) <= MAX_STEPS else (*steps[:half], *steps[-half:])
    return tuple(Step(each.text[:MAX_STEP_CHARACTERS], each.value, each.event, each.num_tokens) for each in kept)
