"""Whether a model can judge by a rubric at all: the rubric's worked examples, each judged without being shown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.rubric import Example
from langchain_rain.search.protocol import Steps, Verdict, together


@dataclass(frozen=True, slots=True)
class Judged:
    """A worked example and what a judge thinks of it by its criterion.

    Attributes:
        example: with what is true of it.
        verdict: by its criterion alone.
    """

    example: Example
    verdict: Verdict

    @property
    def is_right(self) -> bool:
        """Whether the judge agrees with the rubric; one that abstains does not."""
        if self.verdict.is_abstained or self.verdict.value == 0:
            return False
        return (self.verdict.value > 0) == self.example.is_good


def judge_worked_examples(judge: RubricJudge) -> Steps[list[Judged]]:
    """Judges every worked example by its criterion; the others are shown, if the rubric shows any (leave one out)."""
    verdicts = yield from together(*(_without(judge, example)(example.transcript) for example in judge.rubric.examples))
    return [Judged(*each) for each in zip(judge.rubric.examples, verdicts, strict=True)]


def is_at_chance(judged: Sequence[Judged]) -> bool:
    """Whether a coin would have done as well: the mean of the shares that are right of the good and the bad ones.

    Without both good and bad examples there is no telling, and it is not.
    """
    shares = []
    for is_good in (True, False):
        of_kind = [each.is_right for each in judged if each.example.is_good == is_good]
        if not of_kind:
            return False
        shares.append(sum(of_kind) / len(of_kind))
    return sum(shares) / 2 <= 0.5


def _without(judge: RubricJudge, example: Example) -> RubricJudge:
    """The judge of one criterion, to whom this example is not shown."""
    rubric = judge.rubric
    alone = rubric.model_copy(
        update={
            "criteria": tuple(each for each in rubric.criteria if each.name == example.criterion),
            "examples": tuple(each for each in rubric.examples if each.transcript != example.transcript),
            "aggregate": "mean",  # the value of one criterion is its own
        }
    )
    return replace(judge, rubric=alone)
