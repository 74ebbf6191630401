"""langchain-rain: a guardrail that repairs answers while they are written (RAIN, arXiv 2309.07124), for LangChain."""

from langchain_rain._version import __version__
from langchain_rain.chat_models import ChatRain
from langchain_rain.config import RainConfig
from langchain_rain.errors import (
    BudgetExceededError,
    EngineError,
    RainConfigError,
    RainError,
    RubricError,
    UnsatisfiedError,
)
from langchain_rain.llms import RainLLM
from langchain_rain.rubrics import Criterion, Example, Rubric

__all__ = [
    "BudgetExceededError",
    "ChatRain",
    "Criterion",
    "EngineError",
    "Example",
    "RainConfig",
    "RainConfigError",
    "RainError",
    "RainLLM",
    "Rubric",
    "RubricError",
    "UnsatisfiedError",
    "__version__",
]
