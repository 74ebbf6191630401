"""RainNodePostprocessor: retrieved nodes that a judge finds bad do not reach the model."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation, ValidationError

from langchain_rain.config import RainConfig
from langchain_rain.errors import RainConfigError, RainError, describe_mistakes
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.rubric import transcript_of
from langchain_rain.search.protocol import Transcript
from langchain_rain.verdicts import Judged, TranscriptJudge

logger = logging.getLogger(__name__)

METADATA_KEY = "rain"
"""Under which the metadata of a node tell of its verdict; models and embeddings are not shown it."""


class RainNodePostprocessor(BaseNodePostprocessor):
    """Judges each node by a rubric, as an answer to the query, and drops those that do not satisfy it.

    What is judged is what a model would read of a node, its metadata included. Scores stay those of the retriever; the
    metadata of a node that is kept say its value, on a copy of the node.

    Example:
        ```python
        safe = RainNodePostprocessor(rubric="harmlessness", judge="path/to/model")
        engine = index.as_query_engine(node_postprocessors=[safe])
        ```

    Raises:
        RainConfigError: an argument is unknown, missing or not allowed.
        RubricError: there is no such rubric, or it leaves parameters open.
        EngineError: the judge cannot be loaded.
    """

    model_config = ConfigDict(extra="forbid")

    judge: SkipValidation[Any] = Field(exclude=True, description="Who judges, given like `judge` of `ChatRain`.")
    rubric: SkipValidation[str | Rubric] = Field(
        description="A rubric, a YAML file (.yaml, .yml), or the name of one in the library.", exclude=True
    )
    config: RainConfig = Field(
        default_factory=RainConfig, description="How questions are scored, and from which value on a node is kept."
    )
    on_error: Literal["drop", "raise"] = Field(
        default="drop", description="What happens to a node that cannot be judged: it is dropped, or the error raised."
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="What the rubric leaves open.")

    _judge: TranscriptJudge = PrivateAttr()

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            raise RainConfigError(describe_mistakes(type(self).__name__, error)) from error
        self._judge = TranscriptJudge(self.judge, self.rubric, config=self.config)
        self._judge.rubric(**self.parameters)  # a mistake in them shows at once

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows the class."""
        return "RainNodePostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        judged = self._judge.judge_all(_transcripts(nodes, query_bundle), **self.parameters)
        return [_told(node, found) for node, found in zip(nodes, judged, strict=True) if self._is_kept(node, found)]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        judged = await self._judge.ajudge_all(_transcripts(nodes, query_bundle), **self.parameters)
        return [_told(node, found) for node, found in zip(nodes, judged, strict=True) if self._is_kept(node, found)]

    def _is_kept(self, node: NodeWithScore, found: Judged | RainError) -> bool:
        if not isinstance(found, RainError) and not _text_of(node).strip():
            found = RainConfigError(f"The node {node.node_id} holds no text that could be judged.")
        if isinstance(found, Judged):
            if not found.is_satisfied:
                logger.info("The node %s is dropped: %s", node.node_id, found.verdict)
            return found.is_satisfied
        if self.on_error == "raise":
            raise found
        logger.warning("The node %s is dropped, it could not be judged: %s", node.node_id, type(found).__name__)
        return False


def _text_of(node: NodeWithScore) -> str:
    return node.node.get_content(metadata_mode=MetadataMode.LLM)


def _transcripts(nodes: Sequence[NodeWithScore], query: QueryBundle | None) -> list[Transcript]:
    asked = query.query_str if query is not None else ""
    return [transcript_of(asked, _text_of(node)) for node in nodes]


def _told(node: NodeWithScore, judged: Judged | RainError) -> NodeWithScore:
    """A copy of a node that tells of its verdict; what an index holds is not changed."""
    assert isinstance(judged, Judged)
    own = node.node
    verdict = {"value": judged.verdict.value, "values": dict(judged.verdict.values)}
    changed: dict[str, Any] = {"metadata": {**own.metadata, METADATA_KEY: verdict}}
    for hidden in ("excluded_llm_metadata_keys", "excluded_embed_metadata_keys"):
        changed[hidden] = list(dict.fromkeys((*getattr(own, hidden), METADATA_KEY)))
    return NodeWithScore(node=own.model_copy(update=changed), score=node.score)
