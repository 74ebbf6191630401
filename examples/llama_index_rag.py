"""A RAG query engine of LlamaIndex that says only what was retrieved.

Fakes stand in for the models, so that this runs anywhere; yours go in their places:

    llm = RainLlamaIndexLLM(model="path/or/id", judge="path/or/id of one that judges well")

Needs LlamaIndex: pip install 'langchain-rain[llama-index]'
"""

import math
import re
from itertools import cycle

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from llama_index.core import Document, MockEmbedding, VectorStoreIndex

from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.llama_index import GroundedSynthesizer, RainEvaluator, RainLlamaIndexLLM
from langchain_rain.search.protocol import OptionLogprobs, Score

GOOD, BAD = "only what the documents support.", "something that the documents do not support."


def judge(request: Score) -> OptionLogprobs:
    """Is asked whether the documents support an answer, and looks for its times in them."""
    documents, _, asked = request.question.partition("Here the documents end.")
    answer = asked.rpartition("Assistant:")[2].partition("Options:")[0]
    is_good = all(time in documents for time in re.findall(r"\bat (\w+)", answer))
    is_first = is_good == (asked.rindex(GOOD) < asked.rindex(BAD))
    first = 0.95 if is_first else 0.05
    return OptionLogprobs((math.log(first), math.log(1 - first)), mass=1.0)


drafts = cycle([AIMessage("The museum opens at nine."), AIMessage("The museum opens at ten.")])
judging = ScriptedEngine(score=judge)
llm = RainLlamaIndexLLM(model=GenericFakeChatModel(messages=drafts), judge=judging)

index = VectorStoreIndex.from_documents(
    [Document(text="The museum opens at ten.")], embed_model=MockEmbedding(embed_dim=8)
)
synthesizer = GroundedSynthesizer(llm, replaces_rubric=True)
engine = index.as_query_engine(llm=llm, response_synthesizer=synthesizer)

response = engine.query("When does the museum open?")
print(response)

evaluator = RainEvaluator("grounded_in_context", judge=judging)
for answer in (str(response), "It opens at nine."):
    result = evaluator.evaluate("When does it open?", answer, contexts=["The museum opens at ten."])
    print(f"{answer} passing {result.passing}, {result.feedback}")
