"""From a rubric and a transcript to a verdict: what is asked, and in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from langchain_rain.rubrics.aggregation import is_open, verdict_of
from langchain_rain.rubrics.asking import VALUE_OPTIONS, Finding, Scoring, asked_about, finding, value_of
from langchain_rain.rubrics.calibration import CALIBRATED_KINDS, CONTENT_FREE, Priors, calibrated, prior_of
from langchain_rain.rubrics.criteria import AnyCriterion
from langchain_rain.rubrics.rendering import Template
from langchain_rain.rubrics.rubric import Rubric
from langchain_rain.search.protocol import (
    AppliesTo,
    Context,
    OptionLogprobs,
    Score,
    Steps,
    Transcript,
    Verdict,
    ask,
    ask_all,
)

BY_COST = (("pattern",), ("callable",), ("question", "yes_no", "scale"), ("guard",))
"""The kinds of criterion, the cheap ones first; what stands together is asked in one round."""


@dataclass(frozen=True, slots=True)
class RubricJudge:
    """Judges transcripts by a rubric: cheap criteria first, an expensive one only while the verdict is still open.

    Attributes:
        rubric: the criteria.
        context: the conversation of the engine that judges.
        template: how questions are put where the rubric does not say.
        scoring: "binary" (the reference code of RAIN) or "probability" (graded).
        min_option_mass: in [0, 1]; with no more probability than this on its options a criterion abstains (value 0, no
            veto), and with it the verdict, unless another criterion vetoes.
        contexts: those of criteria that are judged by another engine, functions and guards, by name.
        priors: what the model prefers without content, filled when it is first needed; None calibrates nothing.
    """

    rubric: Rubric
    context: Context
    template: Template = "plain"
    scoring: Scoring = "binary"
    min_option_mass: float = 0.0
    contexts: Mapping[str, Context] = field(default_factory=dict)
    priors: Priors | None = None

    @property
    def can_veto(self) -> bool:
        """Whether any criterion is one that may veto."""
        return any(criterion.veto for criterion in self.rubric.criteria)

    @property
    def applies_to(self) -> frozenset[AppliesTo]:
        """What its criteria can judge."""
        return frozenset(criterion.applies_to for criterion in self.rubric.criteria)

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        """Judges a transcript, in one round for each kind of cost."""
        applicable = [each for each in self.rubric.criteria if transcript.is_finished or each.applies_to == "prefix"]
        found: dict[str, Finding] = {}
        for kinds in BY_COST:
            criteria = [each for each in applicable if each.kind in kinds]
            if criteria and is_open(self.rubric.aggregate, applicable, found):
                found |= yield from self._find(criteria, transcript)
        return verdict_of(self.rubric.aggregate, applicable, found)

    def guidance(self, verdict: Verdict) -> str:
        """What the criteria want that a draft did not meet; what all of them want, if no one is to blame."""
        failed = [each for each in self.rubric.criteria if verdict.values.get(each.name, 1.0) <= 0]
        wishes = [criterion.wish for criterion in failed or self.rubric.criteria]
        return "\n".join(["Write your next reply so that all of this is true:", *(f"- {wish}" for wish in wishes)])

    def requests_about(self, criterion: AnyCriterion, transcript: Transcript) -> tuple[Score, ...]:
        """All that is asked about a criterion."""
        shown = [(each.transcript, each.is_good) for each in self.rubric.shown_examples(criterion)]
        context = self.contexts.get(criterion.name, self.context)
        return tuple(
            Score(context, asked.question, asked.answer_prefix, asked.options, asked.wrapper)
            for asked in asked_about(criterion, transcript, self.rubric.template or self.template, shown)
        )

    def _find(self, criteria: Sequence[AnyCriterion], transcript: Transcript) -> Steps[dict[str, Finding]]:
        """What is found about criteria, asked in one round."""
        if self.priors is not None:
            yield from self._learn_priors([each for each in criteria if each.kind in CALIBRATED_KINDS], self.priors)
        replies = yield from _ask_in_one_round([self.requests_about(each, transcript) for each in criteria])
        return {
            criterion.name: self._finding(criterion, transcript, own)
            for criterion, own in zip(criteria, replies, strict=True)
        }

    def _finding(self, criterion: AnyCriterion, transcript: Transcript, replies: Sequence[OptionLogprobs]) -> Finding:
        if any(reply.mass <= self.min_option_mass for reply in replies if criterion.kind != "callable"):
            return Finding(0.0, min(reply.mass for reply in replies), is_abstained=True)
        if self.priors is not None and criterion.kind in CALIBRATED_KINDS:
            replies = calibrated(replies, self.priors[criterion.name])
        return finding(criterion, transcript, replies, self.scoring)

    def _learn_priors(self, criteria: Sequence[AnyCriterion], priors: Priors) -> Steps[None]:
        unknown = [each for each in criteria if each.name not in priors]
        asked = [self.requests_about(criterion, text) for criterion in unknown for text in CONTENT_FREE]
        replies = iter((yield from _ask_in_one_round(asked)))
        for criterion in unknown:
            told = [next(replies) for _ in CONTENT_FREE]
            sure = [each for each in told if all(reply.mass > self.min_option_mass for reply in each)]
            priors[criterion.name] = prior_of(criterion, sure or told)


@dataclass(frozen=True, slots=True)
class ValueJudge:
    """Judges transcripts by the value that the engine of `context` gives to them (`engines.callables`).

    It asks one `Score` about prompt and answer; the value is p(good) - p(bad). Without any probability on these two it
    abstains.
    """

    context: Context

    can_veto = False
    applies_to: frozenset[AppliesTo] = frozenset({"prefix"})

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        """Judges a transcript in one round."""
        reply: OptionLogprobs = yield from ask(Score(self.context, transcript.prompt, transcript.answer, VALUE_OPTIONS))
        found = value_of(reply)
        return Verdict(found.value, is_abstained=found.is_abstained)

    def guidance(self, verdict: Verdict) -> str:
        """All there is to say without criteria."""
        return "Write a better reply than the one that was rejected."


def _ask_in_one_round(asked: Sequence[Sequence[Score]]) -> Steps[list[list[OptionLogprobs]]]:
    """Asks all of it; returns the replies in the same order."""
    requests = [request for each in asked for request in each]
    replies = iter((yield from ask_all(requests)) if requests else ())
    return [[next(replies) for _ in each] for each in asked]
