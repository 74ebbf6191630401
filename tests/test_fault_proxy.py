"""The proxy that breaks requests does so as told, and always the same ones."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.fault_proxy import STATUSES, fault_proxy, read_events
from tests.servers.processes import HOST, ServerProcess
from tests.servers.stub_server import stub_server

pytestmark = pytest.mark.allow_hosts([HOST])


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stub_server(tmp_path_factory.mktemp("stub") / "log") as server:
        yield server


def _ask(server: ServerProcess, num: int = 1) -> list[Any]:
    """Replies over one connection for as long as it lasts: status and body, or the error."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    replies: list[Any] = []
    for _ in range(num):
        try:
            connection.request("POST", "/tokenize", json.dumps({"prompt": "wash the bike"}))
            response = connection.getresponse()
            replies.append((response.status, response.read()))
        except (OSError, http.client.HTTPException) as error:
            replies.append(type(error))
            connection.close()  # the next request opens it again
    connection.close()
    return replies


def test_without_faults_the_proxy_answers_what_its_target_does(stub: ServerProcess, tmp_path: Path) -> None:
    with fault_proxy(stub.url, tmp_path / "events", rate=0) as proxy:
        assert _ask(proxy, 3) == _ask(stub, 3)
    assert [event["number"] for event in read_events(tmp_path / "events")] == [0, 1, 2]


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_seed_breaks_the_same_requests_in_the_same_way(stub: ServerProcess, tmp_path: Path, rate: float) -> None:
    replies = []
    for name in ("first", "second"):
        with fault_proxy(stub.url, tmp_path / name, rate=rate, seed=7, delay=0) as proxy:
            replies.append([*_ask(proxy, 10), *_ask(proxy, 10)])
    events = read_events(tmp_path / "first")
    assert replies[0] == replies[1]
    assert events == read_events(tmp_path / "second")
    assert all(event["fault"] for event in events) == (rate == 1.0)


def test_each_fault_breaks_a_reply_in_its_way(stub: ServerProcess, tmp_path: Path) -> None:
    (intact,) = _ask(stub)
    broken: dict[str, set[Any]] = {}
    for fault in ("drop", "delay", "truncate", "corrupt", "status"):
        with fault_proxy(stub.url, tmp_path / fault, rate=1, faults=[fault], delay=0) as proxy:
            broken[fault] = set(_ask(proxy, 20))
    assert broken["drop"] == {http.client.RemoteDisconnected}
    assert broken["delay"] == {intact}
    assert broken["truncate"] == {http.client.IncompleteRead}
    assert {status for status, _ in broken["status"]} == set(STATUSES)
    no_json, no_tokens = sorted((body for _, body in broken["corrupt"]), reverse=True)
    with pytest.raises(ValueError, match="utf-8"):
        json.loads(no_json)
    assert json.loads(no_tokens).keys() == json.loads(intact[1]).keys() - {"tokens"}


def test_the_stub_ends_its_sentence_and_tells_that_the_first_option_is_probable(stub: ServerProcess) -> None:
    def complete(**asked: Any) -> Any:
        connection = http.client.HTTPConnection(HOST, stub.port, timeout=10)
        connection.request("POST", "/v1/completions", json.dumps({"model": "demo", **asked}))
        reply = json.load(connection.getresponse())
        connection.close()
        return reply["choices"]

    begun, other = complete(prompt=[1, 4], n=2, max_tokens=3, return_token_ids=True)
    assert begun["text"] != other["text"]
    assert begun["finish_reason"] == "length"
    (ended,) = complete(prompt=[1, 4, *begun["token_ids"]], max_tokens=30, return_token_ids=True)
    assert ended["text"].endswith(".")
    assert ended["token_ids"][-1] == 2
    assert ended["finish_reason"] == "stop"
    asked = {"max_tokens": 1, "logprobs": 2, "logprob_token_ids": [38, 39], "return_tokens_as_token_ids": True}
    (judged,) = complete(prompt=[1, 4], **asked)
    (options,) = judged["logprobs"]["top_logprobs"]
    assert list(options) == ["token_id:38", "token_id:39"]
    assert options["token_id:38"] > options["token_id:39"]
