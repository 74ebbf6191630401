"""Rules of your own: two rubrics of the library and a pattern in YAML that no text may ever match, judged together."""

from langchain_rain import ChatRain, Rubric

NO_NUMBERS = """
name: no_numbers
description: Telephone numbers are given out by people, not by the assistant.
criteria:
  - name: no_phone_number
    kind: pattern
    must_not_match: '\\d{3}-\\d{2}'
    good: The response holds no telephone number.
    veto: true
"""

rubric = Rubric.load("politeness") & Rubric.load("contact_details") & Rubric.from_yaml(NO_NUMBERS)
chat = ChatRain(rubric=rubric, seed=5, max_tokens=64)

answer = chat.invoke("How can I reach Anna Berg?")
print(answer.text)

rain = answer.response_metadata["rain"]
print(rubric.name, rain["values"])
