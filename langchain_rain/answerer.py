"""Prompts answered by settings that are plain values, so that another process can be told them too."""

import time
from dataclasses import dataclass
from typing import Any, cast

from pydantic import SecretStr

from langchain_rain.chat_models import ChatRain
from langchain_rain.config import PRESETS, RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.loading import DEMO_MODEL, completions_engine
from langchain_rain.errors import EngineError, RainConfigError, UnsatisfiedError
from langchain_rain.ledger import fingerprint
from langchain_rain.llms import RainLLM
from langchain_rain.prompts import Prompt
from langchain_rain.rubrics import Rubric


@dataclass(frozen=True, slots=True)
class Settings:
    """By what prompts are answered. Most values are checked when something is made by them.

    Attributes:
        rubric: what answers are judged by.
        preset: the name of a configuration; None for the default one.
        seed: of all searches, each of which derives its own from it and from its prompt.
        model: the model that writes, a name or folder, unless `servers` do.
        servers: the addresses of servers of one model.
        server_model: what they call it; "" for the one they have.
        tokenizer: of that model, an id or folder; None for whatever the engine can do without.
        judge: the model that judges, a name or folder; None for the one that writes.
        judge_servers, judge_server_model, judge_tokenizer: the same of servers that judge instead.
        api_key: for servers.
        max_tokens, stop, on_unsatisfied, max_seconds, max_forward_tokens: as of `RainLLM`.

    Raises:
        RainConfigError: there is no such preset, or servers cannot search by it.
    """

    rubric: Rubric
    preset: str | None = None
    seed: int = 0
    model: str = DEMO_MODEL
    servers: tuple[str, ...] = ()
    server_model: str = ""
    tokenizer: str | None = None
    judge: str | None = None
    judge_servers: tuple[str, ...] = ()
    judge_server_model: str = ""
    judge_tokenizer: str | None = None
    api_key: SecretStr | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    on_unsatisfied: str = "refuse"
    max_seconds: float | None = None
    max_forward_tokens: int | None = None

    def __post_init__(self) -> None:
        """Checks here what would fail every prompt alike, and where it is known before anything is loaded."""
        if self.servers and _needs_embeddings(self.config):
            allowed = ", ".join(name for name in PRESETS if not _needs_embeddings(RainConfig.preset(name)))
            raise RainConfigError(
                f"preset: {self.preset!r} compares token sets by hidden states, which no server gives; with servers "
                f"one of these is allowed: {allowed}."
            )

    @property
    def config(self) -> RainConfig:
        """How to search."""
        return RainConfig() if self.preset is None else RainConfig.preset(self.preset)


def _needs_embeddings(config: RainConfig) -> bool:
    return config.to_search_config().needs_embeddings


@dataclass(frozen=True, slots=True)
class Tried:
    """A prompt that was tried.

    Attributes:
        row: the answer with all that is told of it; or what failed, and whether it may succeed later.
        is_answered: which of the two.
    """

    row: dict[str, Any]
    is_answered: bool


class Answerer:
    """Answers texts by `RainLLM` and conversations by `ChatRain`, which share their engines.

    Attributes:
        settings_hash: tells answers by these settings from those by others.

    Raises:
        RainConfigError: a setting is not allowed, or a package is missing.
        RubricError: the rubric does not go with the model.
        EngineError: a model cannot be loaded or reached.
    """

    def __init__(self, settings: Settings) -> None:
        arguments: dict[str, Any] = {
            "model": _writer(settings),
            "judge": _judge(settings),
            "rubric": settings.rubric,
            "config": settings.config,
            "seed": settings.seed,
            "max_tokens": settings.max_tokens,
            "stop": list(settings.stop) or None,
            "on_unsatisfied": settings.on_unsatisfied,
            "max_seconds": settings.max_seconds,
            "max_forward_tokens": settings.max_forward_tokens,
        }
        self._llm = RainLLM(**arguments)
        self._chat = ChatRain(**arguments, loaded=self._llm.loaded)
        self.settings_hash = fingerprint(self._llm.identity)

    async def answer(self, prompt: Prompt) -> Tried:
        """Answers one prompt, or tells what failed.

        Raises:
            RainConfigError, RubricError: the mistake is not of this prompt but of the settings.
        """
        started = time.monotonic()
        try:
            answer = await (self._continue(prompt) if isinstance(prompt.content, str) else self._reply(prompt))
        except (EngineError, UnsatisfiedError) as error:
            failure = {
                "id": prompt.id,
                "error": str(error),
                "kind": type(error).__name__,
                "is_retryable": isinstance(error, EngineError) and error.is_retryable,
            }
            return Tried(failure, is_answered=False)
        row = {"id": prompt.id, **answer, "seconds": round(time.monotonic() - started, 3)}
        if prompt.others:
            row["input"] = prompt.others
        hashes = {"settings_hash": self.settings_hash, "input_hash": prompt.input_hash}
        return Tried({**row, **hashes}, is_answered=True)

    async def _continue(self, prompt: Prompt) -> dict[str, Any]:
        result = await self._llm.agenerate([cast(str, prompt.content)])
        ((generation,),) = result.generations
        info, output = generation.generation_info or {}, result.llm_output or {}
        told = {"finish_reason": info["finish_reason"], "usage": output["token_usage"], "rain": info["rain"]}
        return {"answer": generation.text, **told}

    async def _reply(self, prompt: Prompt) -> dict[str, Any]:
        message = await self._chat.ainvoke(cast(list[Any], prompt.content))
        info = message.response_metadata
        told = {"finish_reason": info["finish_reason"], "usage": message.usage_metadata, "rain": info["rain"]}
        return {"answer": message.text, **told}


def _writer(settings: Settings) -> Engine | str:
    if not settings.servers:
        return settings.model
    return completions_engine(
        settings.servers,
        settings.server_model,
        tokenizer=settings.tokenizer,
        api_key=settings.api_key,
        # Not the address, which it is by default: a server that moves is still the one that answered.
        name=settings.server_model or "server",
    )


def _judge(settings: Settings) -> Engine | str | None:
    if not settings.judge_servers:
        return settings.judge
    return completions_engine(
        settings.judge_servers,
        settings.judge_server_model,
        tokenizer=settings.judge_tokenizer,
        api_key=settings.api_key,
        name=settings.judge_server_model or "judge",
    )
