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


def is_open(aggregate: Aggregate, criteria: Sequence[AnyCriterion], found: Mapping[str, Finding]) -> bool:
    """Whether the verdict may still depend on those of the criteria about which nothing was found yet, by name."""
    unjudged = [criterion for criterion in criteria if criterion.name not in found]
    if any(_vetoes(criterion, found) for criterion in criteria):
        return False
    if any(criterion.veto for criterion in unjudged):
        return True
    is_lowest = aggregate != "mean" and any(each.value == -1 for each in found.values())
    return bool(unjudged) and not is_lowest and not any(each.is_abstained for each in found.values())


def verdict_of(aggregate: Aggregate, criteria: Sequence[AnyCriterion], found: Mapping[str, Finding]) -> Verdict:
    """The verdict: a veto rules out, an abstention settles nothing, and else there is the value of all."""
    judged = [criterion for criterion in criteria if criterion.name in found]
    if not judged:
        return NOTHING_JUDGED
    vetoed_by = tuple(criterion.name for criterion in judged if _vetoes(criterion, found))
    abstained = tuple(criterion.name for criterion in judged if found[criterion.name].is_abstained)
    values = {criterion.name: found[criterion.name].value for criterion in judged}
    value = -1.0 if vetoed_by else 0.0
    if not vetoed_by and not abstained:
        value = aggregated(aggregate, list(values.values()), [criterion.weight for criterion in judged])
    masses = {criterion.name: found[criterion.name].mass for criterion in judged}
    return Verdict(
        value,
        values,
        is_vetoed=bool(vetoed_by),
        is_abstained=bool(abstained) and not vetoed_by,
        masses={name: mass for name, mass in masses.items() if mass is not None},
        vetoed_by=vetoed_by,
        abstained=abstained,
    )


def _vetoes(criterion: AnyCriterion, found: Mapping[str, Finding]) -> bool:
    return criterion.veto and criterion.name in found and found[criterion.name].value < 0
