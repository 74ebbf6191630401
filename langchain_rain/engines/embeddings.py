"""Answers `Embed` by a LangChain encoder instead of the model's own hidden states."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from langchain_rain.errors import EngineError

Vector = NDArray[np.float64]


def embed_texts(embeddings: Embeddings, texts: Sequence[str]) -> list[Vector]:
    """Unit vectors of `texts`, asked for in one batch; equal texts are asked for once."""
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return []
    vectors: list[Any] = embeddings.embed_documents(distinct)
    by_text = {text: _unit(np.asarray(vector, np.float64)) for text, vector in zip(distinct, vectors, strict=True)}
    return [by_text[text] for text in texts]


def encoder_failure(error: Exception, *, engine: str) -> EngineError:
    """What is replied to an `Embed` whose encoder raised."""
    message = f"The encoder of {engine} failed: {type(error).__name__}: {error}"
    failure = EngineError(message, engine=engine, request="Embed")
    failure.__cause__ = error
    return failure


def _unit(vector: Vector) -> Vector:
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector
