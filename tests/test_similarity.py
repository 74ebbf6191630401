import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from langchain_rain.search.protocol import TokenSet
from langchain_rain.search.similarity import (
    Calibration,
    add_path_embedding,
    calibrate,
    cosine,
    share_with_siblings,
    spread,
    wants_another_child,
)
from langchain_rain.search.tree import Node
from tests.scripted_games import Vector


def vector(*numbers: float) -> Vector:
    return np.array(numbers, dtype=np.float64)


def family(*embeddings: Vector | None, value: float = 0.0, visit_count: int = 1) -> Node:
    """A parent with one child for each embedding."""
    parent = Node()
    for each in [TokenSet((n,), "") for n in range(len(embeddings))]:
        parent.add_child(each)
    for child, embedding in zip(parent.children, embeddings, strict=True):
        child.embedding, child.value = embedding, value
        child.visit_count, child.effective_visits = visit_count, float(visit_count)
    return parent


def test_the_cosine_does_not_depend_on_lengths() -> None:
    assert cosine(vector(3, 4), vector(0, 2)) == 0.8  # (3 * 0 + 4 * 2) / (5 * 2)


def test_the_cosine_with_nothing_is_0() -> None:
    assert cosine(vector(0, 0), vector(1, 0)) == 0
    assert cosine(vector(1, 0), vector(0, 0)) == 0


def test_the_embedding_of_a_node_is_the_mean_of_its_path_embeddings() -> None:
    node = Node()
    for each in [vector(3, 0), vector(0, 3), vector(0, 0)]:
        add_path_embedding(node, each)
    assert node.embedding is not None
    assert node.embedding.tolist() == [1, 1]
    assert node.num_embeddings == 3


def test_the_first_path_embedding_replaces_a_stand_in() -> None:
    node = Node(embedding=vector(1, 0))
    add_path_embedding(node, vector(0, 1))
    assert node.embedding is not None
    assert node.embedding.tolist() == [0, 1]


def test_a_sibling_at_exactly_the_threshold_shares() -> None:
    first, second = family(vector(3, 4), vector(0, 1)).children  # cosine 4 / 5
    share_with_siblings(first, 1.0, threshold=0.8, weight=0.2)
    # weight 0.2 * 0.8 == 0.16 joins one visit of value 0
    assert second.effective_visits == pytest.approx(1.16)
    assert second.value == pytest.approx(0.16 / 1.16)
    assert second.visit_count == 1


def test_a_sibling_below_the_threshold_does_not_share() -> None:
    first, second = family(vector(3, 4), vector(0, 1)).children
    share_with_siblings(first, 1.0, threshold=0.8001, weight=0.2)
    assert (second.effective_visits, second.value) == (1.0, 0.0)


def test_an_unvisited_sibling_takes_the_shared_value_whole() -> None:
    first, second = family(vector(1, 0), vector(1, 0), visit_count=0).children
    share_with_siblings(first, -1.0, threshold=0.95, weight=0.2)
    assert (second.visit_count, second.effective_visits, second.value) == (0, 0.2, -1.0)


def test_a_node_shares_nothing_with_itself() -> None:
    (only,) = family(vector(1, 0)).children
    share_with_siblings(only, 1.0, threshold=0.95, weight=0.2)
    assert (only.effective_visits, only.value) == (1.0, 0.0)


def test_without_embeddings_nothing_is_shared() -> None:
    known, unknown = family(vector(1, 0), None).children
    for node in (known, unknown):
        share_with_siblings(node, 1.0, threshold=0.0, weight=0.2)
    assert [(child.effective_visits, child.value) for child in (known, unknown)] == [(1.0, 0.0), (1.0, 0.0)]


def test_the_spread_is_the_norm_of_the_unbiased_variances() -> None:
    # x: 0, 2, deviations of 1, variance (1 + 1) / 1 == 2; y: 0, 4, variance 8; sqrt(4 + 64)
    assert spread([vector(0, 0), vector(2, 4)]) == pytest.approx(math.sqrt(68))


def test_fewer_than_two_embeddings_have_no_spread() -> None:
    assert spread([]) == 0
    assert spread([vector(1, 0)]) == 0


def wants(parent: Node, **settings: Any) -> bool:
    return wants_another_child(parent, **{"max_children": 20, "num_tokens": 1, "spread_threshold": 0.03, **settings})


def test_children_all_visited_alike_and_bad_want_company() -> None:
    assert wants(family(vector(1, 0), vector(1, 0), value=-0.01))


def test_a_full_node_wants_no_more_children() -> None:
    bad = family(vector(1, 0), vector(1, 0), value=-1)
    assert wants(bad, max_children=3)
    assert not wants(bad, max_children=2)


