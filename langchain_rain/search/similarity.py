"""Siblings that mean the same share what is learned; siblings that are all alike and all bad get company."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from langchain_rain.search.puct import running_mean
from langchain_rain.search.tree import Node

if TYPE_CHECKING:
    from langchain_rain.search.protocol import Vector

REFERENCE_DIMENSION = 384
"""Dimension of the sentence encoder (MiniLM) for which the reference states its threshold of the spread."""


def cosine(first: "Vector", second: "Vector") -> float:
    """Cosine of the angle between two vectors, 0 if one of them is 0."""
    norms = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(first @ second) / norms if norms > 0 else 0.0


def add_path_embedding(node: Node, embedding: "Vector") -> None:
    """Takes a path embedding into the running mean; the first one replaces the stand-in of an unvisited node."""
    count = node.num_embeddings
    node.embedding = (
        embedding if node.embedding is None or count == 0 else (node.embedding * count + embedding) / (count + 1)
    )
    node.num_embeddings = count + 1


def share_with_siblings(node: Node, value: float, *, threshold: float, weight: float) -> None:
    """Passes a part of `value` to every sibling with an embedding at least as similar as `threshold` (RAIN, eq. 4)."""
    if node.embedding is None:
        return
    for sibling in node.siblings:
        if sibling.embedding is None:
            continue
        similarity = cosine(node.embedding, sibling.embedding)
        if similarity >= threshold:
            share = weight * similarity
            sibling.value = running_mean(sibling.value, sibling.effective_visits, value, share)
            sibling.effective_visits += share


def spread(embeddings: Sequence["Vector"]) -> float:
    """Norm of the element-wise unbiased variance; 0 for fewer than two (RAIN, section 3.3, in the reference's form)."""
    if len(embeddings) < 2:
        return 0.0
    return float(np.linalg.norm(np.var(np.stack(embeddings), axis=0, ddof=1)))


def wants_another_child(node: Node, *, max_children: int, num_tokens: int, spread_threshold: float) -> bool:
    """Whether the children of `node` are all visited, all bad and all alike, and there is room for one more.

    Args:
        node: expanded.
        max_children: no more than these in all.
        num_tokens: length of the children's token sets.
        spread_threshold: of children of one token in the reference's dimension; scaled from there.
    """
    children = node.children
    if len(children) >= max_children or not all(child.visit_count > 0 and child.value < 0 for child in children):
        return False
    embeddings = [child.embedding for child in children if child.embedding is not None]
    if len(embeddings) < len(children):
        return False
    dimension = embeddings[0].shape[0]
    return spread(embeddings) < spread_threshold * num_tokens * math.sqrt(REFERENCE_DIMENSION / dimension)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds measured for one encoder, to be put into a configuration.

    Attributes:
        similarity_threshold: halfway between the cosines of different and of repeated texts.
        spread_threshold: halfway between the spreads of both, for token sets of one token and dimension 384.
    """

    similarity_threshold: float
    spread_threshold: float


def calibrate(different: Sequence["Vector"], repeated: Sequence["Vector"]) -> Calibration:
    """Thresholds that tell different texts from texts that say the same, for the encoder that made the embeddings.

    Args:
        different: embeddings of texts that have nothing to do with each other, at least 2.
        repeated: embeddings of wordings of one text, at least 2.

    Raises:
        ValueError: fewer than two embeddings of a kind.
    """
    for name, embeddings in (("different", different), ("repeated", repeated)):
        if len(embeddings) < 2:
            raise ValueError(f"calibrate needs at least 2 {name} embeddings, given {len(embeddings)}.")
    scale = math.sqrt(REFERENCE_DIMENSION / different[0].shape[0])
    return Calibration(
        similarity_threshold=(_median_cosine(different) + _median_cosine(repeated)) / 2,
        spread_threshold=(spread(different) + spread(repeated)) / 2 / scale,
    )


def _median_cosine(embeddings: Sequence["Vector"]) -> float:
    pairs = [cosine(a, b) for index, a in enumerate(embeddings) for b in embeddings[:index]]
    return float(np.median(pairs))
