"""Prompts answered by settings that are plain values, so that another process can be told them too."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import SecretStr

from langchain_rain.chat_models import ChatRain
from langchain_rain.config import RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.loading import DEMO_MODEL, completions_engine
from langchain_rain.errors import EngineError, UnsatisfiedError
from langchain_rain.ledger import fingerprint
from langchain_rain.llms import RainLLM
from langchain_rain.prompts import Prompt
from langchain_rain.rubrics import Rubric


@dataclass(frozen=True, slots=True)
class Settings:
    """By what prompts are answered. The values are checked when something is made by them.

    Attributes:
        rubric: what answers are judged by.
        preset: the name of a configuration; None for the default one.
        seed: of all searches, each of which derives its own from it and from its prompt.
        model: the model that writes, a name or folder, unless `servers` do.
        servers: the addresses of servers of one model.
        server_model: what they call it; "" for the one they have.
        tokenizer: of that model, an id or folder; None for whatever the engine can do without.
        judge: the model that judges, a name or folder; None for the one that writes.
        judge_servers: addresses of servers that judge instead.
        api_key: for servers.
        max_tokens, stop, on_unsatisfied, max_seconds, max_forward_tokens: as of `RainLLM`.
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
    api_key: SecretStr | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    on_unsatisfied: str = "refuse"
    max_seconds: float | None = None
    max_forward_tokens: int | None = None


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
            "model": _server_engine(settings, settings.servers) if settings.servers else settings.model,
            "judge": _server_engine(settings, settings.judge_servers) if settings.judge_servers else settings.judge,
            "rubric": settings.rubric,
            "config": RainConfig() if settings.preset is None else RainConfig.preset(settings.preset),
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


def _server_engine(settings: Settings, addresses: Sequence[str]) -> Engine:
    is_writer = addresses == settings.servers
    return completions_engine(
        addresses,
        settings.server_model if is_writer else "",
        api_key=settings.api_key,
        tokenizer=settings.tokenizer if is_writer else None,
        # Not the address, which it is by default: a server that moves is still the one that answered.
        name=(settings.server_model or "server") if is_writer else "judge",
    )
