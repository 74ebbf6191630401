"""What an engine is, and what its replies must look like.

An engine holds conversations open (`open`, `close`) and answers the requests of `search.protocol` in one of two shapes:

* a **stepper** lives in this process: `submit` takes a request, each `step` does one forward pass over whatever is
  pending (or a few, if that is much), and `cancel` drops what is not needed any more. One thread owns it
  (`merging.StepperChannel`).
* an **async engine** lives behind a network: `await answer(request)`. One event loop owns it (`merging.AsyncChannel`).

Either hands a request that failed an exception *as its reply*; it never raises for it, so the other requests go on.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.reading import AnswerReader
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import (
    Context,
    Embed,
    Expand,
    OptionLogprobs,
    Request,
    Rollout,
    Score,
    Tokens,
    TokenSet,
)

Ticket: TypeAlias = int
"""Names a submitted request of one stepper."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What was run.

    Attributes:
        forward_passes: steps of an engine in this process; with a model behind an interface, calls.
        token_positions: new ones that went through a model.
        judging_positions: those of them that went into judgements.
        input_positions: those of them that a model behind an interface counts as its input, for whatever purpose.
        cached_positions: of prompts that did not go through a model again, as an earlier text begins alike.
        num_estimated: calls whose model did not tell what they took, so that their positions are estimated.
    """

    forward_passes: int = 0
    token_positions: int = 0
    judging_positions: int = 0
    input_positions: int = 0
    cached_positions: int = 0
    num_estimated: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.forward_passes + other.forward_passes,
            self.token_positions + other.token_positions,
            self.judging_positions + other.judging_positions,
            self.input_positions + other.input_positions,
            self.cached_positions + other.cached_positions,
            self.num_estimated + other.num_estimated,
        )


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did.

    Attributes:
        finished: replies, or exceptions in their place, of the requests that are done.
        positions: new token positions of each request that took part in the forward pass; empty if there was none.
            A position that serves several requests counts for the first.
        cached: of the request with which a prompt is read to its end, how much of that was there already.
    """

    finished: Mapping[Ticket, Any] = field(default_factory=dict)
    positions: Mapping[Ticket, int] = field(default_factory=dict)
    cached: Mapping[Ticket, int] = field(default_factory=dict)


class Listener(Protocol):
    """Who asked. Told after every step in which one of its requests took part; never twice at once by one channel."""

    def on_progress(self, cost: Cost, replies: Mapping[int, Any]) -> None:
        """Takes what a step cost and the replies (or exceptions) it brought, by the numbers given to `submit`."""


class Channel(Protocol):
    """The one way to an engine: whoever owns it does all work on it, one thing at a time."""

    def post(self, job: Callable[[], None]) -> None:
        """Runs `job` where the engine's work is done, soon, between two steps."""

    def submit(self, requests: Mapping[int, Request], listener: Listener) -> None:
        """Asks; the listener hears of it."""

    def cancel(self, listener: Listener, numbers: Collection[int] | None = None) -> None:
        """Drops what the listener has asked under `numbers`, None for all; it hears nothing more of that."""

    def close(self, context: Context) -> None:
        """Closes a conversation and frees what it holds."""


@runtime_checkable
class Engine(Protocol):
    """A language model that answers requests."""

    @property
    def name(self) -> str:
        """Names the engine in errors and results."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells its answers from those of another engine; becomes part of cache keys. No secrets."""

    @property
    def channel(self) -> Channel:
        """The way to it; the same one for everybody who uses this engine."""

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        """Begins a conversation: an answer of at most `max_tokens` tokens that ends before any string of `stop`.

        Raises:
            EngineError: the prompt cannot be used with this model.
        """


