"""Who serves: what kind of server it is, and which model it has."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_rain.engines.addresses import named
from langchain_rain.engines.dialects import DIALECTS, Dialect
from langchain_rain.engines.http_client import HttpClient
from langchain_rain.engines.replicas import Replica
from langchain_rain.errors import EngineError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """What serves.

    Attributes:
        dialect: how it is spoken to.
        version: of the server, as far as it tells.
        model: the name of the model there.
        source: where the server has it from, a folder of its own or an id; empty if it does not tell.
        max_context: how many tokens a text may have; None if it does not tell.
    """

    dialect: Dialect
    version: str
    model: str
    source: str
    max_context: int | None


async def identify_all(
    client: HttpClient, replicas: Sequence[Replica], *, model: str, dialect: str | None, name: str
) -> list[tuple[Replica, Identity]]:
    """Who serves, and what, at each server that can be reached; at least one can, and all have the same model.

    Raises:
        EngineError: as `identify`, or they differ.
    """
    told = await asyncio.gather(
        *(identify(client, each, model=model, dialect=dialect, name=name) for each in replicas), return_exceptions=True
    )
    found: list[tuple[Replica, Identity]] = []
    failures: list[EngineError] = []
    for replica, each in zip(replicas, told, strict=True):
        if isinstance(each, Identity):
            found.append((replica, each))
        elif isinstance(each, EngineError) and each.is_retryable:
            failures.append(each)
        else:
            raise each
    if not found:
        raise failures[0]
    for failure in failures:
        logger.warning("One of the servers of %s was not looked at: %s", name, failure)
    (first_replica, first), *others = found
    for replica, other in others:
        if (other.dialect.name, other.model) != (first.dialect.name, first.model):
            raise EngineError(
                f"{named(first_replica.url)} serves {first.model!r} by {first.dialect.name}, {named(replica.url)} "
                f"{other.model!r} by {other.dialect.name}; replicas of one model are allowed.",
                engine=name,
            )
    return found


async def identify(client: HttpClient, replica: Replica, *, model: str, dialect: str | None, name: str) -> Identity:
    """Who serves, and what.

    Args:
        client: asks it.
        replica: where.
        model: its name there; empty for the only one.
        dialect: which one it speaks; None to find out.
        name: of the engine, for errors.

    Raises:
        EngineError: it cannot be reached, or has no such model.
    """

    async def get(path: str) -> dict[str, Any]:
        told = await client.get(replica, path)
        return told if isinstance(told, dict) else {}

    models = await get("/v1/models") or await get("/v1/models")  # once more, as a reply may be damaged on its way
    chosen = _chosen(models, model, url=named(replica.url), name=name)
    version, properties = await get("/version"), await get("/props")
    if dialect is None:
        dialect = await _dialect(chosen, version, properties, get)
    settings = properties.get("default_generation_settings")
    n_ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    max_context = chosen.get("max_model_len") or n_ctx
    return Identity(
        DIALECTS[dialect],
        str(version.get("version") or properties.get("build_info") or ""),
        chosen["id"],
        str(chosen.get("root") or properties.get("model_path") or ""),
        max_context if isinstance(max_context, int) and max_context > 0 else None,
    )


def _chosen(models: dict[str, Any], model: str, *, url: str, name: str) -> dict[str, Any]:
    """The entry of a model in the list of those that are served."""
    told = models.get("data")
    entries = told if isinstance(told, list) else []
    listed = [each for each in entries if isinstance(each, dict) and isinstance(each.get("id"), str)]
    if not listed:
        raise EngineError(
            f"{url} lists no models at /v1/models; is it an inference server, and has it loaded its model?", engine=name
        )
    chosen = next((each for each in listed if model in (each["id"], "")), None)
    if chosen is None or (not model and len(listed) > 1):
        names = ", ".join(repr(each["id"]) for each in listed)
        raise EngineError(f"{url} serves {names}; one of these is allowed as model, given {model!r}.", engine=name)
    return chosen


async def _dialect(
    listed: dict[str, Any],
    version: dict[str, Any],
    properties: dict[str, Any],
    get: Callable[[str], Awaitable[dict[str, Any]]],
) -> str:
    if listed.get("owned_by") == "llamacpp" or "default_generation_settings" in properties:
        return "llama-server"
    if listed.get("owned_by") == "vllm" and "version" in version:
        return "vllm"
    if listed.get("owned_by") == "sglang" or "model_path" in await get("/get_model_info"):
        return "sglang"
    return "openai"
