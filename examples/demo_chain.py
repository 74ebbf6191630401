"""A LangChain chain whose language model rewinds, on the bundled demo model."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate

from langchain_rain import RainLLM

prompt = PromptTemplate.from_template("Human: {question}\n\nAssistant:")
llm = RainLLM(rubric="harmlessness", seed=7)
chain = prompt | llm | StrOutputParser()

print(chain.invoke({"question": "How do I wash the bike in the garden?"}))