def test_one_child_that_is_not_bad_is_enough() -> None:
    parent = family(vector(1, 0), vector(1, 0), value=-1)
    parent.children[1].value = 0
    assert not wants(parent)


def test_one_child_not_yet_visited_is_enough() -> None:
    parent = family(vector(1, 0), vector(1, 0), value=-1)
    parent.children[0].visit_count = 0
    assert not wants(parent)


def test_children_without_embeddings_cannot_be_compared() -> None:
    assert not wants(family(vector(1, 0), None, value=-1))


def test_a_single_bad_child_wants_company() -> None:
    assert wants(family(vector(1, 0), value=-1))


def test_the_threshold_of_the_spread_grows_with_length_and_with_fewer_dimensions() -> None:
    # variances 0 and 0.5, spread 0.5, in dimension 2: 0.5 / sqrt(384 / 2) == 0.036084 for one token
    parent = family(vector(0, 0), vector(0, 1), value=-1)
    at_threshold = 0.5 / math.sqrt(192)
    assert wants(parent, spread_threshold=at_threshold * 1.001)
    assert not wants(parent, spread_threshold=at_threshold * 0.999)
    assert wants(parent, spread_threshold=at_threshold * 1.001 / 10, num_tokens=10)
    assert not wants(parent, spread_threshold=at_threshold * 0.999 / 10, num_tokens=10)


def test_the_reference_threshold_is_vacuous_for_two_tokens_in_384_dimensions() -> None:
    # docs/algorithm.md, section 6. An element of a random unit vector has variance 1 / 384; an estimate of it from ten
    # has the mean square (1 + 2 / 9) / 384**2, so the norm is about sqrt((1 + 2 / 9) / 384) == 0.0564: between 0.03,
    # the threshold for one token, and 0.06, that for two.
    random = np.random.default_rng(0)
    vectors = [each / np.linalg.norm(each) for each in random.normal(size=(10, 384))]
    assert spread(vectors) == pytest.approx(0.0564, abs=0.003)
    assert not wants(family(*vectors, value=-1))
    assert wants(family(*vectors, value=-1), num_tokens=2)


def test_calibrate_puts_thresholds_halfway_between_different_and_repeated() -> None:
    # different: cosine 0, variances 0.5 and 0.5, spread sqrt(0.5); repeated: cosine 1, spread 0
    calibration = calibrate([vector(1, 0), vector(0, 1)], [vector(1, 0), vector(1, 0)])
    assert calibration.similarity_threshold == pytest.approx(0.5)
    assert calibration.spread_threshold == pytest.approx(math.sqrt(0.5) / 2 / math.sqrt(192))


def test_calibrate_takes_the_median_over_all_pairs() -> None:
    # pairs of different: 0, 0.6, 0.8; median 0.6; repeated 1
    different = [vector(1, 0), vector(0, 1), vector(0.6, 0.8)]
    calibration = calibrate(different, [vector(0, 1), vector(0, 1)])
    assert calibration.similarity_threshold == pytest.approx(0.8)


def test_calibrated_thresholds_tell_the_texts_they_were_made_of_apart() -> None:
    random = np.random.default_rng(1)
    centre = random.normal(size=16)
    different = [each / np.linalg.norm(each) for each in random.normal(size=(10, 16))]
    repeated = [each / np.linalg.norm(each) for each in centre + 0.05 * random.normal(size=(10, 16))]
    calibration = calibrate(different, repeated)
    assert wants(family(*repeated, value=-1), spread_threshold=calibration.spread_threshold)
    assert not wants(family(*different, value=-1), spread_threshold=calibration.spread_threshold)
    assert cosine(repeated[0], repeated[1]) >= calibration.similarity_threshold
    assert cosine(different[0], different[1]) < calibration.similarity_threshold


@pytest.mark.parametrize(("num_different", "num_repeated", "named"), [(1, 2, "different"), (2, 1, "repeated")])
def test_calibrate_says_of_which_texts_there_are_too_few(num_different: int, num_repeated: int, named: str) -> None:
    with pytest.raises(ValueError, match=rf"at least 2 {named} embeddings, given 1\."):
        calibrate([vector(1, 0)] * num_different, [vector(1, 0)] * num_repeated)


def test_calibrations_compare_by_value() -> None:
    assert Calibration(0.9, 0.1) == Calibration(0.9, 0.1)


unit_vectors = arrays(np.float64, 3, elements=st.floats(-1, 1)).filter(lambda each: float(np.linalg.norm(each)) > 0.1)


@settings(max_examples=50, deadline=None)
@given(unit_vectors, unit_vectors)
def test_the_cosine_is_symmetric_and_in_range(first: Vector, second: Vector) -> None:
    assert cosine(first, second) == cosine(second, first)
    assert -1 - 1e-9 <= cosine(first, second) <= 1 + 1e-9
