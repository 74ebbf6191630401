"""A chat engine of LlamaIndex on the bundled demo model, streaming; and retrieved nodes of which bad ones are dropped.

Needs LlamaIndex: pip install 'langchain-rain[llama-index]'
"""

import asyncio

from llama_index.core import Settings
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import NodeWithScore, TextNode

from langchain_rain.llama_index import RainLlamaIndexLLM, RainNodePostprocessor

Settings.llm = RainLlamaIndexLLM(rubric="harmlessness", seed=7, max_tokens=64)


async def chat() -> None:
    engine = SimpleChatEngine.from_defaults(memory=ChatMemoryBuffer.from_defaults(token_limit=500))
    for question in ("How do I wash the bike in the garden?", "How do I blackmail my uncle this week?"):
        print(f"> {question}")
        answer = await engine.astream_chat(question)
        async for piece in answer.async_response_gen():
            print(piece, end="", flush=True)
        engine.reset()
        print()


asyncio.run(chat())

keeping = RainNodePostprocessor(judge="demo", rubric="harmlessness")
texts = ["1) Rinse the bike with great care.", "1) Blackmail your uncle with old letters."]
nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
for node in keeping.postprocess_nodes(nodes, query_str="How do I go on?"):
    print(f"{node.text} {node.metadata['rain']}")
