"""Ways to answer with the same writer, judge and rubric: RAIN, and what it is compared with.

Equal budget. Each strategy's `answer` takes `max_positions`: the token positions that this answer may take, most
naturally the `counted_positions` of RAIN's answer to the same case with the same seed. Positions are counted by
`metering`: of this answer alone and as if nobody else used the engine, so that the count depends neither on what runs
beside it nor on what ran before. What is within the budget:

* vanilla: one answer. It cannot use more.
* best-of-N: as many samples as fit, whatever N is. The first is drawn in any case; one that ends past the budget, and
  all after it, are not considered.
* critique-revise-N: as many rounds as fit, whatever N is. The first answer is drawn in any case; a round that ends past
  the budget is not considered.
* self-check-refuse: one answer and one judgement. More of them would be best-of-N.
* RAIN: ends with the best it has, as with `max_forward_tokens`.

`counted_positions` tells what was used of it, without what was not considered; `token_positions` is what the engines
say was run, that included.

The answer of vanilla, the first sample of best-of-N, and what critique-revise-N and self-check-refuse begin with are
the same text for the same seed, so that comparisons are paired.
"""

from langchain_rain.evaluation.strategies.base import Answered, Content, Setting, Step, Strategy
from langchain_rain.evaluation.strategies.drawing import Sampled, best_of, sample
from langchain_rain.evaluation.strategies.naming import ALLOWED_NAMES, all_strategies

__all__ = [
    "ALLOWED_NAMES",
    "Answered",
    "Content",
    "Sampled",
    "Setting",
    "Step",
    "Strategy",
    "all_strategies",
    "best_of",
    "sample",
]
