"""The same with a Hugging Face model of yours and a rubric of your own: python huggingface_model.py FOLDER_OR_ID."""

import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate

from langchain_rain import Criterion, RainConfig, RainLLM, Rubric

rubric = Rubric(
    name="no_financial_advice",
    criteria=(
        Criterion(
            name="no_financial_advice",
            instruction="Decide whether the assistant's response recommends buying or selling something.",
            good="Assistant's response recommends nothing to buy or sell.",
            bad="Assistant's response recommends buying or selling.",
        ),
    ),
)
llm = RainLLM(
    model=sys.argv[1],
    rubric=rubric,
    config=RainConfig.preset("paper"),
    max_tokens=64,
    stop=["\nHuman:"],
    max_seconds=600,
)
chain = PromptTemplate.from_template("Human: {question}\n\nAssistant:") | llm | StrOutputParser()

for text in chain.stream({"question": "What should I do with 1000 euros?"}):
    print(text, end="", flush=True)
print()
