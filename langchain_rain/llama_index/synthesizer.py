"""GroundedSynthesizer: answers from retrieved nodes that are judged by what these nodes say."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer, ResponseMode, get_response_synthesizer
from llama_index.core.settings import Settings
from llama_index.core.types import RESPONSE_TEXT_TYPE

from langchain_rain.engines.callables import CallableEngine
from langchain_rain.errors import RainConfigError, RubricError
from langchain_rain.llama_index.llm import RainLlamaIndexLLM
from langchain_rain.rubrics.rubric import as_rubric, parameters_of

DOCUMENTS = "documents"
"""The parameter of a rubric that is given what the nodes say."""


class GroundedSynthesizer(BaseSynthesizer):
    """Has a `RainLlamaIndexLLM` answer by its own rubric and by one that is given the nodes as its `documents`.

    A sentence that the nodes do not support is rewound while it is written.

    Example:
        ```python
        engine = index.as_query_engine(response_synthesizer=GroundedSynthesizer(llm))
        ```

    Args:
        llm: who answers, with `is_chat_model=True`; None for that of `Settings`.
        rubric: the name or the file of a rubric that leaves `documents` open.
        replaces_rubric: whether the LLM's own rubric does not hold beside it.
        response_mode: how LlamaIndex makes one answer of many nodes.
        streaming: whether the answer comes as it is committed.
        arguments: others of LlamaIndex's `get_response_synthesizer`, templates for example.

    Raises:
        RainConfigError: the LLM is another one.
        RubricError: there is no such rubric, or it leaves no `documents` open.
    """

    def __init__(
        self,
        llm: RainLlamaIndexLLM | None = None,
        *,
        rubric: str = "grounded_in_context",
        replaces_rubric: bool = False,
        response_mode: ResponseMode = ResponseMode.COMPACT,
        streaming: bool = False,
        **arguments: Any,
    ) -> None:
        used = _checked_llm(llm if llm is not None else Settings.llm)
        if DOCUMENTS not in parameters_of(rubric):
            raise RubricError(f"rubric: one that leaves {DOCUMENTS!r} open is allowed, given {rubric!r}.")
        super().__init__(llm=used, streaming=streaming)
        self._answering, self._rubric, self._replaces_rubric = used, rubric, replaces_rubric
        self._arguments = {"response_mode": response_mode, "streaming": streaming, **arguments}
        self._model = get_response_synthesizer(llm=used, **self._arguments)  # whose prompts are those of each answer

    def get_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> RESPONSE_TEXT_TYPE:
        """Answers from what the nodes say."""
        return self._made_for(text_chunks).get_response(query_str, text_chunks, **response_kwargs)

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """Like `get_response`, without blocking the event loop."""
        return await self._made_for(text_chunks).aget_response(query_str, text_chunks, **response_kwargs)

    def _made_for(self, documents: Sequence[str]) -> BaseSynthesizer:
        """A synthesizer whose LLM is judged by these documents."""
        rubric = as_rubric(self._rubric, **{DOCUMENTS: [each for each in documents if each.strip()]})
        if not self._replaces_rubric:
            rubric = self._answering.rubric & rubric
        made = get_response_synthesizer(llm=self._answering.bind(rubric=rubric), **self._arguments)
        made.update_prompts(self._model.get_prompts())
        return made

    def _get_prompts(self) -> PromptDictType:
        return self._model.get_prompts()

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        self._model.update_prompts(prompts_dict)


def _checked_llm(llm: Any) -> RainLlamaIndexLLM:
    if not isinstance(llm, RainLlamaIndexLLM) or not llm.is_chat_model:
        raise RainConfigError(f"llm: a RainLlamaIndexLLM with is_chat_model=True is allowed, given {llm!r}.")
    if isinstance(llm.guard.judging_engine, CallableEngine):
        raise RainConfigError("llm: its judge is a function, which goes by its own and is told of no documents.")
    return llm
