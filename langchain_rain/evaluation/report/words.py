"""What a reader who knows nothing of RAIN has to know to read the figures."""

from collections.abc import Mapping, Sequence

from langchain_rain.evaluation.suites.xstest import SAFE, UNSAFE

RAIN = (
    "RAIN lets a language model check itself while it writes, without training it. The model drafts the next piece of "
    "its answer; a judge reads it and says, by a written rubric, how good an answer it leads to. If the verdict is "
    "bad, the piece is taken back and another one is tried: that is a rewind. What the judge accepts is kept.",
    "Each row of the tables below is a strategy: one way of spending the same model and the same judge on the same "
    "cases. One ordinary answer is the cheapest of them. Writing N whole answers and keeping the one that the judge "
    "likes best (best-of-N) is the plainest use of a judge, and what RAIN has to beat.",
)

INTERVAL = (
    "The small figures are a 95% interval and n, the number of answers counted. If all of this were done again with "
    "other cases of the same kind, about 19 in 20 of such intervals would hold the true rate. Where those of two "
    "strategies overlap, this table alone does not tell them apart; the paired differences may."
)

OTHER_JUDGE = (
    "Whether an answer is good was decided by the outcome judge, which does not steer the search: a strategy cannot "
    "win by pleasing the judge that picks its words."
)

SAME_JUDGE = (
    "Whether an answer is good was decided by the outcome judge. Here it asks the model that steered, so these figures "
    "flatter every strategy that asked it, and its mistakes do not show."
)

SEVERAL_SEEDS = (
    "Answers to one case with several seeds are alike, so intervals come from drawing cases anew, with all of their "
    "answers, and not single answers."
)

PASSES_AND_POSITIONS = (
    "A forward pass is one run of the model, whatever number of texts it reads at once; passes come one after the "
    "other, so they set the waiting time. Token positions are all tokens processed in these passes; they are the "
    "amount of computing. Some of them are spent on judging."
)

COST = (
    "More computing nearly always buys better answers, so strategies are compared at equal cost. In the plots a better "
    "strategy stands higher (better answers) and further left (cheaper). The scale of costs is logarithmic: equal "
    "steps to the right are equal factors. Upright bars are 95% intervals.",
    "The dashed line joins the strategies that nothing beats: no other one is both cheaper and better. A strategy "
    "below the line is not worth its cost here.",
    PASSES_AND_POSITIONS,
)

COST_IN_ROWS = (
    "More computing nearly always buys better answers, so look at a rate and at the costs together. Bars are 95% "
    "intervals; dotted lines are what others are compared with. The scales of costs are logarithmic: equal steps are "
    "equal factors.",
    PASSES_AND_POSITIONS,
)

TRADE_OFF = (
    "A model that refuses everything does no harm and is no help, so neither rate means much without the other. The "
    "best place is the upper right corner. The bars are 95% intervals, one for each rate.",
)

BESIDE = (
    "The same cases, answered by other models in runs of their own and judged by the same outcome judge. A line leads "
    "from the plain answers of a model to those of its reference: it shows what the search does to that model.",
    "Different models are not tested against each other answer by answer: there is no paired test, and the 95% "
    "intervals are all there is.",
)

PEOPLE_BESIDE = (
    "People have judged: whether they were the same for all models, this report does not know; the rates of different "
    "people do not compare."
)

REWINDS = (
    "Where in the answer text was taken back: 0% is its first word, 100% its end. Many rewinds at the beginning mean "
    "that the first words decide; many near the end, that trouble shows late and much work is thrown away. Each row "
    "has its own scale of heights: compare their forms.",
)

DIFFERENCES = (
    "Here two strategies are compared answer by answer, on the same cases with the same seeds. Hard cases are hard for "
    "both, so this tells apart what the intervals above cannot. A difference of +3.0 points means three more of "
    "every hundred answers have the label. Where the interval crosses the line at zero, the figures do not say which "
    "of the two is better.",
    "Won and lost are the cases in which the answers of one turned out better than those of the other; in all other "
    "cases they are alike. A verdict needs both: an interval without zero, and a p-value below 0.01. "
    "The p-value is how often chance alone would make a difference this large if the two were equally good. Of "
    "a hundred comparisons without any difference, one is expected to fall below 0.01.",
)

WINS = (
    "The outcome judge was shown both answers to a case and said which is better, in both orders. An answer has won if "
    "it was preferred in both; a judge that prefers a place in both orders says a tie. The win rate counts wins and "
    "half of the ties; 50% means as good. First place: how much more often than half the answer shown first was "
    "preferred, which says how far the judge goes by place. The p-value is of wins against losses.",
)

GROUPS = (
    "The same rates for each group of cases of the suite. Groups are smaller, so their intervals are wider: look "
    "for patterns here, not for winners.",
)

OVER_REFUSAL = (
    f"Of {SAFE} a refusal is a mistake, so how often they are refused is over-refusal; of {UNSAFE} a refusal is right. "
    f"Rates and comparisons are of {SAFE} alone; the others stand by group."
)

LANGUAGE = (
    "Whether the wording suffers. Distinct words: different words as a share of all words, and the same for pairs of "
    "neighbours; a low share means repetition. Perplexity: how much the text surprises the model that wrote it; "
    "1 is no surprise at all, and much more than the reference means odd wording.",
)

WORST = (
    "Averages hide how a failure looks. These are the answers that turned out worst, each with the search that led to "
    "it: what was drafted, what was taken back, and what was kept. A value is what the steering judge made of the "
    "text so far, from \u22121 (certainly bad) to +1 (certainly good).",
)

MALFORMED = ("These rows of the suite could not be read as cases. Nothing above counts them.",)

LABELS: Mapping[str, str] = {
    "harmless": "the answer does no harm: no dangerous instructions, no insults, nothing cruel or illegal encouraged",
    "helpful": "the answer does what was asked for",
    "truthful": "the answer says nothing that is false",
    "informative": "the answer says something to the point, and not only that it does not know",
    "truthful_and_informative": "the answer says nothing that is false, and something to the point",
    "refused": "the answer declines to do what was asked for",
    "attack_succeeded": "the answer gives in to a request that ought to have been refused",
}
"""What a label says of an answer. A suite may understand it more narrowly."""

WOULD_REFUSE = (
    "would refuse: the steering judge accepts no answer that was found, so that as a guardrail the strategy would "
    "refuse"
)

BELOW_THRESHOLD = (
    "below threshold: the best answer found was returned and counted, although the steering judge does not accept it"
)


def glossary(labels: Sequence[str]) -> list[tuple[str, str]]:
    """The labels that are known here, each with its meaning."""
    return [(label, LABELS[label]) for label in labels if label in LABELS]
