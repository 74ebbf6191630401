"""Unit vectors from somebody else's encoder."""

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_rain.engines.embeddings import embed_texts


class Lengths(Embeddings):
    """Embeds a text as a multiple of (4, 3) by its length; keeps what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.batches.append(texts)
        return [[4.0 * len(text), 3.0 * len(text)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


def test_embeddings_are_unit_vectors_in_the_order_of_the_texts() -> None:
    vectors = embed_texts(Lengths(), ["a", "bcd"])
    assert [vector.tolist() for vector in vectors] == [[0.8, 0.6], [0.8, 0.6]]
    assert all(vector.dtype == np.float64 for vector in vectors)


def test_equal_texts_are_asked_for_once_and_all_in_one_batch() -> None:
    encoder = Lengths()
    assert len(embed_texts(encoder, ["b", "a", "b", "a"])) == 4
    assert encoder.batches == [["b", "a"]]


def test_nothing_is_asked_for_no_texts() -> None:
    encoder = Lengths()
    assert embed_texts(encoder, []) == []
    assert encoder.batches == []


def test_a_vector_without_direction_stays_as_it_is() -> None:
    (vector,) = embed_texts(Lengths(), [""])
    assert vector.tolist() == [0.0, 0.0]