@runtime_checkable
class ChatEngine(Engine, Protocol):
    """An engine that takes conversations; others get them in lines, `Human: ...` and `Assistant: ...`."""

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations go through a template of the model's own; else they are put in lines."""

    @property
    def writes_whole_messages(self) -> bool:
        """Whether a token set is a whole message; nothing but `Expand` by one and `Score` is answered then."""

    def check_tools(self) -> None:
        """Checks that the model can be offered tools.

        Raises:
            RainConfigError: it cannot; says why.
        """

    def open(self, prompt: str | Dialogue, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        """Begins a conversation, as `Engine.open`."""

    def reader(self, context: Context) -> AnswerReader:
        """Reads the answer of an open conversation."""


@dataclass(frozen=True, slots=True)
class ModelText:
    """A text that goes through a model.

    Attributes:
        tokens: from its beginning. The last one that is written comes out of the model and does not go in.
        num_asked: at how many of its last places it is asked what follows; up to there it is only read.
    """

    tokens: Tokens
    num_asked: int


class Feeding(Protocol):
    """Tells what the requests of a conversation put before the model, while it is open and afterwards."""

    def texts(self, request: Request, reply: Any) -> Sequence[ModelText]:
        """The texts that go through the model for a request with this reply.

        What is drawn and then dropped, as it was drawn twice or not wanted, is not among them.
        """


@runtime_checkable
class ReadsTexts(Protocol):
    """An engine of which it is known which tokens go through its model."""

    def feeding(self, context: Context) -> Feeding:
        """Tells it of an open conversation."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How probable a text is.

    Attributes:
        logprob: the sum of the natural log probabilities of its tokens.
        num_tokens: how many they are.
    """

    logprob: float
    num_tokens: int


@runtime_checkable
class TellsLikelihood(Engine, Protocol):
    """An engine that tells how probable a text is that somebody else may have written."""

    def log_likelihood(self, prompt: str | Dialogue, text: str) -> Likelihood:
        """How probable its model finds `text` behind `prompt`, at temperature 1; called by its owner alone.

        Raises:
            EngineError: it cannot read one of them.
        """


class Stepper(Engine, Protocol):
    """An engine in this process; all methods but `open` are called by its owner alone."""

    def submit(self, request: Request) -> Ticket:
        """Takes a request; it is worked on by the following steps."""

    def step(self) -> StepReport:
        """Does one forward pass over whatever is pending."""

    def cancel(self, ticket: Ticket) -> None:
        """Forgets a request that is pending."""

    def close(self, context: Context) -> None:
        """Frees what a conversation holds."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply (or an exception in its place) and what it cost."""

    reply: Any
    cost: Cost


class AsyncEngine(Engine, Protocol):
    """An engine behind a network; its coroutines run on the loop of its channel."""

    async def answer(self, request: Request) -> Answered:
        """Answers one request; failures are returned, not raised."""

    async def aclose(self, context: Context) -> None:
        """Frees what a conversation holds."""


def checked_reply(request: Request, reply: Any, *, engine: str) -> Any:
    """Returns `reply`, or an `EngineError` in its place if it does not answer `request`."""
    if isinstance(reply, Exception):
        return reply
    problem = _PROBLEMS[type(request)](request, reply)
    if problem is None:
        return reply
    kind = type(request).__name__
    return EngineError(f"{engine} gave a wrong reply to {kind}: {problem}.", engine=engine, request=kind)


def _kind(reply: Any) -> str:
    """Names a reply without what it says: it may be text that is rejected."""
    numbers = f" of {len(reply.logprobs)}" if isinstance(reply, OptionLogprobs) else ""
    kinds = sorted({type(each).__name__ for each in reply}) if isinstance(reply, list | tuple) else []
    return type(reply).__name__ + numbers + (f" of {', '.join(kinds)}" if kinds else "")


def _expand_problem(request: Expand, reply: Any) -> str | None:
    if not isinstance(reply, list) or not all(isinstance(token_set, TokenSet) for token_set in reply):
        return f"a list of TokenSet is wanted, given {_kind(reply)}"
    tokens = [token_set.tokens for token_set in reply]
    if len(tokens) > request.num_token_sets:
        return f"at most {request.num_token_sets} token sets are wanted, given {len(tokens)}"
    if len(set(tokens)) < len(tokens) or request.exclude.intersection(tokens):
        return "the token sets are not distinct, or one of them was excluded"
    if any(not 1 <= len(each) <= request.num_tokens for each in tokens):
        return f"token sets of 1 to {request.num_tokens} tokens are wanted, given {[len(each) for each in tokens]}"
    return _logprob_problem(reply)


def _rollout_problem(request: Rollout, reply: Any) -> str | None:
    if not isinstance(reply, TokenSet):
        return f"a TokenSet is wanted, given {_kind(reply)}"
    if request.max_tokens is not None and len(reply.tokens) > request.max_tokens:
        return f"at most {request.max_tokens} tokens are wanted, given {len(reply.tokens)}"
    return _logprob_problem([reply])


def _logprob_problem(token_sets: Sequence[TokenSet]) -> str | None:
    if any(math.isnan(token_set.logprob) for token_set in token_sets):
        return f"log probabilities are wanted, given {[token_set.logprob for token_set in token_sets]}"
    return None


def _score_problem(request: Score, reply: Any) -> str | None:
    if not isinstance(reply, OptionLogprobs) or len(reply.logprobs) != len(request.options):
        return f"OptionLogprobs of {len(request.options)} options are wanted, given {_kind(reply)}"
    if any(math.isnan(logprob) for logprob in reply.logprobs) or not 0 <= reply.mass <= 1 + 1e-6:
        return f"log probabilities and a mass in [0, 1] are wanted, given {reply!r}"
    return None


def _embed_problem(request: Embed, reply: Any) -> str | None:
    shape = getattr(reply, "shape", None)
    if shape is None or len(shape) != 1 or not math.isfinite(float(reply @ reply)):
        return f"one finite vector is wanted, given {type(reply).__name__} of shape {shape}"
    return None


_PROBLEMS: Mapping[type, Callable[[Any, Any], str | None]] = {
    Expand: _expand_problem,
    Rollout: _rollout_problem,
    Score: _score_problem,
    Embed: _embed_problem,
}
