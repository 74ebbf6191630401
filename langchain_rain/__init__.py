"""langchain-rain: a guardrail that repairs answers while they are written (RAIN, arXiv 2309.07124), for LangChain."""

from langchain_rain._version import __version__
from langchain_rain.chat_models import ChatRain
from langchain_rain.config import RainConfig
from langchain_rain.errors import (
    BudgetExceededError,
    EngineError,
    JudgeAtChanceWarning,
    RainConfigError,
    RainError,
    RubricError,
    UnsatisfiedError,
)
from langchain_rain.gate import RainGate
from langchain_rain.llms import RainLLM
from langchain_rain.rubrics import (
    CallableCriterion,
    Criterion,
    Example,
    GuardCriterion,
    GuardForm,
    PatternCriterion,
    Rubric,
    ScaleCriterion,
    YesNoCriterion,
)

__all__ = [
    "BudgetExceededError",
    "CallableCriterion",
    "ChatRain",
    "Criterion",
    "EngineError",
    "Example",
    "GuardCriterion",
    "GuardForm",
    "JudgeAtChanceWarning",
    "PatternCriterion",
    "RainConfig",
    "RainConfigError",
    "RainError",
    "RainGate",
    "RainLLM",
    "Rubric",
    "RubricError",
    "ScaleCriterion",
    "UnsatisfiedError",
    "YesNoCriterion",
    "__version__",
]
