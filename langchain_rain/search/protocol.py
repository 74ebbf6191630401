"""What a search may ask a language model, and how it asks.

A search is a generator. It yields a `Round` of independent requests together with the events since the last one,
is resumed with one reply per request in the same order, and returns its result. What it will probably ask later it may
ask ahead, without waiting for the replies.

    Expand  ->  list[TokenSet]      which token sets could follow?
    Rollout ->  TokenSet            go on until a clause or the answer ends
    Score   ->  OptionLogprobs      how probable is each option as the next token?
    Embed   ->  Vector              where do the last tokens of this path lie?

Token ids are opaque here: nothing in `search` decodes, tokenizes or counts anything but tokens.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:  # numpy stays out of the search at run time, but for `similarity`
    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float64]

T = TypeVar("T")

Tokens: TypeAlias = tuple[int, ...]

FinishReason: TypeAlias = Literal["eos", "stop", "length"]
"""Why a text ended: end-of-sequence, a stop string, or the length limit of its context."""


@dataclass(frozen=True, eq=False)
class Context:
    """A conversation that an engine holds open; requests name it, only its engine looks inside.

    Contexts compare by identity. `num_prompt_tokens` is what every request in it starts from.
    """

    engine_name: str
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class TokenSet:
    """A short run of tokens: an edge of the search tree, or a rollout.

    Attributes:
        tokens: token ids, cut after the token that ended the text.
        text: what these tokens add to the text, cut at a stop string. Held back: an incomplete character, or what
            may still turn out to begin a stop string; the token set that decides it brings it.
        logprob: natural log of the probability under the distribution it was drawn from.
        is_greedy: whether every token is the most probable one.
        finish_reason: None while the text goes on.
    """

    tokens: Tokens
    text: str
    logprob: float = 0.0
    is_greedy: bool = False
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Expand:
    """Which token sets could follow `prefix`?

    With `num_tokens == 1`: the most probable tokens, most probable first. Longer: the greedy continuation first, then
    distinct ones out of `num_draws` sampled (each token from the `top_k` most probable). At most `num_token_sets`,
    none of `exclude`. A token set that ends the text is shorter. `guidance` is put before an engine that writes whole
    messages, so that it proposes better ones; others do not see it.
    """

    context: Context
    prefix: Tokens
    num_token_sets: int
    num_tokens: int
    num_draws: int
    top_k: int
    temperature: float
    seed: int
    exclude: frozenset[Tokens] = frozenset()
    guidance: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Sample on from `prefix` (full distribution) until the text ends in one of `until`, or the answer ends.

    No token at all if `prefix` is not empty and its text already ends so; with `min_tokens` an end in `until` counts
    only after that many. At most `max_tokens` tokens, None for as many as the context allows. `guidance` is put before
    the model, where it fits into its context, so that of what it might say anyway it says something better.
    """

    context: Context
    prefix: Tokens
    until: tuple[str, ...]
    max_tokens: int | None
    temperature: float
    seed: int
    min_tokens: int = 0
    guidance: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """How probable is each of `options` as the continuation of `answer_prefix` in reply to `question`?

    `wrapper` is what stands before and after the question in place of the model's own chat template, special tokens
    included: a model that was trained to judge has a form of its own.
    """

    context: Context
    question: str
    answer_prefix: str
    options: tuple[str, ...]
    wrapper: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class OptionLogprobs:
    """Log probabilities (natural) of the options of a `Score`, in their order, summed over surface forms.

    `mass` in [0, 1] is the probability that all options cover together.
    """

    logprobs: tuple[float, ...]
    mass: float


@dataclass(frozen=True, slots=True)
class Embed:
    """Where do the last `num_tokens` tokens of `prefix` lie? Answered by a unit vector."""

    context: Context
    prefix: Tokens
    num_tokens: int


Request: TypeAlias = Expand | Rollout | Score | Embed
Reply: TypeAlias = "list[TokenSet] | TokenSet | OptionLogprobs | Vector"


AppliesTo: TypeAlias = Literal["prefix", "final"]
"""What can be judged: any beginning of an answer, or only an answer that has ended."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a judge reads.

    Attributes:
        prompt: what stands before the answer, verbatim.
        answer: the answer so far.
        is_finished: whether it has ended.
    """

    prompt: str
    answer: str
    is_finished: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge thinks of a text.

    Attributes:
        value: in [-1, 1]; -1 if a veto fell, 0 if the judge abstains.
        values: the value of each criterion that was judged, by name.
        is_vetoed: a criterion that may veto found against the text.
        is_abstained: the judge did not choose between its options; satisfies nothing.
        masses: the least probability, in [0, 1], that a criterion's options had together, by its name.
        vetoed_by: the criteria that did.
        abstained: the criteria that did.
    """

    value: float
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    is_vetoed: bool = False
    is_abstained: bool = False
    masses: Mapping[str, float] = field(default_factory=dict, hash=False)
    vetoed_by: tuple[str, ...] = ()
    abstained: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line: the value, what is special about it, and each criterion with its own."""
        special = "vetoed" if self.is_vetoed else "abstained" if self.is_abstained else ""
        by = ", ".join(self.vetoed_by if self.is_vetoed else self.abstained)
        head = f"{self.value:+.2f}" + (f" ({special}{f' by {by}' if by else ''})" if special else "")
        return ": ".join([head, *[", ".join(map(self._describe, self.values))]] if self.values else [head])

    def _describe(self, name: str) -> str:
        mass = f" (mass {self.masses[name]:.2f})" if name in self.masses else ""
        return f"{name} " + ("abstained" if name in self.abstained else f"{self.values[name]:+.2f}") + mass

    def satisfies(self, accept_value: float) -> bool:
        """Whether this judgement lets a text be given to the caller."""
        return self.value > accept_value and not self.is_vetoed and not self.is_abstained


