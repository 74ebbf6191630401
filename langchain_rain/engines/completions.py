"""A model on an inference server (vLLM, llama-server, SGLang, other OpenAI-compatible ones) as an engine.

Texts are token ids here and there: they are encoded, decoded, cut and judged by the same code as in this process, and
the server is asked for no more than continuations and log probabilities. All that is asked about one conversation goes
to one server, whose cache holds its beginning.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
from langchain_core.embeddings import Embeddings
from pydantic import SecretStr

from langchain_rain.engines.addresses import as_replicas, checked_urls, named
from langchain_rain.engines.base import Answered, Cost
from langchain_rain.engines.capabilities import probe_all
from langchain_rain.engines.conversations import Conversations, Feeding
from langchain_rain.engines.dialects import DIALECTS
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.embeddings import embed_texts, encoder_failure
from langchain_rain.engines.http_client import HttpClient
from langchain_rain.engines.identity import Identity, identify_all
from langchain_rain.engines.merging import AsyncChannel
from langchain_rain.engines.reading import AnswerReader
from langchain_rain.engines.replicas import Replica, Replicas
from langchain_rain.engines.server import Server
from langchain_rain.engines.server_report import ReportRow, report
from langchain_rain.engines.server_work import ServerWork, Stay
from langchain_rain.engines.text import TextCodec
from langchain_rain.engines.tokenizers import end_token_ids, load_tokenizer
from langchain_rain.engines.work import EmbedWork
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.protocol import Context, Request, Score

logger = logging.getLogger(__name__)

SAMPLE = "How do I wash the bike? (A) 12 €\n"
"""A text on which tokenizers are compared."""

PARALLEL_RANK = "X-data-parallel-rank"
"""The header by which vLLM is told which of its data-parallel ranks a request is for."""


class CompletionsEngine:
    """Answers requests by an inference server.

    Making one connects: it finds out what the server is and can do. From a coroutine make it by `asyncio.to_thread`.
    Similarity between token sets (presets `paper` and `thorough`) needs `embeddings`, as servers give no hidden states.

    Args:
        base_url: where it is, for example "http://localhost:8000"; several for replicas of one model.
        model: its name there; by default the only one that is served.
        api_key: sent as bearer token; shown nowhere.
        tokenizer: of the model: a folder, an id on the Hugging Face hub, or the tokenizer itself; by default what the
            server names as the model.
        embeddings: answers `Embed` from decoded text.
        name: names the engine in errors and results; by default the model's name.
        dialect: "vllm", "llama-server", "sglang" or "openai"; by default found out.
        cache_salt: keeps what the server caches of these texts from its other tenants (vLLM, SGLang).
        data_parallel_size: how many data-parallel ranks of vLLM stand behind each URL; each conversation stays on one.
        session_header: a header that tells a router which requests belong together, for example "X-Session-ID".
        connect_timeout: seconds until a server takes a connection.
        read_timeout: seconds until it answers; then the request counts as failed, and is tried again.
        max_retries: how often a request is tried again that failed in a way that may pass: with 8, for a minute.

    Raises:
        RainConfigError: an argument is out of range, or transformers, for the tokenizer, is missing.
        EngineError: the server cannot be reached, has no such model or another tokenizer, or cannot be searched with:
            what it lacks is named.
    """

    writes_whole_messages = False

    def __init__(  # noqa: PLR0913 - where the server is, and how it is treated
        self,
        base_url: str | Sequence[str],
        model: str = "",
        *,
        api_key: SecretStr | str | None = None,
        tokenizer: Any = None,
        embeddings: Embeddings | None = None,
        name: str = "",
        dialect: str | None = None,
        cache_salt: str = "",
        data_parallel_size: int = 1,
        session_header: str = "",
        connect_timeout: float = 5.0,
        read_timeout: float = 120.0,
        max_retries: int = 8,
    ) -> None:
        urls = checked_urls(base_url)
        _check_dialect(dialect)
        _check_header(session_header)
        _check_whole(1, data_parallel_size=data_parallel_size)
        _check_whole(0, max_retries=max_retries)
        _check_seconds(connect_timeout=connect_timeout, read_timeout=read_timeout)
        self.name = name or model or named(urls[0])
        self.embeddings = embeddings
        ranks = [{PARALLEL_RANK: str(rank)} for rank in range(data_parallel_size)] if data_parallel_size > 1 else [{}]
        self._client = HttpClient(
            Replicas(as_replicas(urls, headers=ranks), session_header=session_header),
            name=self.name,
            api_key=_checked_key(api_key),
            # Waiting for a connection of the pool is no failure of a server.
            timeout=httpx.Timeout(read_timeout, connect=connect_timeout, pool=None),
            max_retries=max_retries,
        )
        self._is_shut_down = False
        self.channel = AsyncChannel(self, at_end=self._client.aclose)
        try:
            replicas = self._identify(model, dialect)
            if cache_salt and not self.served.dialect.has_cache_salt:
                raise RainConfigError(
                    f"cache_salt: {self.served.dialect.name} keeps no tenants apart, given {cache_salt!r}."
                )
            self.name = self._client.name = name or self.served.model
            self.tokenizer = self._loaded(tokenizer)
            self._connect(replicas, cache_salt)
        except BaseException:
            self.channel.shut_down()
            raise

    def _identify(self, model: str, dialect: str | None) -> list[Replica]:
        """Finds out who serves; returns the servers that can be reached, of several ranks the first."""
        replicas = list({each.url: each for each in reversed(self._client.replicas.all)}.values())[::-1]
        found = self.channel.run(identify_all(self._client, replicas, model=model, dialect=dialect, name=self.name))
        told = [identity.max_context for _, identity in found if identity.max_context is not None]
        self.served: Identity = replace(found[0][1], max_context=min(told, default=None))
        return [replica for replica, _ in found]

    def _loaded(self, tokenizer: Any) -> Any:
        if tokenizer is not None and not isinstance(tokenizer, str):
            return tokenizer
        names = [tokenizer] if tokenizer else [self.served.source, self.served.model]
        return load_tokenizer([each for each in dict.fromkeys(names) if each], engine=self.name)

    def _connect(self, replicas: Sequence[Replica], cache_salt: str) -> None:
        codec = TextCodec(self.tokenizer, eos_token_ids=end_token_ids(self.tokenizer), name=self.name)
        # Now, as answers may teach the codec of further tokens that end texts.
        self._tokenizer_hash = hashlib.sha256(codec.identity.encode()).hexdigest()[:16]
        self.max_context = self.served.max_context or 2**31
        self._codec = codec
        self._conversations = Conversations(codec, max_context=self.max_context, name=self.name)
        self._server = Server(self._client, self.served.dialect, self.served.model, codec.tokens_of, cache_salt)
        self._stays: dict[Context, Stay] = {}
        self.capabilities = self.channel.run(
            probe_all(
                self._server,
                replicas,
                prompt=codec.prompt_tokens(SAMPLE),
                sample=SAMPLE,
                sample_tokens=codec.encoded(SAMPLE),
                name=self.name,
            )
        )
        if self.capabilities.spells_alike is None:
            logger.warning(
                "The server of %s does not tell how it reads tokens: that the tokenizer given is that of the model was "
                "not checked.",
                self.name,
            )

    def report(self) -> list[ReportRow]:
        """What the server is and can do, as a table."""
        return report(self.served, self.capabilities)

    def shut_down(self) -> None:
        """Closes the connections and ends the thread that holds them, which also end with the process.

        An engine that was shut down answers nothing more.
        """
        self._is_shut_down = True
        self.channel.shut_down()

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name and source of the model, the kind of server and the tokenizer; no address and no secret."""
        return {
            "engine": "completions",
            "name": self.name,
            "model": self.served.model,
            "source": self.served.source,
            "dialect": self.served.dialect.name,
            "tokenizer": self._tokenizer_hash,
            "embeddings": repr(self.embeddings) if self.embeddings is not None else None,
        }

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations go through a template of the model's own; else they are put in lines."""
        return self._codec.has_chat_template

    def shown_to_model(self, request: Score) -> tuple[str, list[str]]:
        """What a judgement puts before the model: as text, special tokens included, and token by token."""
        return self._codec.spelled_out(self._codec.score_tokens(request))

    def check_tools(self) -> None:
        """Checks that the model can be offered tools.

        Raises:
            RainConfigError: it cannot; says why.
        """
        self._codec.check_tools()

    def open(self, prompt: str | Dialogue, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        """Begins a conversation.

        Raises:
            EngineError: the prompt is empty and the model cannot begin a text, prompt and answer exceed its context, or
                the engine was shut down.
        """
        if self._is_shut_down:
            raise EngineError(f"{self.name} was shut down; make another CompletionsEngine.", engine=self.name)
        return self._conversations.open(prompt, max_tokens=max_tokens, stop=stop)

    def reader(self, context: Context) -> AnswerReader:
        """Reads the answer of an open conversation."""
        return self._conversations.reader(context)

    def feeding(self, context: Context) -> Feeding:
        """Tells which texts go through the model, were nothing of them cached."""
        return self._conversations.feeding(context, has_encoder=True)

    async def answer(self, request: Request) -> Answered:
        """Answers one request; failures are returned, not raised."""
        cost = Cost()
        try:
            work = self._conversations.work(request)
            if isinstance(work, EmbedWork):
                await self._embed(work)
                return Answered(work.reply, cost)
            asked = ServerWork(self._server, self.capabilities, self._codec, self._stay_of(request.context))
            try:
                await asked.do(work)
            finally:
                cost = asked.cost
        except EngineError as error:
            error.request = error.request or type(request).__name__
            return Answered(error, cost)
        return Answered(work.reply, cost)

    async def aclose(self, context: Context) -> None:
        """Frees what a conversation holds."""
        self._conversations.close(context)
        stay = self._stays.pop(context, None)
        if stay is not None:
            self._client.replicas.leave(stay.home)

    def _stay_of(self, context: Context) -> Stay:
        if context not in self._stays:
            self._stays[context] = Stay(self._client.replicas.settle(), context.num_prompt_tokens)
        return self._stays[context]

    async def _embed(self, work: EmbedWork) -> None:
        if self.embeddings is None:
            raise EngineError(
                f"{self.name} is on a server, which gives no hidden states: similarity needs embeddings=, any of "
                'LangChain, or is off (RainConfig(similarity_scope="off", adds_children=False)).',
                engine=self.name,
            )
        text = self._codec.last_text(work.conversation, work.request.prefix, work.request.num_tokens)
        try:
            (work.reply,) = await asyncio.to_thread(embed_texts, self.embeddings, [text])
        except Exception as error:  # noqa: BLE001 - somebody else's encoder; who asked for it is told, the others go on
            work.reply = encoder_failure(error, engine=self.name)


def _checked_key(given: SecretStr | str | None) -> SecretStr | None:
    """The key as a secret; what a header cannot hold would be told with it by the error of another library."""
    key = given.get_secret_value() if isinstance(given, SecretStr) else given
    if key is None or key == "":
        return None
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or " " in key:
        raise RainConfigError(
            "api_key: a text of printable ASCII characters without spaces is allowed; the one given, which is not "
            "shown, is none. Does it have the end of a line?"
        )
    return SecretStr(key)


def _check_dialect(dialect: str | None) -> None:
    if dialect is not None and dialect not in DIALECTS:
        raise RainConfigError(f"dialect: {', '.join(map(repr, DIALECTS))} is allowed, given {dialect!r}.")


def _check_header(given: Any) -> None:
    if given != "" and not (isinstance(given, str) and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", given)):
        raise RainConfigError(f"session_header: the name of an HTTP header is allowed, given {given!r}.")


def _check_whole(least: int, **given: Any) -> None:
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise RainConfigError(f"{name}: a whole number from {least} on is allowed, given {value!r}.")


def _check_seconds(**given: Any) -> None:
    for name, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise RainConfigError(f"{name}: seconds, more than 0, are allowed, given {value!r}.")
