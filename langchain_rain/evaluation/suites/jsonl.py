"""Prompts of the user's, in the form that `batch` reads, with what is known of them beside."""

from langchain_rain import prompts
from langchain_rain.evaluation.suites.base import Case, SuiteData, optional_text_in
from langchain_rain.evaluation.suites.reading import read_suite
from langchain_rain.evaluation.suites.rows import Row

ALLOWED = (
    f"{prompts.ALLOWED} It may have reference too (a good answer, a list of them, or an object), group and prefill "
    "(how the answer begins)."
)


def load(data: str | None = None) -> SuiteData:
    """Texts to continue and conversations to answer.

    Raises:
        RainConfigError: the data cannot be read, or no row is a prompt.
    """
    return read_suite(
        "jsonl",
        data,
        _read_case,
        sample="prompts.jsonl",
        columns=(("prompt",),),
        allowed=ALLOWED,
    )


def _read_case(row: Row) -> Case:
    prompt = prompts.prompt_of(dict(row.values), row.number, row.where)
    others = dict(prompt.others)
    group, prefill = (optional_text_in({key: others.pop(key, None)}, key) for key in ("group", "prefill"))
    own_id = prompt.id if "id" in row.values else f"jsonl:{row.number}"
    reference = others.pop("reference", None)
    if reference is not None:
        others |= reference if isinstance(reference, dict) else {"reference": reference}
    return Case(own_id, prompt.content, (group,) if group else (), others, prefill)
