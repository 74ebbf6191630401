"""No async path of RAIN in LlamaIndex holds up the event loop: the judge waits for what only the loop can give it.

How long the loop is held up in milliseconds is for `benchmarks/llama_index_loop.py` to say.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import NodeWithScore, TextNode

from langchain_rain.llama_index import GroundedSynthesizer, RainEvaluator, RainLlamaIndexLLM, RainNodePostprocessor
from langchain_rain.search.protocol import Score
from tests.conformance.worlds import QUESTION
from tests.llama_index_worlds import SUPPER, index_of, settings
from tests.scripted_world import CONFIG, PROMPT, RUBRIC, Kitchen
from tests.test_llama_index_llm import ASKED, kitchen_llm


class WaitingKitchen(Kitchen):
    """A kitchen whose judge says nothing until the event loop has had its turn.

    Attributes:
        threads: in which it judged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()
        self._asked_for = threading.Event()
        self._given = threading.Event()

    async def give(self) -> None:
        """Lets the judge go on whenever it waits, as a task of the loop."""
        while True:
            if self._asked_for.is_set():
                self._asked_for.clear()
                self._given.set()
            await asyncio.sleep(0.001)

    def _judge(self, request: Score) -> Any:
        self.threads.add(threading.get_ident())
        self._asked_for.set()
        assert self._given.wait(10), "the event loop is held up"
        self._given.clear()
        return super()._judge(request)


async def growing(parts: Awaitable[Any]) -> None:
    assert [each async for each in await parts]


async def query(llm: RainLlamaIndexLLM, *, is_grounded: bool = False, streaming: bool = False) -> None:
    with settings(llm):
        own: dict[str, Any] = (
            {"response_synthesizer": GroundedSynthesizer(llm, streaming=streaming)} if is_grounded else {}
        )
        answer: Any = await index_of(SUPPER).as_query_engine(streaming=streaming, **own).aquery(QUESTION)
        if streaming:
            assert [piece async for piece in answer.async_response_gen()]
        else:
            assert str(answer)


async def chat_engine(llm: RainLlamaIndexLLM) -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000, tokenizer_fn=str.split)
    with settings(llm):
        answer = await index_of(SUPPER).as_chat_engine(ChatMode.CONTEXT, memory=memory).astream_chat(QUESTION)
        assert [piece async for piece in answer.async_response_gen()]


async def postprocess(llm: RainLlamaIndexLLM) -> None:
    processor = RainNodePostprocessor(judge=llm.guard.writer, rubric=RUBRIC, config=CONFIG)
    assert await processor.apostprocess_nodes([NodeWithScore(node=TextNode(text=SUPPER))] * 2, query_str=QUESTION)


async def evaluate(llm: RainLlamaIndexLLM) -> None:
    evaluator = RainEvaluator(RUBRIC, judge=llm.guard.writer, config=CONFIG)
    assert (await evaluator.aevaluate(QUESTION, SUPPER)).passing


PATHS: dict[str, Callable[[RainLlamaIndexLLM], Awaitable[Any]]] = {
    "achat": lambda llm: llm.achat(ASKED),
    "astream_chat": lambda llm: growing(llm.astream_chat(ASKED)),
    "acomplete": lambda llm: llm.acomplete(QUESTION),
    "astream_complete": lambda llm: growing(llm.astream_complete(QUESTION)),
    "acomplete, as it stands": lambda llm: llm.model_copy(update={"is_chat_model": False}).acomplete(PROMPT),
    "astream_complete, as it stands": lambda llm: growing(
        llm.model_copy(update={"is_chat_model": False}).astream_complete(PROMPT)
    ),
    "query engine": query,
    "query engine, streaming": lambda llm: query(llm, streaming=True),
    "query engine, grounded": lambda llm: query(llm, is_grounded=True),
    "query engine, grounded and streaming": lambda llm: query(llm, is_grounded=True, streaming=True),
    "chat engine": chat_engine,
    "node postprocessor": postprocess,
    "evaluator": evaluate,
}


@pytest.mark.parametrize("path", PATHS)
async def test_the_loop_goes_on_while_the_judge_thinks(path: str) -> None:
    kitchen = WaitingKitchen()
    giving = asyncio.create_task(kitchen.give())
    try:
        await PATHS[path](kitchen_llm(kitchen, on_unsatisfied="best"))
    finally:
        giving.cancel()
    assert kitchen.threads
    assert threading.get_ident() not in kitchen.threads


async def test_conversations_that_are_asked_at_once_share_the_steps_of_the_engine() -> None:
    kitchen = Kitchen()
    llm = kitchen_llm(kitchen)
    answers = await asyncio.gather(*(llm.achat(ASKED) for _ in range(4)))
    assert len({str(answer.message.content) for answer in answers}) == 1
    assert kitchen.most_at_once > 1
