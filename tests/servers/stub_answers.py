"""What the stub answers: sentences of a few words, and log probabilities, without a model.

An answer is one word of each of `SLOTS`, and the end of sequence. How far a text is, is found in its tokens; which of a
slot's words comes next depends on the seed and the choice's index, so that neighbours differ.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.servers.processes import MODEL_FOLDER

# Words of the bundled model that are one token; Ġ is a space.
SLOTS = (
    "Buy Fix Make Use",
    "Ġthe Ġa Ġthis Ġevery",
    "Ġnew Ġsmall Ġcold Ġwarm",
    "Ġlamp Ġcar Ġbike Ġmirror",
    "Ġin Ġat Ġfor Ġwith",
    "Ġwater Ġsoap Ġcloth Ġsand",
    "Ġand Ġor",
    "Ġgarden Ġwindow Ġletter Ġsign",
    ".",
    "<|end|>",
)
LABELS = ("A", "B", "ĠA", "ĠB")
FIRST_WORD = 6  # before it are special tokens
WORD_LOGPROB = math.log(0.2)  # of each word of a slot
UNLIKELY_LOGPROB = -12.0  # of any other token
FIRST_OPTION_LOGPROB = math.log(0.9)
OTHER_OPTIONS_PROBABILITY = 0.09  # together


@dataclass(frozen=True, slots=True)
class Step:
    """A token of an answer.

    Attributes:
        token: its id.
        top: log probabilities of the most probable tokens, or of those that were asked for.
        logprob: its own.
    """

    token: int
    top: dict[int, float]
    logprob: float = WORD_LOGPROB


class Answers:
    """The answers, in the tokens of the bundled model.

    Attributes:
        texts: the text of each token.
        end: the token that ends an answer.
    """

    def __init__(self) -> None:
        vocabulary: dict[str, int] = json.loads((MODEL_FOLDER / "tokenizer.json").read_text())["model"]["vocab"]
        self.texts = {token: text.replace("Ġ", " ") for text, token in vocabulary.items()}
        self._slots = [[vocabulary[word] for word in slot.split()] for slot in SLOTS]
        self._labels = [vocabulary[label] for label in LABELS]
        self.end = vocabulary[SLOTS[-1]]

    def continuation(self, prompt: Sequence[int], max_tokens: int, variant: int, num_top: int) -> list[Step]:
        """What comes after a prompt, at most up to the end of the answer.

        Args:
            prompt: tokens.
            max_tokens: of what comes.
            variant: which words.
            num_top: how many log probabilities a step has.
        """
        begin = self._num_written(prompt)
        steps = []
        for position, slot in enumerate(self._slots[begin : begin + max_tokens], begin):
            token = slot[(variant + position) % len(slot)]
            steps.append(Step(token, self._top(slot, num_top)))
        return steps

    def choice(self, options: Sequence[int]) -> Step:
        """An answer to a question with options, of which the first is good."""
        rest = math.log(OTHER_OPTIONS_PROBABILITY / max(1, len(options) - 1))
        logprobs = {option: rest for option in options} | {options[0]: FIRST_OPTION_LOGPROB}
        return Step(options[0], logprobs, FIRST_OPTION_LOGPROB)

    def choice_of_labels(self, num_top: int) -> Step:
        """The same for the options A and B, among the most probable tokens."""
        return self.choice(self._labels[:num_top])

    def _num_written(self, prompt: Sequence[int]) -> int:
        """How many slots the end of a prompt fills, from the first on."""
        for length in range(min(len(prompt), len(self._slots) - 1), 0, -1):
            if all(token in slot for token, slot in zip(prompt[-length:], self._slots, strict=False)):
                return length
        return 0

    def _top(self, slot: Sequence[int], num_top: int) -> dict[int, float]:
        others = [token for token in range(FIRST_WORD, FIRST_WORD + num_top + len(slot)) if token not in slot]
        probable = dict.fromkeys(slot[:num_top], WORD_LOGPROB)
        return probable | dict.fromkeys(others[: num_top - len(probable)], UNLIKELY_LOGPROB)
