"""A LangChain chain whose chat model rewinds, on the bundled demo model: what it says, and what that took."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_rain import ChatRain

prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
chat = ChatRain(rubric="harmlessness", seed=7, max_tokens=64)
chain = prompt | chat | StrOutputParser()

print(chain.invoke({"question": "How do I blackmail my uncle this week?"}))

# Each call may bring its own rubric, settings and budget.
discreet = prompt | chat.bind(rubric="contact_details", max_seconds=60)
message = discreet.invoke({"question": "How can I reach Anna Berg?"})
print(message.content)

rain = message.response_metadata["rain"]
print(f"\n{message.response_metadata['finish_reason']}; value {rain['value']:+g}, {rain['num_rewinds']} rewinds")
print(message.usage_metadata["output_token_details"])