@dataclass(frozen=True, slots=True)
class Simulated:
    """One simulation was backed up.

    Attributes:
        prefix: the leaf where it arrived.
        draft: the text that was judged: that of the leaf and its rollout.
        rollout: the end of `draft` that was only written to be judged.
        verdict: what the judge said.
        num_rewound_tokens: those of the simulation before that this one gave up; 0 is no rewind.
    """

    prefix: Tokens
    draft: str
    rollout: str
    verdict: Verdict
    num_rewound_tokens: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A token set was chosen as the next part of the answer.

    Attributes:
        token_set: what was chosen.
        value: of its node when it was chosen.
        num_simulations: how many it took since the commit before.
        is_satisfied: whether the text up to its end was judged well: the search stopped above `value_threshold`, or a
            direct judgement satisfied. Otherwise it is the best there was.
    """

    token_set: TokenSet
    value: float
    num_simulations: int
    is_satisfied: bool


Event: TypeAlias = Simulated | Committed


@dataclass(frozen=True, slots=True)
class Round:
    """Independent requests, and what has happened since the round before.

    Attributes:
        requests: what the search waits for.
        events: in the order in which they happened.
        ahead: what it will probably ask later, none of it among `requests`. The replies come after those to
            `requests`: an exception where a request failed, None where there is no reply yet. A request that is named
            again, here or there, goes on; one that is not is dropped. None leaves everything as it is.
    """

    requests: tuple[Request, ...]
    events: tuple[Event, ...] = ()
    ahead: tuple[Request, ...] | None = None


Steps: TypeAlias = Generator[Round, Sequence[Any], T]
"""A search, or a part of one. Only `drivers` resumes a search; its parts go by `yield from` and `together`."""


class Judge(Protocol):
    """Judges a transcript, prompt and answer so far, by asking."""

    @property
    def can_veto(self) -> bool:
        """Whether a verdict may be a veto."""

    @property
    def applies_to(self) -> frozenset[AppliesTo]:
        """What its criteria can judge. With "final" among it, only a finished answer is known to satisfy."""

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        """Judges a transcript."""

    def guidance(self, verdict: Verdict) -> str:
        """What a writer should keep to whose text was judged so."""


def ask_all(requests: Sequence[Request], events: Sequence[Event] = ()) -> Steps[Sequence[Any]]:
    """Asks independent requests in one round; returns their replies in the same order."""
    return (yield Round(tuple(requests), tuple(events)))


def ask(request: Request, events: Sequence[Event] = ()) -> Steps[Any]:
    """Asks one request; returns its reply."""
    (reply,) = yield from ask_all((request,), events)
    return reply


def observed(part: Steps[T], seen: list[tuple[Request, Any]]) -> Steps[T]:
    """The same part of a search; all that it asks is appended to `seen` with the reply."""
    replies: Any = None
    try:
        while True:
            try:
                asked = part.send(replies)
            except StopIteration as stop:
                result: T = stop.value
                return result
            replies = yield asked
            seen += zip(asked.requests, replies, strict=False)
    finally:
        part.close()


def together(*parts: Steps[Any]) -> Steps[list[Any]]:
    """Runs independent parts of a search side by side and returns their results in order.

    What they ask at the same time becomes one round. An error that is thrown in ends all of them.
    """
    results: list[Any] = [None] * len(parts)
    replies: dict[int, Any] = dict.fromkeys(range(len(parts)))
    try:
        while True:
            rounds: dict[int, Round] = {}
            for number, reply in replies.items():
                try:
                    rounds[number] = parts[number].send(reply)
                except StopIteration as stop:
                    results[number] = stop.value
            if not rounds:
                return results
            merged = iter((yield _merged(list(rounds.values()))))
            replies = {number: list(islice(merged, len(each.requests))) for number, each in rounds.items()}
            for number, each in rounds.items():
                replies[number] += islice(merged, len(each.ahead or ()))
    finally:
        for part in parts:
            part.close()


def _merged(rounds: Sequence[Round]) -> Round:
    ahead = [each.ahead for each in rounds if each.ahead is not None]
    return Round(
        requests=tuple(request for each in rounds for request in each.requests),
        events=tuple(event for each in rounds for event in each.events),
        ahead=tuple(request for each in ahead for request in each) if ahead else None,
    )


def derive_seed(seed: int, kind: type, path: Tokens, ordinal: int) -> int:
    """The seed of the `ordinal`-th request of this kind at this path, in [0, 2**63).

    It depends on nothing else, so neither the order of requests nor what is merged with them changes a result.
    """
    return _hash_to_seed(repr((seed, kind.__name__, path, ordinal)))


def derive_search_seed(seed: int, prompt: str) -> int:
    """The seed of the search for one prompt, in [0, 2**63): prompts that share a seed do not share their draws."""
    return _hash_to_seed(repr((seed, prompt)))


def _hash_to_seed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
