"""Asking a server over HTTP: what may pass is tried again, what cannot is an error at once, secrets stay out of it.

Tried again, after a pause that grows and honours `Retry-After`: broken connections, timeouts, the statuses 429, 500,
502, 503 and 504, and replies that cannot be read. Not tried again: any other status, as it would be the same again.
"""

import asyncio
import email.utils
import itertools
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr, ValidationError

from langchain_rain.engines.addresses import named
from langchain_rain.engines.replicas import Home, Replica, Replicas
from langchain_rain.errors import EngineError

T = TypeVar("T")

logger = logging.getLogger(__name__)

PASSING_STATUSES = frozenset({429, 500, 502, 503, 504})

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first trial after a failure, doubled with each; drawn from the upper half, so that not all come
at once."""

NUM_GETS = 3
"""How often a server is asked what it is before that counts as failed: who makes an engine waits for it."""

LONGEST_RETRY_AFTER = 120.0
"""Seconds that a server may make wait."""

NUM_POOLS = 64
"""Pools of connections: for each request httpx looks through all connections of a pool, and for each idle one through
all again, so that a pool of some hundred takes longer than all else."""

MAX_IN_POOL = 2
"""Requests that a pool has under way before the next pool is begun; so few requests keep few connections alive."""

KEEPALIVE_SECONDS = 60.0
"""How long an idle connection is kept; by itself httpx drops it after 5, and a judgement may take longer."""

JSON = {"Content-Type": "application/json"}

MAX_DEPTH = 5
"""How deep in a reply it is told where something is wrong: below there are tokens, by their texts."""

MAX_MESSAGE = 300
"""Characters that are told of what a server says of an error."""


class PassingError(Exception):
    """What may pass: tried again.

    Attributes:
        retry_after: seconds to wait at least.
        is_of_server: whether it speaks against the server.
        is_gone: whether nobody was there at all.
    """

    def __init__(
        self, reason: str, *, retry_after: float = 0.0, is_of_server: bool = True, is_gone: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.is_of_server = is_of_server
        self.is_gone = is_gone


class HttpClient:
    """Asks the servers of one model.

    Args:
        replicas: the servers.
        name: names the engine in errors.
        api_key: sent as bearer token.
        timeout: how long a server may take; None for as long as it does.
        max_retries: how often a request is tried again.
        sleep: waits between two trials.
        draw: draws from [0, 1) for the pauses.
        transport: carries the requests; None for the network.
    """

    def __init__(
        self,
        replicas: Replicas,
        *,
        name: str,
        api_key: SecretStr | None = None,
        timeout: httpx.Timeout | None = None,
        max_retries: int = 8,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.replicas = replicas
        self.name = name
        self._api_key = api_key
        self._max_retries = max_retries
        self._sleep = sleep
        self._draw = draw
        verify = httpx.create_ssl_context()  # takes longer to make than all the rest
        self._pools = [
            httpx.AsyncClient(
                headers={"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key is not None else {},
                timeout=timeout,
                limits=httpx.Limits(max_keepalive_connections=2 * MAX_IN_POOL, keepalive_expiry=KEEPALIVE_SECONDS),
                transport=transport,
                verify=verify,
            )
            for _ in range(NUM_POOLS if transport is None else 1)
        ]
        self._client = self._pools[0]
        self._num_under_way = [0] * len(self._pools)

    async def aclose(self) -> None:
        """Closes the connections."""
        for pool in self._pools:
            await pool.aclose()

    async def get(self, replica: Replica, path: str) -> Any:
        """What a server says at `path`, as JSON; None if it has nothing there. Tried again a little, not for long.

        Raises:
            EngineError: it cannot be reached.
        """
        for attempt in itertools.count(1):
            try:
                text = await self.get_text(replica, path)
            except EngineError as error:
                if attempt == NUM_GETS or not error.is_retryable:
                    raise
                await self._sleep(self._pause(attempt))
            else:
                break
        try:
            return json.loads(text) if text is not None else None
        except ValueError:
            return None

    async def get_text(self, replica: Replica, path: str) -> str | None:
        """What a server says at `path`; None if it has nothing there.

        Raises:
            EngineError: it cannot be reached.
        """
        try:
            response = await self._client.get(replica.url + path, headers=replica.headers)
        except httpx.RequestError as error:
            raise EngineError(
                f"{named(replica.url)} cannot be reached: {self._said(_reason(error))}. Is the server running there?",
                engine=self.name,
                is_retryable=True,
            ) from error
        if response.status_code in PASSING_STATUSES:
            raise EngineError(
                f"{named(replica.url)} does not answer: HTTP {response.status_code}: {self._said(_message(response))}",
                engine=self.name,
                is_retryable=True,
            )
        if response.status_code in (401, 403):
            raise EngineError(
                f"{named(replica.url)} refuses the key: HTTP {response.status_code}: {self._said(_message(response))}",
                engine=self.name,
            )
        return response.text if response.is_success else None

    async def post(self, home: Home, path: str, body: Mapping[str, Any], read: Callable[[bytes], T]) -> T:
        """What `read` makes of the reply to `body`.

        Raises:
            EngineError: the server refuses the request, or has failed too often.
        """
        content = json.dumps(body).encode()
        reason: PassingError | None = None
        for attempt in range(self._max_retries + 1):
            retry_after = 0.0
            replica = self.replicas.ask(home)
            if replica is None and attempt == self._max_retries:
                replica = home.replica  # however lately it has failed, the last trial is made
            if replica is not None:
                try:
                    return await self._try(replica, path, content, {**JSON, **home.headers, **replica.headers}, read)
                except PassingError as failure:
                    reason, retry_after = failure, failure.retry_after
                    logger.debug("%s: %s", named(replica.url), failure)
            if attempt < self._max_retries:
                await self._sleep(max(retry_after, self._pause(attempt)))
        raise EngineError(
            f"{self.name} failed {self._max_retries + 1} times at {named(home.replica.url)}: {reason}.",
            engine=self.name,
            is_retryable=True,
        ) from reason

    def _pause(self, attempt: int) -> float:
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)) * (1 + self._draw()) / 2

    async def _try(
        self, replica: Replica, path: str, content: bytes, headers: Mapping[str, str], read: Callable[[bytes], T]
    ) -> T:
        try:
            try:
                response = await self._send(replica.url + path, content, headers)
            except httpx.RequestError as error:
                is_gone = isinstance(error, httpx.ConnectError)
                raise PassingError(self._said(_reason(error)), is_gone=is_gone) from error
            self._check(response, replica)
            try:
                result = read(response.content)
            except (ValidationError, ValueError, LookupError) as error:
                # Without its cause, which tracebacks would show with the text of the reply.
                raise PassingError(f"its reply cannot be read ({_problem(error)})") from None
        except PassingError as failure:
            if failure.is_of_server:
                replica.failed(self.replicas.clock(), is_gone=failure.is_gone)
            raise
        replica.succeeded()
        return result

    async def _send(self, url: str, content: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Posts by the first pool that has room, else by the one that has the least to do."""
        free = (number for number, count in enumerate(self._num_under_way) if count < MAX_IN_POOL)
        number = next(free, None)
        if number is None:
            number = self._num_under_way.index(min(self._num_under_way))
        self._num_under_way[number] += 1
        try:
            return await self._pools[number].post(url, content=content, headers=headers)
        finally:
            self._num_under_way[number] -= 1

    def _check(self, response: httpx.Response, replica: Replica) -> None:
        if response.is_success:
            return
        told = f"HTTP {response.status_code}: {self._said(_message(response))}"
        if response.status_code in PASSING_STATUSES:
            retry_after = _retry_after(response.headers.get("Retry-After"))
            # Who answers "too many requests" is alive.
            raise PassingError(told, retry_after=retry_after, is_of_server=response.status_code != 429)
        replica.succeeded()
        raise EngineError(f"{named(replica.url)} refused a request of {self.name}: {told}", engine=self.name)

    def _said(self, text: str) -> str:
        """What a server says, in short, without the secret."""
        if self._api_key is not None and self._api_key.get_secret_value():
            text = text.replace(self._api_key.get_secret_value(), "**********")
        return " ".join(text.split())[:MAX_MESSAGE]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _problem(error: Exception) -> str:
    """What is wrong with a reply, without what it says: it may be text that is rejected."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc'][:MAX_DEPTH]))}: {first['msg']}"
    return type(error).__name__


def _message(response: httpx.Response) -> str:
    """What the body of an error says, in the form of OpenAI, FastAPI or none."""
    try:
        body = response.json()
    except ValueError:
        return response.reason_phrase
    for part in (body.get("error"), body.get("message"), body.get("detail")) if isinstance(body, dict) else ():
        message = part.get("message") if isinstance(part, dict) else part
        if isinstance(message, str) and message:
            return message
    return response.reason_phrase


def _retry_after(header: str | None) -> float:
    """Seconds to wait by a header `Retry-After`: a number of seconds, or a date."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER) if seconds == seconds else 0.0  # noqa: PLR0124 - not a number
