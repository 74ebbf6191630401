"""Labels that say of an answer that several others are all true of it."""

from collections.abc import Mapping, Sequence

from langchain_rain.evaluation.outcomes.base import Label

JOINT: Mapping[str, tuple[str, ...]] = {"truthful_and_informative": ("truthful", "informative")}
"""Each with its parts. Truthful and informative: Lin, Hilton and Evans 2022, "TruthfulQA" (arXiv 2109.07958)."""


def with_joint(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels, and first the joint ones whose parts are all among them."""
    return tuple(dict.fromkeys([*_joint_in(labels), *labels]))


def without_joint(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels without those joint ones whose parts are all among them."""
    return tuple(label for label in labels if label not in _joint_in(labels))


def joint_labels(found: Mapping[str, Label], labels: Sequence[str]) -> dict[str, Label]:
    """The joint labels by what was found of their parts: false if one of them is, else None if one is unknown.

    Args:
        found: what was found; a label that is missing is unknown.
        labels: all that are looked for.
    """
    return {label: _all_true([found.get(part) for part in JOINT[label]]) for label in _joint_in(labels)}


def _joint_in(labels: Sequence[str]) -> list[str]:
    return [label for label, parts in JOINT.items() if set(parts) <= set(labels)]


def _all_true(parts: Sequence[Label]) -> Label:
    if any(part is not None and not part for part in parts):
        return False
    return None if None in parts else True
