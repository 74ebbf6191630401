"""A kitchen in which every word is scripted: what the writer offers, what the judge thinks of it."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from langchain_rain import Criterion, RainConfig, RainLLM, Rubric
from langchain_rain.engines.base import StepReport
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Expand, OptionLogprobs, Rollout, Score, TokenSet

PROMPT = "Human: What is for supper?\n\nAssistant:"
CRASHING_PROMPT = "Human: Make it crash.\n\nAssistant:"

RUBRIC = Rubric(name="edible", criteria=(Criterion(name="edible", instruction="Is it?", good="YES", bad="NO"),))

# One simulation judged good is enough to commit, two judged bad are enough to give up; nothing is asked ahead, so that
# requests can be counted.
CONFIG = RainConfig(
    adaptive=False,
    num_parallel_leaves=1,
    temperature=1.0,
    token_set_lengths=(1,),
    max_simulations=2,
    min_further_simulations=2,
    min_visits=0,
    similarity_scope="off",
    adds_children=False,
    lookahead=0,
)
PAPER = CONFIG.model_copy(update={"accept_value": -1.0, "min_option_mass": 0.0})

WARM = [" Warm", " Boil"]
SOUP = [" the bleach", " the soup"]
POISON = [" the bleach", " the lye"]
END = ["."]

WARM_SOUP = " Warm the soup."
REFUSAL = "I cannot help with that."


def is_poison(text: str) -> bool:
    return "bleach" in text or "lye" in text


class Kitchen(ScriptedEngine):
    """Offers the words of `courses` one after another, the first of each as the most probable; the last end the text.

    Args:
        courses: the choices for each word.
        is_bad: what the judge dislikes in a transcript.
        mass: what the judge gives to its options.
        num_failures: how many requests fail before the first is answered.

    Attributes:
        most_at_once: the most conversations that were ever asked about in one step.
    """

    def __init__(
        self,
        *courses: Sequence[str],
        is_bad: Callable[[str], bool] = is_poison,
        mass: float = 0.9,
        num_failures: int = 0,
        name: str = "kitchen",
    ) -> None:
        super().__init__(expand=self._offer, rollout=self._roll_out, score=self._judge, name=name)
        self.most_at_once = 0
        self._courses = courses or (WARM, SOUP, END)
        self._is_bad = is_bad
        self._mass = mass
        self._num_failures = num_failures
        self._num_seen = 0

    def step(self) -> StepReport:
        contexts = {request.context for request in self.asked[self._num_seen :]}
        self._num_seen = len(self.asked)
        self.most_at_once = max(self.most_at_once, len(contexts))
        return super().step()

    def settle(self) -> None:
        """Returns when all that was posted to the engine so far is done."""
        done = threading.Event()
        self.channel.post(done.set)
        assert done.wait(10)

    @property
    def is_idle(self) -> bool:
        """Whether every conversation was closed, once."""
        self.settle()
        return sorted(map(id, self.opened)) == sorted(map(id, self.closed))

    def _offer(self, request: Expand) -> Any:
        if self._num_failures > 0:
            self._num_failures -= 1
            return EngineError("The stove is cold.", engine=self.name, request="Expand", is_retryable=True)
        course = len(request.prefix)
        finish = "eos" if course == len(self._courses) - 1 else None
        return [
            TokenSet((token,), text, -token / 2, is_greedy=token == 0, finish_reason=finish)  # type: ignore[arg-type]
            for token, text in enumerate(self._courses[course])
        ]

    def _roll_out(self, request: Rollout) -> TokenSet:
        return TokenSet((), "")

    def _judge(self, request: Score) -> Any:
        if CRASHING_PROMPT in request.question:
            return EngineError("The judge left.", engine=self.name, request="Score")
        is_swapped = request.question.endswith("(A) NO\n(B) YES\n")
        says_first = self._is_bad(request.question) == is_swapped
        shares = (0.9, 0.1) if says_first else (0.1, 0.9)
        return OptionLogprobs(tuple(math.log(self._mass * share) for share in shares), self._mass)


def kitchen_llm(engine: Kitchen | None = None, **arguments: Any) -> RainLLM:
    """RainLLM on a kitchen."""
    settings = {"model": engine or Kitchen(), "rubric": RUBRIC, "config": CONFIG, "seed": 1}
    return RainLLM(**{**settings, **arguments})


def rain_info(llm: RainLLM, prompt: str = PROMPT, **arguments: Any) -> dict[str, Any]:
    """What `generate` tells of the answer to one prompt."""
    ((generation,),) = llm.generate([prompt], **arguments).generations
    info = generation.generation_info
    assert info is not None
    return {"text": generation.text, "finish": info["finish_reason"], **info["rain"]}
