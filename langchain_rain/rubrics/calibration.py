"""What a model answers where there is nothing to judge, taken out of what it answers where there is.

Content-free calibration (Zhao et al., "Calibrate Before Use", arXiv 2102.09690): the options are asked about texts
without content, and their probabilities divided by what they have there. Of a choice that is asked in both orders only
the preference for a letter is taken out: what the options say may well be more or less probable.
"""

import math
from collections.abc import MutableMapping, Sequence
from typing import TypeAlias

from langchain_rain.rubrics.asking import shares_of
from langchain_rain.rubrics.criteria import AnyCriterion
from langchain_rain.search.protocol import OptionLogprobs, Transcript

Prior: TypeAlias = tuple[tuple[float, ...], ...]
"""For each question about a criterion, the natural log of what its options are to be divided by."""

Priors: TypeAlias = MutableMapping[str, Prior]
"""By the name of the criterion: of one model, one rubric, one template."""

CONTENT_FREE = (Transcript("", ""), Transcript("", "N/A"), Transcript("", "[MASK]"))
"""Those of Zhao et al."""

CALIBRATED_KINDS = frozenset({"question", "yes_no", "scale"})

LEAST_SHARE = 1e-4
"""Of an option among all of them, so that one which a model never gives without content does not win everything."""


def prior_of(criterion: AnyCriterion, replies: Sequence[Sequence[OptionLogprobs]]) -> Prior:
    """What the model prefers; `replies` are those to the questions of the criterion, for each text without content."""
    means = [_mean_logs(of_question) for of_question in zip(*replies, strict=True)]
    if criterion.kind == "question":
        letters = tuple(sum(logs) / len(means) for logs in zip(*means, strict=True))
        means = [letters for _ in means]
    return tuple(means)


def calibrated(replies: Sequence[OptionLogprobs], prior: Prior) -> list[OptionLogprobs]:
    """The replies to the questions about a criterion without what the model prefers anyway; masses as they are."""
    return [
        OptionLogprobs(tuple(a - b for a, b in zip(reply.logprobs, logs, strict=True)), reply.mass)
        for reply, logs in zip(replies, prior, strict=True)
    ]


def _mean_logs(replies: Sequence[OptionLogprobs]) -> tuple[float, ...]:
    """The logs of the options' mean shares."""
    shares = [shares_of(reply) or [1 / len(reply.logprobs)] * len(reply.logprobs) for reply in replies]
    return tuple(math.log(max(LEAST_SHARE, sum(each) / len(shares))) for each in zip(*shares, strict=True))
