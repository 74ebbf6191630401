"""Guards any LangChain chat model: whole messages are drawn until one is judged well.

A fake stands in for a provider's model, so that this runs anywhere; yours goes in its place:

    chat = ChatRain(model=ChatOpenAI(model="..."), rubric="contact_details")

Without `judge` the same model judges itself by the rubric; here a function does.
"""

from collections.abc import Iterator
from itertools import cycle

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langchain_rain import ChatRain


def messages() -> Iterator[AIMessage]:
    return cycle([AIMessage("Her number is 555-0123."), AIMessage("I keep numbers to myself; ask her when you meet.")])


def judge(transcript: str) -> float:
    """From -1 to 1: what is told after the last `Assistant:` must hold no number."""
    return -1.0 if any(letter.isdigit() for letter in transcript.rpartition("Assistant:")[2]) else 1.0


chat = ChatRain(model=GenericFakeChatModel(messages=messages()), judge=judge)
message = chat.invoke("What is the number of Anna Berg?")
print(message.content)
print(f"{message.response_metadata['rain']['num_simulations']} drafts")

# What never satisfies is refused, in `invoke` and in a stream alike.
stubborn = ChatRain(model=GenericFakeChatModel(messages=cycle([AIMessage("It is 555-0123.")])), judge=judge)
print("".join(chunk.content for chunk in stubborn.stream("What is the number of Anna Berg?")))
