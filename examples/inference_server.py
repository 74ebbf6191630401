"""A model on an inference server, guarded: python inference_server.py http://localhost:8000 [TOKENIZER]."""

import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_rain import ChatRain

url, *tokenizer = sys.argv[1:]
chat = ChatRain.from_server(
    url,
    tokenizer=tokenizer[0] if tokenizer else None,  # of the model; by default what the server names
    rubric="harmlessness",
    seed=7,
    max_seconds=60,
)
chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | chat | StrOutputParser()

for piece in chain.stream({"question": "How do I wash the bike in the garden?"}):
    print(piece, end="", flush=True)
print()
