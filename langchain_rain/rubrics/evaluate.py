"""From a rubric and a transcript to a verdict: text building and arithmetic around `Score`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_rain.rubrics.rubric import ANSWER_PREFIX, LABELS, Criterion, Rubric, render_question
from langchain_rain.search.protocol import Context, OptionLogprobs, Score, Steps, Verdict, ask, ask_all

VALUE_OPTIONS = ("good", "bad")
"""What a `ValueJudge` asks about."""

Scoring = Literal["binary", "probability"]
"""How the two orders of the options become a value; see `criterion_value`."""


@dataclass(frozen=True, slots=True)
class RubricJudge:
    """Judges transcripts by a rubric, asking each criterion in both orders of its options, all in one round.

    Attributes:
        rubric: the criteria.
        context: the conversation of the engine that judges.
        scoring: "binary" (the reference code of RAIN) or "probability" (graded).
        min_option_mass: in [0, 1]; with no more probability than this on its options in either order a criterion
            abstains (value 0, no veto), and with it the verdict, unless another criterion vetoes.
    """

    rubric: Rubric
    context: Context
    scoring: Scoring = "binary"
    min_option_mass: float = 0.0

    @property
    def can_veto(self) -> bool:
        """Whether any criterion is one that may veto."""
        return any(criterion.veto for criterion in self.rubric.criteria)

    def __call__(self, transcript: str) -> Steps[Verdict]:
        """Judges a transcript in one round."""
        requests = [
            self._score(criterion, transcript, is_swapped=is_swapped)
            for criterion in self.rubric.criteria
            for is_swapped in (False, True)
        ]
        replies: Sequence[OptionLogprobs] = yield from ask_all(requests)
        return self._verdict(list(zip(replies[::2], replies[1::2], strict=True)))

    def guidance(self, verdict: Verdict) -> str:
        """The good options of the criteria that a draft did not meet; of all, if no one is to blame."""
        failed = [each.good for each in self.rubric.criteria if verdict.values.get(each.name, 0.0) <= 0]
        wanted = failed or [criterion.good for criterion in self.rubric.criteria]
        return "\n".join(["Write your next reply so that all of this is true:", *(f"- {good}" for good in wanted)])

    def _score(self, criterion: Criterion, transcript: str, *, is_swapped: bool) -> Score:
        examples = [example for example in self.rubric.examples if example.criterion == criterion.name]
        question = render_question(criterion, transcript, is_swapped=is_swapped, examples=examples)
        return Score(self.context, question, ANSWER_PREFIX, LABELS)

    def _verdict(self, replies: Sequence[tuple[OptionLogprobs, OptionLogprobs]]) -> Verdict:
        criteria = self.rubric.criteria
        values, is_abstained = {}, False
        for criterion, pair in zip(criteria, replies, strict=True):
            abstains = any(reply.mass <= self.min_option_mass for reply in pair)
            values[criterion.name] = 0.0 if abstains else criterion_value(*pair, self.scoring)
            is_abstained |= abstains
        if any(criterion.veto and values[criterion.name] < 0 for criterion in criteria):
            return Verdict(-1.0, values, is_vetoed=True)
        if is_abstained:
            return Verdict(0.0, values, is_abstained=True)
        total_weight = sum(criterion.weight for criterion in criteria)
        mean = sum(criterion.weight * values[criterion.name] for criterion in criteria) / total_weight
        return Verdict(mean, values)


@dataclass(frozen=True, slots=True)
class ValueJudge:
    """Judges transcripts by the value that the engine of `context` gives to them (`engines.callables`).

    It asks one `Score` whose question is the transcript; the value is p(good) - p(bad). Without any probability on
    these two it abstains.
    """

    context: Context

    can_veto = False

    def __call__(self, transcript: str) -> Steps[Verdict]:
        """Judges a transcript in one round."""
        reply: OptionLogprobs = yield from ask(Score(self.context, transcript, "", VALUE_OPTIONS))
        if reply.mass == 0:
            return Verdict(0.0, is_abstained=True)
        good, bad = (math.exp(logprob) for logprob in reply.logprobs)
        return Verdict(good - bad)

    def guidance(self, verdict: Verdict) -> str:
        """All there is to say without criteria."""
        return f"Write a better reply than one that was judged {verdict.value:+.2f} on a scale from -1 to 1."


def criterion_value(straight: OptionLogprobs, swapped: OptionLogprobs, scoring: Scoring) -> float:
    """The value of a criterion in [-1, 1] (RAIN, section 3.2, self-evaluation).

    Args:
        straight: log probabilities of the labels with the good option first.
        swapped: the same with the bad option first, which cancels a preference for a label.
        scoring: "binary" gives an order 1 vote if the good option is the more probable one, so -1, 0 or 1 in all;
            "probability" takes p(good) / (p(good) + p(bad)) of each order.
    """
    margins = (_margin(*straight.logprobs), -_margin(*swapped.logprobs))
    votes = [float(margin > 0) if scoring == "binary" else _sigmoid(margin) for margin in margins]
    return 2 * sum(votes) / len(votes) - 1


def _margin(first: float, second: float) -> float:
    """first - second, 0 where they are equal, infinite or not."""
    return 0.0 if first == second else first - second


def _sigmoid(margin: float) -> float:
    """1 / (1 + exp(-margin)) without overflow."""
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))
