"""critique-revise-N: an answer, N times criticised and revised by the principles of the rubric.

The supervised stage of Constitutional AI (arXiv 2212.08073, section 3) at the time of answering: the model that wrote
the answer is asked what of it goes against a principle, and then to write it anew. Each round goes by one principle,
drawn at random as in the paper; the principles are what the criteria of the rubric want (`wish`), so one criterion is
one principle. The last revision is the answer. The judge has no say in it and is asked for the record alone.

In a conversation both requests are turns of the user; behind a text they are paragraphs, and what is written follows
`Critique:` and `Revision:`. The words of both are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_rain.engines.dialogue import NEXT_TURNS
from langchain_rain.evaluation.strategies.asking import Question
from langchain_rain.evaluation.strategies.base import Answered, Content, Setting, Step
from langchain_rain.evaluation.strategies.drawing import seed_of_sample
from langchain_rain.evaluation.strategies.making import Found, Making, Text
from langchain_rain.quoting import quoted
from langchain_rain.search.protocol import TokenSet, derive_search_seed

CRITIQUE_REQUEST = (
    "Read the assistant's last reply again. This should be true of it: {wish}\n"
    "Say in a few sentences where it is not, and what has to change."
)
REVISION_REQUEST = (
    "Write the assistant's last reply anew, so that this is true of it: {wish}\n"
    "Keep what was right about it, and write nothing but the reply."
)
CRITIQUE, REVISION = "Critique:", "Revision:"
HEADINGS = (f"\n{CRITIQUE}", f"\n{REVISION}")
"""Where a critique or a revision ends that follows a text: a model may go on with another one."""

MAX_CRITIQUE_TOKENS = 128
"""A few sentences."""

MAX_ROUNDS = 64
"""Of one answer, whatever a budget allows."""


@dataclass(frozen=True, slots=True)
class CritiqueRevise:
    """Criticises and revises one answer `num_rounds` times, and gives the last revision.

    Within a budget it goes on as long as another round will fit if it takes no more than the dearest so far,
    `num_rounds` or not; a round that ends past the budget is not considered.
    """

    setting: Setting
    num_rounds: int

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return f"critique-revise-{self.num_rounds}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Strategy`."""
        requests = [CRITIQUE_REQUEST, REVISION_REQUEST, MAX_CRITIQUE_TOKENS]
        return {"strategy": self.name, "requests": requests, **self.setting.identity}

    async def answer(
        self, case_id: str, content: Content, *, seed: int, prefill: str = "", max_positions: int | None = None
    ) -> Answered:
        """See `Strategy`."""
        making = Making.of(self.setting, content, prefill, max_positions, seed=seed)
        written = await making.write(
            Text(making.question, seed_of_sample(making.seed, 0), temperature=self.setting.config.temperature)
        )
        making.consider()
        making.steps.append(Step(written.text, None, "draft", len(written.tokens)))
        num_rounds = 0
        if max_positions is None:
            for number in range(self.num_rounds):
                written = await _revise(making, written, number)
                num_rounds += 1
            making.consider()
        else:
            written, num_rounds = await _revise_within(making, written, max_positions)
        verdict, checking_positions = await making.check(written.text)
        making.steps.append(Step(written.text, verdict.value, "commit", len(written.tokens)))
        found = Found(
            making.question.shown(written.text, self.setting.writer),
            written.finish_reason or "length",
            verdict,
            len(written.tokens),
            checking_positions=checking_positions,
            num_drafts=1 + num_rounds,
        )
        return making.answered(found, case_id, self.name, seed)


async def _revise_within(making: Making, written: TokenSet, max_positions: int) -> tuple[TokenSet, int]:
    """The last revision that is considered, and of which round it is; 0 is the answer itself."""
    dearest = 1
    for number in range(MAX_ROUNDS):
        before = making.counted_positions
        if before + dearest > max_positions:
            return written, number
        revised = await _revise(making, written, number)
        if making.has_exceeded:
            return written, number
        making.consider()
        written, dearest = revised, max(dearest, making.counted_positions - before)
    return written, MAX_ROUNDS


async def _revise(making: Making, written: TokenSet, number: int) -> TokenSet:
    """Criticises an answer and returns its revision."""
    wishes = [criterion.wish for criterion in making.setting.rubric.criteria]
    wish = wishes[_seed(making, "principle", number) % len(wishes)]
    temperature = making.setting.config.temperature
    asked = CRITIQUE_REQUEST.format(wish=wish)
    is_text = isinstance(making.question.content, str) and not making.setting.writes_whole_messages
    stop = (*HEADINGS, *NEXT_TURNS) if is_text else ()
    critique = await making.write(
        Text(
            Question(_behind(making, written, asked)),
            _seed(making, "critique", number),
            temperature,
            stop,
            MAX_CRITIQUE_TOKENS,
        )
    )
    behind = _behind(making, written, asked, critique.text, REVISION_REQUEST.format(wish=wish))
    revision = Question(behind, making.question.prefill)
    revised = await making.write(Text(revision, _seed(making, "revision", number), temperature, stop))
    making.steps.append(Step(f"{CRITIQUE}{critique.text}", None, "draft", len(critique.tokens)))
    making.steps.append(Step(revised.text, None, "draft", len(revised.tokens)))
    return revised


def _behind(making: Making, written: TokenSet, *turns: str) -> str | tuple[BaseMessage, ...]:
    """What was asked, an answer to it, and what is said about that: a request, a critique, another request."""
    question = making.question
    if not isinstance(question.content, str) or making.setting.writes_whole_messages:
        return question.followed_by(written.text, *turns)
    request, *more = turns
    text = f"{question.beginning}{quoted(written.text)}\n\n{request}\n\n{CRITIQUE}"
    if more:
        critique, request = more
        text += f"{quoted(critique)}\n\n{request}\n\n{REVISION}"
    return text


def _seed(making: Making, what: str, number: int) -> int:
    """Of one draw of one round."""
    return derive_search_seed(making.seed, f"{what} {number}")
