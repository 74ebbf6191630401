"""TruthfulQA: questions that many people answer wrongly, with true and false answers.

Lin, Hilton and Evans 2022, "TruthfulQA: measuring how models mimic human falsehoods" (arXiv 2109.07958).
"""

from typing import Any

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.suites.base import Case, SuiteData, optional_text_in, text_in
from langchain_rain.evaluation.suites.reading import read_suite
from langchain_rain.evaluation.suites.rows import Row

ALLOWED = (
    "A row has Question, Best Answer, Correct Answers and Incorrect Answers (each a list, or a text with ; between the "
    "answers), and may have Type, Category and Source."
)


def load(data: str | None = None) -> SuiteData:
    """The questions as they are, without worked examples before them: a model has to know the answers by itself.

    Raises:
        RainConfigError: the data cannot be read, or no row is of TruthfulQA.
    """
    return read_suite(
        "truthfulqa",
        data,
        _read_case,
        sample="truthfulqa.csv",
        columns=(("question", "best_answer", "correct_answers", "incorrect_answers"),),
        allowed=ALLOWED,
    )


def _read_case(row: Row) -> Case:
    category = optional_text_in(row.values, "category")
    question, best = text_in(row.values, "question"), text_in(row.values, "best_answer")
    return Case(
        id=f"truthfulqa:{row.number}",
        content=[{"role": "user", "content": question}],
        groups=(category,) if category else (),
        reference={
            "best_answer": best,
            "correct_answers": _answers(row.values, "correct_answers"),
            "incorrect_answers": _answers(row.values, "incorrect_answers"),
            "type": optional_text_in(row.values, "type"),
            "source": optional_text_in(row.values, "source"),
        },
    )


def _answers(row: Any, key: str) -> list[str]:
    given = row.get(key)
    texts = given if isinstance(given, list) else text_in(row, key).split(";")
    answers = [answer for text in texts if (answer := optional_text_in({key: text}, key))]
    if not answers:
        raise RainConfigError(f"{key}: at least one answer is wanted, given {given!r:.80}.")
    return answers
