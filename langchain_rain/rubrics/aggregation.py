"""How the findings about criteria become one verdict."""

import math
from collections.abc import Mapping, Sequence

from langchain_rain.rubrics.asking import Finding
from langchain_rain.rubrics.criteria import AnyCriterion
from langchain_rain.rubrics.rubric import Aggregate
from langchain_rain.search.protocol import Verdict

NOTHING_JUDGED = Verdict(0.0, is_abstained=True)
"""Of the beginning of an answer where only finished ones can be judged."""


def aggregated(aggregate: Aggregate, values: Sequence[float], weights: Sequence[float]) -> float:
    """One value of those of the criteria, all in [-1, 1]; it never falls where one of them rises.

    Args:
        aggregate: "mean" by weight; "minimum"; or "product" of the values as shares from 0 to 1, each to the power of
            its weight.
        values: of the criteria, at least one.
        weights: of the criteria, above 0.
    """
    if aggregate == "minimum":
        return min(values)
    if aggregate == "mean":
        total = sum(weights)
        mean = sum(weight / total * value for weight, value in zip(weights, values, strict=True))
        return max(min(values), min(max(values), mean))  # rounding must not take it out of their range
    shares = [math.pow((1 + value) / 2, weight) for weight, value in zip(weights, values, strict=True)]
    return 2 * math.prod(shares) - 1


def is_open(aggregate: Aggregate, judged: Mapping[AnyCriterion, Finding], unjudged: Sequence[AnyCriterion]) -> bool:
    """Whether the verdict may still depend on the criteria that were not judged yet."""
    if any(_vetoes(*each) for each in judged.items()):
        return False
    if any(criterion.veto for criterion in unjudged):
        return True
    lowest = aggregate != "mean" and any(found.value == -1 for found in judged.values())
    return bool(unjudged) and not lowest and not any(found.is_abstained for found in judged.values())


def verdict_of(aggregate: Aggregate, found: Mapping[AnyCriterion, Finding]) -> Verdict:
    """The verdict: a veto rules out, an abstention settles nothing, and else there is the value of all."""
    if not found:
        return NOTHING_JUDGED
    vetoed_by = tuple(criterion.name for criterion, each in found.items() if _vetoes(criterion, each))
    abstained = tuple(criterion.name for criterion, each in found.items() if each.is_abstained)
    value = -1.0 if vetoed_by else 0.0
    if not vetoed_by and not abstained:
        weights = [criterion.weight for criterion in found]
        value = aggregated(aggregate, [each.value for each in found.values()], weights)
    return Verdict(
        value,
        {criterion.name: each.value for criterion, each in found.items()},
        is_vetoed=bool(vetoed_by),
        is_abstained=bool(abstained) and not vetoed_by,
        masses={criterion.name: each.mass for criterion, each in found.items() if each.mass is not None},
        vetoed_by=vetoed_by,
        abstained=abstained,
    )


def _vetoes(criterion: AnyCriterion, found: Finding) -> bool:
    return criterion.veto and found.value < 0
