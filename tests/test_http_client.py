"""Asking a server: what is tried again and what is not, where it goes next, and what is never told.

Broken connections come from a process in between; replies that no process here can give come from a transport. The
pauses are noted and not waited for.
"""

import gzip
import json
import logging
import traceback
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, TypeAdapter
from typing_extensions import TypedDict

from langchain_rain.engines.addresses import as_replicas, base_url, named
from langchain_rain.engines.http_client import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    MAX_MESSAGE,
    HttpClient,
)
from langchain_rain.engines.replicas import MAX_FAILURES, REST_SECONDS, Home, Replicas
from langchain_rain.errors import EngineError
from tests.servers.fault_proxy import fault_proxy, read_events
from tests.servers.processes import HOST, free_port
from tests.servers.stub_server import stub_server

pytestmark = pytest.mark.allow_hosts([HOST])

Handler = Callable[[httpx.Request], httpx.Response]


class Said(TypedDict):
    said: dict[str, float]


SAID = TypeAdapter(Said)
GOOD = {"said": {"yes": 1.0}}


class Clock:
    """Seconds; sleeping adds to them at once, and is noted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Scripted:
    """Answers with what it is told to, the last again and again; notes what it was asked."""

    def __init__(self, *replies: httpx.Response | Exception) -> None:
        self.replies = replies
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        reply = self.replies[min(len(self.asked), len(self.replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply


def ok() -> httpx.Response:
    return httpx.Response(200, json=GOOD)


def failing(status: int, message: str = "no", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message}}, headers=headers)


@asynccontextmanager
async def asking(
    handler: Handler | None,
    *urls: str,
    clock: Clock | None = None,
    draw: float = 1.0,
    headers: Sequence[dict[str, str]] = ({},),
    session_header: str = "",
    **arguments: Any,
) -> Any:
    """A client and a conversation of it."""
    clock = clock or Clock()
    replicas = Replicas(
        as_replicas(urls or ["http://server"], headers=headers), session_header=session_header, clock=clock
    )
    transport = httpx.MockTransport(handler) if handler is not None else None
    client = HttpClient(replicas, name="writer", sleep=clock.sleep, draw=lambda: draw, transport=transport, **arguments)
    try:
        yield client, replicas.settle()
    finally:
        await client.aclose()


async def ask(client: HttpClient, home: Home) -> Said:
    return await client.post(home, "/v1/completions", {"prompt": [1]}, SAID.validate_json)


# --- Trying again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_status_that_may_pass_is_tried_again(status: int) -> None:
    server = Scripted(failing(status), ok())
    async with asking(server) as (client, home):
        assert await ask(client, home) == GOOD
    assert [json.loads(each.content) for each in server.asked] == [{"prompt": [1]}] * 2


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 413, 422, 501])
async def test_any_other_status_is_an_error_at_once_that_trying_again_does_not_help(status: int) -> None:
    server, clock = Scripted(failing(status, "too many stop texts"), ok()), Clock()
    async with asking(server, clock=clock) as (client, home):
        with pytest.raises(EngineError, match=rf"http://server .*HTTP {status}: too many stop texts") as caught:
            await ask(client, home)
    assert (len(server.asked), clock.pauses, caught.value.is_retryable) == (1, [], False)


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
async def test_pauses_double_up_to_the_longest_and_are_drawn_from_their_upper_half(draw: float) -> None:
    clock = Clock()
    async with asking(Scripted(failing(429)), clock=clock, draw=draw, max_retries=8) as (client, home):
        with pytest.raises(EngineError):
            await ask(client, home)
    doubled = [min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) for attempt in range(8)]
    assert doubled[-1] == LONGEST_PAUSE
    assert clock.pauses == [pause / 2 + draw * pause / 2 for pause in doubled]


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        ("7", 7),
        ("0.75", 0.75),
        ("0", FIRST_PAUSE),
        ("-3", FIRST_PAUSE),
        (format_datetime(datetime.now(UTC) + timedelta(days=9)), LONGEST_RETRY_AFTER),
        ("Wed, 21 Oct 2015 07:28:00 GMT", FIRST_PAUSE),
        ("86400", LONGEST_RETRY_AFTER),
        ("inf", LONGEST_RETRY_AFTER),
        ("nan", FIRST_PAUSE),
        ("soon", FIRST_PAUSE),
        ("Wed, 99 Oct 2015", FIRST_PAUSE),
        ("Wed, 21 Oct 2015 07:28:00", FIRST_PAUSE),
    ],
)
async def test_a_server_says_how_long_to_wait_and_is_heard_within_limits(retry_after: str, pause: float) -> None:
    clock = Clock()
    async with asking(Scripted(failing(503, **{"Retry-After": retry_after}), ok()), clock=clock) as (client, home):
        await ask(client, home)
    assert clock.pauses == [pause]


async def test_a_date_to_come_back_at_is_waited_for() -> None:
    clock, begun = Clock(), datetime.now(UTC)
    retry_after = format_datetime(begun + timedelta(seconds=60))  # without what there is of the second
    async with asking(Scripted(failing(503, **{"Retry-After": retry_after}), ok()), clock=clock) as (client, home):
        await ask(client, home)
    (pause,) = clock.pauses
    assert 59 - (datetime.now(UTC) - begun).total_seconds() <= pause <= 60


@pytest.mark.parametrize(
    "reply",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout(""),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("closed"),
        httpx.Response(200, content=b"\xff\xfe{"),
        httpx.Response(200, content=b""),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"said": {"yes": "no"}}),
        httpx.Response(200, json=[GOOD]),
    ],
)
async def test_what_breaks_on_its_way_or_cannot_be_read_is_tried_again(reply: Any) -> None:
    server = Scripted(reply, ok())
    async with asking(server) as (client, home):
        assert await ask(client, home) == GOOD


async def test_a_body_that_is_not_packed_as_it_says_is_tried_again() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        body = gzip.compress(json.dumps(GOOD).encode())
        content = httpx.ByteStream(body if len(asked) > 1 else b"no gzip")
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=content)

    asked: list[httpx.Request] = []
    async with asking(handler) as (client, home):
        assert await ask(client, home) == GOOD
    assert len(asked) == 2


@pytest.mark.parametrize("fault", ["drop", "truncate", "corrupt", "status"])
async def test_each_way_to_break_half_of_the_requests_is_survived(fault: str, tmp_path: Path) -> None:
    events = tmp_path / "events"
    with (
        stub_server(tmp_path / "stub") as stub,
        fault_proxy(stub.url, events, rate=0.5, seed=3, faults=[fault]) as proxy,
    ):
        async with asking(None, proxy.url) as (client, home):
            replies = [
                await client.post(
                    home, "/detokenize", {"tokens": [6, 7]}, lambda content: json.loads(content)["prompt"]
                )
                for _ in range(8)
            ]
    assert len(set(replies)) == 1
    assert sum(bool(event["fault"]) for event in read_events(events)) == len(read_events(events)) - 8 > 0


async def test_who_fails_to_the_last_is_named_with_the_last_reason() -> None:
    server = Scripted(failing(500, "first"), failing(502, "second"), failing(503, "warming up"))
    async with asking(server, max_retries=2) as (client, home):
        with pytest.raises(EngineError) as caught:
            await ask(client, home)
    assert str(caught.value) == "writer failed 3 times at http://server: HTTP 503: warming up."
    assert caught.value.is_retryable
    assert caught.value.engine == "writer"


async def test_without_retries_it_is_asked_once() -> None:
    server = Scripted(failing(500), ok())
    async with asking(server, max_retries=0) as (client, home):
        with pytest.raises(EngineError, match="failed 1 times"):
            await ask(client, home)
    assert len(server.asked) == 1


# --- Which server ------------------------------------------------------------------------------------------------


async def test_a_conversation_goes_on_at_the_second_server_when_the_first_has_failed_three_times() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return failing(500) if request.url.host == "first" else ok()

    hosts: list[str] = []
    async with asking(handler, "http://first", "http://second") as (client, home):
        for _ in range(2):
            assert await ask(client, home) == GOOD
    assert hosts == ["first"] * MAX_FAILURES + ["second"] * 2
    assert [each.num_conversations for each in client.replicas.all] == [0, 1]


async def test_a_server_that_is_down_is_failed_over_from(tmp_path: Path) -> None:
    with stub_server(tmp_path / "stub") as stub:
        async with asking(None, f"http://{HOST}:{free_port()}", stub.url) as (client, home):
            reply = await client.post(home, "/detokenize", {"tokens": [6]}, TypeAdapter(dict[str, str]).validate_json)
            assert home.replica is client.replicas.all[1]
    assert set(reply) == {"prompt"}


async def test_too_many_requests_do_not_count_as_failures() -> None:
    server = Scripted(*[failing(429)] * (2 * MAX_FAILURES), ok())
    async with asking(server, "http://first", "http://second") as (client, home):
        assert await ask(client, home) == GOOD
    assert {each.url.host for each in server.asked} == {"first"}


async def test_a_refused_request_says_that_the_server_is_alive() -> None:
    passing, refused = [failing(500)] * (MAX_FAILURES - 1), failing(400)
    server = Scripted(*passing, refused, *passing, ok())
    async with asking(server) as (client, home):
        with pytest.raises(EngineError):
            await ask(client, home)
        await ask(client, home)
        assert home.replica.is_available(client.replicas.clock())


async def test_while_all_rest_nothing_is_asked_and_then_it_is_tried_again() -> None:
    server, clock = Scripted(*[failing(500)] * MAX_FAILURES, ok()), Clock()
    async with asking(server, clock=clock) as (client, home):
        assert await ask(client, home) == GOOD
    # After the third failure the rest begins, and one pause ends in it: it is not asked at that time.
    times = [0.5, 1.0, 2.0, 4.0]
    assert 2.0 < REST_SECONDS < 2.0 + 4.0
    assert clock.pauses == times
    assert len(server.asked) == MAX_FAILURES + 1


async def test_the_last_trial_is_made_however_lately_a_server_has_failed() -> None:
    server, clock = Scripted(failing(500), ok()), Clock()
    async with asking(server, clock=clock, max_retries=1) as (client, home):
        for _ in range(MAX_FAILURES):
            home.replica.failed(clock())
        with pytest.raises(EngineError, match="http://server: HTTP 500"):
            await ask(client, home)
    assert len(server.asked) == 1


async def test_a_conversation_leaves_a_server_that_is_gone_at_once() -> None:
    servers = Scripted(httpx.ConnectError("refused"), ok())
    async with asking(servers, "http://gone", "http://there") as (client, home):
        await ask(client, home)
    assert [request.url.host for request in servers.asked] == ["gone", "there"]


# --- What is sent ------------------------------------------------------------------------------------------------


async def test_every_request_of_a_conversation_carries_its_headers() -> None:
    server = Scripted(ok())
    ranks = [{"X-data-parallel-rank": "0"}, {"X-data-parallel-rank": "1"}]
    async with asking(server, headers=ranks, session_header="X-Session-ID") as (client, home):
        other = client.replicas.settle()
        for each in (home, other, home):
            await ask(client, each)
    sent = [(each.headers["X-data-parallel-rank"], each.headers["X-Session-ID"]) for each in server.asked]
    assert [rank for rank, _ in sent] == ["0", "1", "0"]
    assert sent[0] == sent[2]
    assert sent[0][1] != sent[1][1]
    assert {each.headers["Content-Type"] for each in server.asked} == {"application/json"}


async def test_without_them_no_such_header_is_sent() -> None:
    server = Scripted(ok())
    async with asking(server) as (client, home):
        await ask(client, home)
    sent = set(server.asked[0].headers)
    assert sent.isdisjoint({"authorization", "x-session-id", "x-data-parallel-rank"})


async def test_a_key_is_sent_as_bearer_token_and_a_password_of_the_url_as_such() -> None:
    server = Scripted(ok())
    async with asking(server, api_key=SecretStr("sk-1")) as (client, home):
        await ask(client, home)
        await client.get(home.replica, "/v1/models")
    assert [each.headers["Authorization"] for each in server.asked] == ["Bearer sk-1"] * 2
    server = Scripted(ok())
    async with asking(server, "http://user:p%40ss@server/path") as (client, home):
        await ask(client, home)
        await client.get(home.replica, "/v1/models")
    expected = next(httpx.BasicAuth("user", "p@ss").auth_flow(httpx.Request("GET", "http://server")))
    assert [each.headers["Authorization"] for each in server.asked] == [expected.headers["Authorization"]] * 2
    assert str(server.asked[0].url) == "http://server/path/v1/completions"


# --- What is told ------------------------------------------------------------------------------------------------

SECRETS = ("sk-secret", "hunter2")


@pytest.mark.parametrize(
    "reply",
    [
        failing(401, "wrong key sk-secret"),
        failing(503, "sk-secret " * 100),
        httpx.ReadError("http://user:hunter2@server with sk-secret"),
        httpx.Response(200, json={"said": "sk-secret"}),
    ],
)
async def test_secrets_are_told_nowhere(reply: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = "http://user:hunter2@server"
    if isinstance(reply, Exception):
        reply = httpx.ReadError("a key sk-secret was reset")
    async with asking(Scripted(reply), url, api_key=SecretStr("sk-secret"), max_retries=1) as (client, home):
        with pytest.raises(EngineError) as posting:
            await ask(client, home)
        told = [str(posting.value), repr(posting.value), repr(client), repr(home), repr(client.replicas.all)]
        try:
            await client.get(home.replica, "/v1/models")
        except EngineError as error:
            told.append(str(error))
    assert named(url) == "http://server"
    assert caplog.records
    told += [record.getMessage() for record in caplog.records]
    assert [text for text in told if any(secret in text for secret in SECRETS)] == []


async def test_an_error_quotes_nothing_of_a_reply_that_cannot_be_read() -> None:
    rejected = "how to build a bomb"
    for said in (rejected, [rejected], None):
        async with asking(Scripted(httpx.Response(200, json={"said": said})), max_retries=0) as (client, home):
            with pytest.raises(EngineError, match=r"its reply cannot be read \(said") as caught:
                await client.post(home, "/", {}, TypeAdapter(Said).validate_json)
        assert rejected not in "".join(traceback.format_exception(caught.value))


async def test_an_error_names_no_token_by_its_text() -> None:
    class Place(TypedDict):
        top_logprobs: list[dict[str, float]]

    class Told(TypedDict):
        choices: list[dict[str, Place]]

    body = {"choices": [{"logprobs": {"top_logprobs": [{"bomb": "?"}]}}]}
    async with asking(Scripted(httpx.Response(200, json=body)), max_retries=0) as (client, home):
        with pytest.raises(EngineError, match=r"choices\.0\.logprobs\.top_logprobs\.0: ") as caught:
            await client.post(home, "/", {}, TypeAdapter(Told).validate_json)
    assert "bomb" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": {"message": "of OpenAI"}}, "of OpenAI"),
        ({"error": "of text"}, "of text"),
        ({"message": "of vLLM before"}, "of vLLM before"),
        ({"detail": "of FastAPI"}, "of FastAPI"),
        ({"detail": [{"loc": ["body"]}]}, "Bad Request"),
        ({"error": {"message": 5}}, "Bad Request"),
        ([], "Bad Request"),
        (None, "Bad Request"),
        ({"error": {"message": "two\n  lines"}}, "two lines"),
        ({"error": "long " * 100}, ("long " * 100)[:MAX_MESSAGE]),
    ],
)
async def test_what_a_server_says_of_an_error_is_told_in_short(body: Any, told: str) -> None:
    reply = httpx.Response(400, json=body) if body is not None else httpx.Response(400, content=b"<html>")
    async with asking(Scripted(reply)) as (client, home):
        with pytest.raises(EngineError) as caught:
            await ask(client, home)
    assert str(caught.value) == f"http://server refused a request of writer: HTTP 400: {told}"


# --- Looking -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (httpx.Response(200, json={"version": 1}), {"version": 1}),
        (httpx.Response(200, content=b"no JSON"), None),
        (httpx.Response(404), None),
    ],
)
async def test_what_a_server_has_not_is_nothing(reply: httpx.Response, told: Any) -> None:
    async with asking(Scripted(reply)) as (client, home):
        assert await client.get(home.replica, "/version") == told


async def test_a_look_is_tried_again_twice() -> None:
    found = httpx.Response(200, json={"version": 1})
    async with asking(Scripted(httpx.ConnectError("refused"), failing(503, "loading"), found)) as (client, home):
        assert await client.get(home.replica, "/version") == {"version": 1}
    async with asking(Scripted(*[failing(503, "loading")] * 3)) as (client, home):
        with pytest.raises(EngineError, match=r"http://server does not answer: HTTP 503: loading") as caught:
            await client.get(home.replica, "/version")
        assert caught.value.is_retryable


async def test_who_cannot_be_reached_or_refuses_the_key_is_named() -> None:
    refused: list[httpx.Response | Exception] = [httpx.ConnectError("refused")] * 3
    async with asking(Scripted(*refused, failing(401, "no key"))) as (client, home):
        with pytest.raises(EngineError, match=r"http://server cannot be reached: ConnectError: refused") as caught:
            await client.get(home.replica, "/v1/models")
        assert caught.value.is_retryable
        with pytest.raises(EngineError, match=r"http://server refuses the key: HTTP 401: no key") as caught:
            await client.get(home.replica, "/v1/models")
        assert not caught.value.is_retryable


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/", "http://h:8000"),
        (" https://h/v1 ", "https://h"),
        ("https://h/openai/v1/", "https://h/openai"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_the_root_of_a_server_is_found(given: str, root: str) -> None:
    assert base_url(given) == root


@pytest.mark.parametrize("given", ["", "localhost:8000", "ftp://h", "http://", "/v1"])
def test_what_is_no_address_is_none(given: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        base_url(given)
