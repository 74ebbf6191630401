"""RAIN in LlamaIndex: an LLM, answers that are judged by what was retrieved, a filter of that, an evaluator.

Needs the extra `llama-index`.
"""

from langchain_rain.errors import RainConfigError

try:
    import llama_index.core  # noqa: F401 - told apart from a mistake in what follows
except ImportError as error:
    raise RainConfigError("LlamaIndex is missing: pip install 'langchain-rain[llama-index]'.") from error

from langchain_rain.llama_index.evaluator import RainEvaluator
from langchain_rain.llama_index.llm import RainLlamaIndexLLM
from langchain_rain.llama_index.postprocessor import RainNodePostprocessor
from langchain_rain.llama_index.synthesizer import GroundedSynthesizer

__all__ = ["GroundedSynthesizer", "RainEvaluator", "RainLlamaIndexLLM", "RainNodePostprocessor"]
