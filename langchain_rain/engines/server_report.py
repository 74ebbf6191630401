"""What is told of an inference server: who it is, and what it can do."""

from collections.abc import Mapping
from dataclasses import dataclass

from langchain_rain.engines.capabilities import Capabilities
from langchain_rain.engines.identity import Identity

OPTIONS: Mapping[str, str] = {
    "token ids": "told for any token",
    "pairs": "two at a time",
    "top": "where they are among the most probable",
    "single tokens": "a request for each",
}
"""How log probabilities of a judgement's options are had, for people."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A line of what is told of a server.

    Attributes:
        key: what, for programs.
        name: what, for people.
        value: how it is there; None where it does not tell.
        purpose: what it is for.
    """

    key: str
    name: str
    value: object
    purpose: str


def report(identity: Identity, capabilities: Capabilities) -> list[ReportRow]:
    """What a server is and can do, for people."""
    dialect = identity.dialect
    kind = f"{dialect.name} {identity.version}".strip() + (
        "" if dialect.is_tested else ", untested: by its documentation"
    )
    return [
        ReportRow("server", "server", kind, "how it is spoken to"),
        ReportRow(
            "model",
            "model",
            identity.model,
            "what it serves" + (f", from {identity.source}" if identity.source else ""),
        ),
        ReportRow("max_context", "context", identity.max_context, "the longest prompt with its answer, in tokens"),
        ReportRow("takes_token_ids", "prompts as token ids", True, "no text of a user's becomes a control token"),
        ReportRow(
            "spells_alike", "same tokenizer", capabilities.spells_alike, "tokens are the same text there as here"
        ),
        ReportRow(
            "max_num", "continuations at once", capabilities.max_num, "siblings that share the reading of a prompt"
        ),
        ReportRow("has_seed", "seed", capabilities.has_seed, "same seed, same answer"),
        ReportRow(
            "num_top", "most probable tokens", capabilities.num_top, "token sets of one token; at least 10 are wanted"
        ),
        ReportRow(
            "num_stop",
            "stop texts",
            capabilities.num_stop,
            "clauses end where they should, with little written in vain",
        ),
        ReportRow(
            "options",
            "options of a judgement",
            list(capabilities.options),
            "how their log probabilities are had",
        ),
        ReportRow(
            "has_prefix_cache",
            "prefix cache",
            capabilities.has_prefix_cache,
            "a conversation is not read anew for each request",
        ),
        ReportRow(
            "tells_cached",
            "cached tokens told",
            capabilities.tells_cached,
            "what an answer cost is known and not estimated",
        ),
        ReportRow(
            "has_hidden_states", "hidden states", False, "similarity needs embeddings= (presets paper and thorough)"
        ),
    ]
