"""Whether a model can judge by a rubric at all: the rubric's worked examples, each judged without being shown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.rubric import Example, Rubric
from langchain_rain.search.protocol import Steps, Transcript, Verdict, together


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


def at_chance(judged: Sequence[Judged]) -> list[str]:
    """The criteria of whose examples a coin would have judged as many rightly.

    Counted is the mean of the shares that are right of the good and of the bad ones. Without both there is no telling.
    """
    names = dict.fromkeys(each.example.criterion for each in judged)
    return [name for name in names if _is_at_chance([each for each in judged if each.example.criterion == name])]


def _is_at_chance(judged: Sequence[Judged]) -> bool:
    good, bad = ([each.is_right for each in judged if each.example.is_good == is_good] for is_good in (True, False))
    return bool(good and bad) and sum(good) / len(good) + sum(bad) / len(bad) <= 1


def rubric_for(rubric: Rubric, transcript: Transcript, criterion: str | None) -> Rubric:
    """The rubric by which a transcript of known truth is judged: it is not shown among the examples.

    Args:
        rubric: the whole of it.
        transcript: what is to be judged.
        criterion: the one to judge by alone; None for all.
    """
    update: dict[str, Any] = {"examples": tuple(each for each in rubric.examples if each.transcript != transcript)}
    if criterion is not None:
        update["criteria"] = tuple(each for each in rubric.criteria if each.name == criterion)
        update["examples"] = tuple(each for each in update["examples"] if each.criterion == criterion)
        update["aggregate"] = "mean"  # the value of one criterion is its own
    return rubric.model_copy(update=update)


def _without(judge: RubricJudge, example: Example) -> RubricJudge:
    """The judge of one criterion, to whom this example is not shown.

    Not calibrated: what was learnt with other examples before it is not what the whole rubric is judged with.
    """
    return replace(judge, rubric=rubric_for(judge.rubric, example.transcript, example.criterion), priors=None)
