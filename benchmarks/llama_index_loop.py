"""How long the async paths of RAIN in LlamaIndex hold up the event loop.

    python -m benchmarks.llama_index_loop --threads 1 --out benchmarks/results/llama_index_loop.json

A task sleeps for a millisecond again and again while a question is answered by the demo model; its longest gap is how
long anything else on the loop had to wait. For comparison: the loop with nothing to do, and the same guard as a
`CustomLLM`, whose async methods LlamaIndex runs on the loop.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import ChatMessage, CustomLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import PrivateAttr

from benchmarks.measuring import Row, argument_parser, begin
from langchain_rain.llama_index import RainEvaluator, RainLlamaIndexLLM, RainNodePostprocessor

QUESTION = "How do I wash the bike in the garden?"
ASKED = [ChatMessage(content=QUESTION)]
FACT = "A bike is washed with a sponge and warm water."

MAX_GAP = 50.0
"""Milliseconds that nothing may have to wait."""

INTERVAL = 0.001
"""Seconds that the task sleeps; what it sleeps longer is a gap."""

Path = Callable[[], Awaitable[Any]]


class SyncRain(CustomLLM):
    """The same guard as LlamaIndex's shortcut for models of one's own has it."""

    _llm: RainLlamaIndexLLM = PrivateAttr()

    def __init__(self, llm: RainLlamaIndexLLM) -> None:
        super().__init__()
        self._llm = llm

    @property
    def metadata(self) -> LLMMetadata:
        """That of the guard."""
        return self._llm.metadata

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answers a text."""
        answer: CompletionResponse = self._llm.complete(prompt, **kwargs)
        return answer

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answers a text as it is committed."""
        answer: CompletionResponseGen = self._llm.stream_complete(prompt, **kwargs)
        return answer


@dataclass(slots=True)
class Ticker:
    """Measures how long a task has to wait for its turn.

    Attributes:
        gaps: in seconds, of each time.
        computed: what the thread of the loop computed of each.
    """

    gaps: list[float] = field(default_factory=list)
    computed: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """Sleeps again and again, until it is cancelled."""
        while True:
            started, before = time.perf_counter(), time.thread_time()
            await asyncio.sleep(INTERVAL)
            self.gaps.append(time.perf_counter() - started - INTERVAL)
            self.computed.append(time.thread_time() - before)


async def _ticked(path: Path) -> tuple[Ticker, float]:
    """The gaps while a path runs, and its seconds."""
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0)
    started = time.perf_counter()
    await path()
    seconds = time.perf_counter() - started
    await asyncio.sleep(2 * INTERVAL)  # a gap that the end of the path made counts too
    ticking.cancel()
    return ticker, seconds


async def _all_of(parts: Awaitable[Any]) -> None:
    async for _ in await parts:
        pass


def _paths(llm: RainLlamaIndexLLM) -> dict[str, Path]:
    index = VectorStoreIndex.from_documents([Document(text=FACT)])
    nodes = [NodeWithScore(node=TextNode(text=FACT)) for _ in range(8)]
    keeping = RainNodePostprocessor(judge=llm.guard.writer, rubric="harmlessness")
    evaluator = RainEvaluator("harmlessness", judge=llm.guard.writer)

    async def query() -> None:
        await index.as_query_engine().aquery(QUESTION)

    async def chat_engine() -> None:
        memory = ChatMemoryBuffer.from_defaults(token_limit=500, tokenizer_fn=str.split)
        answer = await index.as_chat_engine(ChatMode.CONTEXT, memory=memory).astream_chat(QUESTION)
        async for _ in answer.async_response_gen():
            pass

    async def eight() -> None:
        await asyncio.gather(*(llm.achat(ASKED) for _ in range(8)))

    return {
        "achat": lambda: llm.achat(ASKED),
        "astream_chat": lambda: _all_of(llm.astream_chat(ASKED)),
        "acomplete": lambda: llm.acomplete(QUESTION),
        "astream_complete": lambda: _all_of(llm.astream_complete(QUESTION)),
        "8 achat at once": eight,
        "query engine: aquery": query,
        "chat engine: astream_chat": chat_engine,
        "8 nodes judged": lambda: keeping.apostprocess_nodes(nodes, query_str=QUESTION),
        "evaluator: aevaluate": lambda: evaluator.aevaluate(QUESTION, FACT),
    }


async def _row(name: str, path: Path, repetitions: int, at_most: float | None) -> Row:
    await path()  # what is imported, and read for the first time, counts for no path
    runs = [await _ticked(path) for _ in range(repetitions)]
    longest = [1000 * max(ticker.gaps) for ticker, _ in runs]
    return {
        "path": name,
        "runs": repetitions,
        "seconds a run": statistics.median(seconds for _, seconds in runs),
        "longest gap, ms: median": statistics.median(longest),
        "of all": max(longest),
        "at most": at_most,
        "longest that the loop computed, ms": 1000 * max(max(ticker.computed) for ticker, _ in runs),
        "mean gap, ms": 1000 * statistics.fmean(gap for ticker, _ in runs for gap in ticker.gaps),
    }


async def _rows(llm: RainLlamaIndexLLM, repetitions: int) -> list[Row]:
    sync = SyncRain(llm)
    rows = [await _row("nothing", lambda: asyncio.sleep(1), repetitions, None)]
    rows += [await _row(name, path, repetitions, MAX_GAP) for name, path in _paths(llm).items()]
    return [*rows, await _row("achat of a CustomLLM", lambda: sync.achat(ASKED), repetitions, None)]


def main() -> None:
    """Measures and prints."""
    arguments = argument_parser(__doc__, repetitions=10).parse_args()
    report = begin(arguments)
    llm = RainLlamaIndexLLM(seed=arguments.seed)
    Settings.llm, Settings.embed_model = llm, MockEmbedding(embed_dim=4)
    Settings.tokenizer, Settings.node_parser = str.split, TokenTextSplitter(tokenizer=str.split)
    repetitions = 2 if arguments.quick else arguments.repetitions
    report.add("Gaps of the event loop", asyncio.run(_rows(llm, repetitions)))
    report.write()


if __name__ == "__main__":
    main()
