"""Requests that hypothesis makes up, asked while others are under way, and compared with the oracle's replies."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hypothesis import strategies as st

from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Embed, Expand, Request, Rollout, Score
from tests.comparing import ROUNDING, assert_same
from tests.naive_engine import NaiveEngine

PROMPTS = ("yes", "yes, no", "Human: yes")
MAX_STEPS = 300


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how many steps are made before the next one is asked."""

    kind: Literal["expand", "one", "rollout", "guided", "score", "embed"]
    prompt: str
    prefix: tuple[int, ...]
    seed: int
    num_steps: int

    def of(self, context: Context) -> Request:
        match self.kind:
            case "expand":
                return Expand(context, self.prefix, 4, 3, num_draws=3, top_k=5, temperature=1.0, seed=self.seed)
            case "one":
                return Expand(context, self.prefix, 4, 1, num_draws=0, top_k=5, temperature=1.0, seed=self.seed)
            case "rollout":
                return rollout(context, *self.prefix, max_tokens=4, seed=self.seed)
            case "guided":
                drawn = rollout(context, *self.prefix, max_tokens=2, seed=self.seed)
                return replace(drawn, guidance="No", temperature=0.5)
            case "score":
                return question(context, f"Is it {self.seed}? ")
            case "embed":
                return Embed(context, (*self.prefix, 70), num_tokens=len(self.prefix) + 1)


def rollout(context: Context, *prefix: int, max_tokens: int = 3, seed: int = 1) -> Rollout:
    return Rollout(context, prefix, until=(), max_tokens=max_tokens, temperature=1.0, seed=seed)


def question(context: Context, text: str) -> Score:
    return Score(context, text, "The answer is: (", ("A", "B"))


ASKED_IN_TURN = st.lists(
    st.builds(
        Asked,
        kind=st.sampled_from(["expand", "one", "rollout", "guided", "score", "embed"]),
        prompt=st.sampled_from(PROMPTS),
        prefix=st.lists(st.sampled_from([40, 50, 60]), max_size=3).map(tuple),
        seed=st.integers(0, 3),
        num_steps=st.integers(0, 2),
    ),
    min_size=1,
    max_size=7,
)


def assert_naive_in_turn(
    engine: TransformersEngine,
    naive: NaiveEngine,
    asked: Sequence[Asked],
    *,
    tolerance: float = ROUNDING,
    cancelled: Collection[int] = (),
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Fails unless all but what is `cancelled` get the naive replies, or the error that they do not fit the cache."""
    contexts, naive_contexts = ({p: each.open(p, max_tokens=9) for p in PROMPTS} for each in (engine, naive))
    replies: dict[int, Any] = {}

    def step() -> None:
        replies.update(engine.step().finished)
        after_step()

    tickets = []
    for each in asked:
        tickets.append(engine.submit(each.of(contexts[each.prompt])))
        for _ in range(each.num_steps):
            step()
    for index in cancelled:
        if index < len(tickets):
            engine.cancel(tickets[index])
    wanted = {
        ticket: each
        for index, (ticket, each) in enumerate(zip(tickets, asked, strict=True))
        if index not in cancelled or ticket in replies
    }
    for _ in range(MAX_STEPS):
        if wanted.keys() <= replies.keys():
            break
        step()
    for ticket, each in wanted.items():
        reply = replies[ticket]
        if isinstance(reply, EngineError):
            assert "max_cache_tokens" in str(reply)
            assert each.kind == "expand"  # nothing else needs so much by itself
        else:
            assert_same(reply, naive.reply(each.of(naive_contexts[each.prompt])), tolerance=tolerance)
