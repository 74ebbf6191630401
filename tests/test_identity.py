"""What a server says of itself, and what is told of it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from langchain_rain.engines.capabilities import Capabilities
from langchain_rain.engines.dialects import DIALECTS, OPENAI, VLLM
from langchain_rain.engines.http_client import HttpClient
from langchain_rain.engines.identity import Identity, identify_all
from langchain_rain.engines.replicas import Replica, Replicas
from langchain_rain.engines.server_report import ReportRow, report
from langchain_rain.errors import EngineError


def identified_all(*servers: Callable[[str], httpx.Response], **given: Any) -> list[tuple[str, Identity]]:
    """What is found at several servers, each of which replies to a path."""

    def handler(request: httpx.Request) -> httpx.Response:
        return servers[int(request.url.host)](request.url.path)

    async def ask() -> list[tuple[str, Identity]]:
        replicas = Replicas([Replica(f"http://{number}") for number in range(len(servers))])
        client = HttpClient(replicas, name="it", sleep=no_time, transport=httpx.MockTransport(handler))
        arguments = {"model": "", "dialect": None, "name": "it", **given}
        try:
            return [(each.url, told) for each, told in await identify_all(client, replicas.all, **arguments)]
        finally:
            await client.aclose()

    return asyncio.run(ask())


def having(paths: Mapping[str, Any]) -> Callable[[str], httpx.Response]:
    def reply(path: str) -> httpx.Response:
        told = paths.get(path)
        if told is None:
            return httpx.Response(404, json={"detail": "Not Found"})
        return httpx.Response(200, text=told) if isinstance(told, str) else httpx.Response(200, json=told)

    return reply


def identified(paths: Mapping[str, Any], **given: Any) -> Identity:
    ((_, told),) = identified_all(having(paths), **given)
    return told


async def no_time(seconds: float) -> None:
    pass


def listing(*models: Any) -> dict[str, Any]:
    return {"/v1/models": {"object": "list", "data": list(models)}}


ONE = {"id": "demo", "owned_by": "somebody"}


@pytest.mark.parametrize(
    ("paths", "dialect"),
    [
        (listing({**ONE, "owned_by": "vllm"}) | {"/version": {"version": "0.32.0"}}, "vllm"),
        (listing({**ONE, "owned_by": "vllm"}), "openai"),
        (listing({**ONE, "owned_by": "llamacpp"}), "llama-server"),
        (listing(ONE) | {"/props": {"default_generation_settings": {"n_ctx": 512}}}, "llama-server"),
        (listing({**ONE, "owned_by": "sglang"}), "sglang"),
        (listing(ONE) | {"/get_model_info": {"model_path": "/models/demo"}}, "sglang"),
        (listing(ONE), "openai"),
        (listing(ONE) | {"/version": [1], "/props": "no JSON"}, "openai"),
    ],
)
def test_a_server_is_known_by_what_it_says_of_itself(paths: dict[str, Any], dialect: str) -> None:
    assert identified(paths).dialect is DIALECTS[dialect]


def test_a_dialect_that_is_given_is_not_looked_for() -> None:
    assert identified(listing({**ONE, "owned_by": "llamacpp"}), dialect="openai").dialect is OPENAI


def test_what_a_server_tells_of_its_model_is_kept() -> None:
    vllm = listing({"id": "demo", "owned_by": "vllm", "root": "/models/demo", "max_model_len": 4096})
    assert identified(vllm | {"/version": {"version": "0.32.0"}}) == Identity(
        VLLM, "0.32.0", "demo", "/models/demo", 4096
    )
    props = {"default_generation_settings": {"n_ctx": 512}, "model_path": "/m.gguf", "build_info": "b1"}
    found = identified(listing(ONE) | {"/props": props})
    assert (found.version, found.source, found.max_context) == ("b1", "/m.gguf", 512)
    found = identified(listing(ONE))
    assert (found.version, found.source, found.max_context) == ("", "", None)


TWO = listing({"id": "one"}, {"id": "two"})


def test_of_several_models_one_is_chosen_by_name() -> None:
    assert identified(TWO, model="two").model == "two"
    for model in ("", "three"):
        with pytest.raises(EngineError, match=f"serves 'one', 'two'; one of these is allowed .* given '{model}'"):
            identified(TWO, model=model)
    with pytest.raises(EngineError, match=r"http://0 serves 'demo'; one of these is allowed"):
        identified(listing(ONE), model="other")


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"data": []},
        {"data": None},
        {"data": ["demo"]},
        {"data": 5},
        {"data": [{"object": "model"}]},
        [ONE],
        "no JSON",
    ],
)
def test_what_lists_no_models_is_perhaps_no_inference_server(told: Any) -> None:
    with pytest.raises(EngineError, match="lists no models at /v1/models"):
        identified({"/v1/models": told})


# --- Several ------------------------------------------------------------------------------------------------------


def down(path: str) -> httpx.Response:
    raise httpx.ConnectError("refused")


SERVING = having(listing(ONE))


def test_all_servers_that_can_be_reached_are_looked_at_and_the_others_named(caplog: pytest.LogCaptureFixture) -> None:
    found = identified_all(SERVING, SERVING, dialect="openai")
    assert [url for url, _ in found] == ["http://0", "http://1"]
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert [url for url, _ in identified_all(down, SERVING, dialect="openai")] == ["http://1"]
    (told,) = caplog.messages
    assert "One of the servers of it was not looked at: http://0 cannot be reached" in told


def test_if_none_answers_the_first_is_named_and_a_wrong_key_is_no_matter_of_the_next() -> None:
    with pytest.raises(EngineError, match="http://0 cannot be reached"):
        identified_all(down, down)
    with pytest.raises(EngineError, match="http://0 refuses the key"):
        identified_all(lambda path: httpx.Response(401), SERVING)


@pytest.mark.parametrize(
    "other", [listing({**ONE, "id": "other"}), listing({**ONE, "owned_by": "llamacpp"})], ids=["model", "dialect"]
)
def test_servers_of_different_models_are_no_replicas(other: dict[str, Any]) -> None:
    with pytest.raises(
        EngineError, match=r"http://0 serves 'demo' by OpenAI-compatible, http://1 '.*' by .*; replicas"
    ):
        identified_all(SERVING, having(other))


# --- For people --------------------------------------------------------------------------------------------------


def test_a_report_tells_what_is_and_what_it_is_for() -> None:
    identity = Identity(DIALECTS["sglang"], "", "demo", "/models/demo", None)
    capabilities = Capabilities(4, True, 20, 4, ("pairs", "top"), True, None, True, False)
    rows = {row.name: row for row in report(identity, capabilities)}
    assert rows["server"].value == "SGLang, untested: by its documentation"
    assert rows["model"] == ReportRow("model", "model", "demo", "what it serves, from /models/demo")
    assert rows["options of a judgement"].value == ["pairs", "top"]
    told = [rows[name].value for name in ("context", "seed", "prefix cache", "stop texts", "most probable tokens")]
    assert told == [None, True, None, 4, 20]
    assert {row.name: row for row in report(Identity(VLLM, "1", "m", "", 9), capabilities)}["server"].value == "vLLM 1"
