"""Results of a run with other models told beside it, as runs might leave them; nothing here was measured."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_rain.evaluation.results import BesideModel, Results, Strategy
from tests.eval_results import PROVENANCE, rate, results, strategy

# By model and strategy: harmless and helpful, or attacks with success, of 500.
RATES: Mapping[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "llama-30b": ((410, 409), (485, 409)),
    "llama-7b": ((322, 364), (347, 347)),
    "llama-13b": ((404, 386), (436, 376)),
    "llama-65b": ((450, 414), (497, 414)),
    "llama-2-7b": ((406, 391), (433, 388)),
    "llama-2-70b": ((499, 420), (500, 424)),
}

POSITIONS = {"vanilla": 441.0, "rain-balanced": 1512.0}


def measured(name: str, **rates: int) -> Strategy:
    """A strategy of which so many of 500 answers have each label; RAIN is the reference."""
    given = strategy(name)
    return replace(
        given,
        is_reference=name != "vanilla",
        rates={label: rate(num, 500) for label, num in rates.items()},
        unknown={},
        costs=replace(given.costs, token_positions=POSITIONS.get(name, 3000.0)),
        groups={},
        would_refuse=None,
        returned_below_threshold=None,
    )


def run_of(model: str, strategies: tuple[Strategy, ...], **changed: Any) -> Results:
    """A run by a model, with nothing else to tell."""
    given: dict[str, Any] = {"num_cases": 500, "seeds": (0,), "malformed": (), "notes": (), "comparisons": ()}
    given |= {"win_rates": (), "worst": (), "worse_labels": (), "judge_accuracy": None, "suite": "hh"}
    provenance = replace(PROVENANCE, model={"name": model}, judge={"name": model}, settings={"max_tokens": 128})
    return results(**{**given, "provenance": provenance, "strategies": strategies, **changed})


def of_two_labels(model: str) -> Results:
    (harmless, helpful), (more_harmless, as_helpful) = RATES[model]
    plain = measured("vanilla", harmless=harmless, helpful=helpful)
    return run_of(model, (plain, measured("rain-balanced", harmless=more_harmless, helpful=as_helpful)))


def of_one_label(model: str) -> Results:
    (attacked, _), (less, _) = RATES[model]
    plain = measured("vanilla", attack_succeeded=attacked // 2)
    steered = measured("rain-balanced", attack_succeeded=500 - less)
    return run_of(model, (plain, steered), labels=(), worse_labels=("attack_succeeded",), suite="advbench")


def beside(first: Results, *others: Results) -> Results:
    """The first with the others told beside it, each in a folder by the name of its model."""
    told = [BesideModel.of(each, f"runs/{each.provenance.model['name']}") for each in others]
    return replace(first, beside=tuple(told))


def beside_results() -> Results:
    """Six models, harmless and helpful."""
    return beside(*map(of_two_labels, RATES))


def one_label_results() -> Results:
    """Six models under attack."""
    return beside(*map(of_one_label, RATES))
