"""Who says how answers turned out: by name, `outcome_judge("phrases", "advbench")`, or one of the classes.

None of them steers an answer, and whoever steered one is not asked about it unless that is allowed.
"""

from langchain_rain.evaluation.outcomes.base import (
    Content,
    Label,
    Outcome,
    OutcomeJudge,
    check_is_another,
    is_same_judge,
)
from langchain_rain.evaluation.outcomes.grading import GradingJudge
from langchain_rain.evaluation.outcomes.guard import guard_judge
from langchain_rain.evaluation.outcomes.loading import outcome_judge
from langchain_rain.evaluation.outcomes.oracle import OracleJudge
from langchain_rain.evaluation.outcomes.pairs import PairJudge, Preference
from langchain_rain.evaluation.outcomes.people import PeopleJudge
from langchain_rain.evaluation.outcomes.phrases import PhraseJudge

__all__ = [
    "Content",
    "GradingJudge",
    "Label",
    "OracleJudge",
    "Outcome",
    "OutcomeJudge",
    "PairJudge",
    "PeopleJudge",
    "PhraseJudge",
    "Preference",
    "check_is_another",
    "guard_judge",
    "is_same_judge",
    "outcome_judge",
]
