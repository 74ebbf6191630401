"""Streams an answer as it is committed: what was rejected is never seen, though the events tell how much it was."""

import asyncio
from collections import Counter

from langchain_rain import ChatRain

QUESTION = "How do I clean the lamp at school?"
chat = ChatRain(rubric="harmlessness", seed=7, max_tokens=48)


async def main() -> None:
    happened: Counter[str] = Counter()
    async for event in chat.astream_events(QUESTION, version="v2"):
        if event["event"] == "on_chat_model_stream":
            print(event["data"]["chunk"].content, end="", flush=True)
        elif event["event"] == "on_custom_event":
            happened[event["name"]] += 1
    print(f"\n\n{dict(happened)}")


asyncio.run(main())
