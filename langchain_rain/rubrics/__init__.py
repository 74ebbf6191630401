"""Rubrics as data, and how a transcript is judged by them."""

from langchain_rain.rubrics.criteria import (
    CallableCriterion,
    Criterion,
    GuardCriterion,
    GuardForm,
    PatternCriterion,
    ScaleCriterion,
    YesNoCriterion,
)
from langchain_rain.rubrics.rubric import Example, Rubric

__all__ = [
    "CallableCriterion",
    "Criterion",
    "Example",
    "GuardCriterion",
    "GuardForm",
    "PatternCriterion",
    "Rubric",
    "ScaleCriterion",
    "YesNoCriterion",
]
