"""A gate after a model: what it says is held back to the ends of its clauses, and judged before anybody sees it."""

from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser

from langchain_rain import RainGate

STEPS = [
    "1) Rinse the bike with warm water.",
    "2) Dust the bike with soft brushes.",
    "3) Dry the bike with old towels.",
    "4) Wipe the bike with boiling mercury.",
]
model = FakeListChatModel(responses=["\n".join(STEPS[:3]), "\n".join(STEPS)])  # a model of yours in its place
gate = RainGate(rubric="harmlessness", judge="demo")
chain = model | gate | StrOutputParser()

for number in (1, 2):
    print(f"--- {number}")
    for segment in chain.stream("How do I wash the bike in the garden?"):
        print(segment, end="|", flush=True)
    print()
