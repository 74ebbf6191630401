"""How each kind of inference server is asked for continuations of a text, and what it replies.

A dialect is data and two small functions: from a `Sampling` to the body of a request, and from the body of the reply to
`Sampled`. All of them take the prompt as token ids, so that no text of a user's becomes a control token; and all but
OpenAI's tell what was written as ids too, so that nothing is lost between tokens and text.
"""

from collections.abc import Mapping

from langchain_rain.engines.dialects.base import Continuation, Dialect, Sampled, Sampling, TokensOf
from langchain_rain.engines.dialects.llama_server import LLAMA_SERVER
from langchain_rain.engines.dialects.openai import OPENAI, VLLM
from langchain_rain.engines.dialects.sglang import SGLANG

DIALECTS: Mapping[str, Dialect] = {"vllm": VLLM, "llama-server": LLAMA_SERVER, "sglang": SGLANG, "openai": OPENAI}
"""Every dialect, by the name that users give it."""

__all__ = [
    "DIALECTS",
    "LLAMA_SERVER",
    "OPENAI",
    "SGLANG",
    "VLLM",
    "Continuation",
    "Dialect",
    "Sampled",
    "Sampling",
    "TokensOf",
]
