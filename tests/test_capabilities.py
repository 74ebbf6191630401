"""What is found out of a server by asking it, and what it cannot be searched without."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from langchain_rain.engines.capabilities import (
    NUMS_TOP,
    Capabilities,
    common,
    probe,
    probe_all,
)
from langchain_rain.engines.dialects import OPENAI, VLLM, Dialect, Sampling
from langchain_rain.engines.http_client import HttpClient
from langchain_rain.engines.replicas import Home, Replica, Replicas
from langchain_rain.engines.server import Server
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Tokens

SAMPLE, SAMPLE_TOKENS = " a text\n", (70, 71, 72)
VOCABULARY = range(40, 240)
NOTHING = -9999.0
"""What vLLM tells as the log probability of no token."""

LIKELY = -0.5
"""The log probability of the token that is drawn; a server tells it of the others as well."""


def tokens_of(text: str) -> Tokens:
    return tuple(map(ord, text))


@dataclass
class Scripted:
    """A server with switches.

    Attributes:
        dialect: vLLM or OpenAI-compatible.
        ignores: fields of a request that it does not know.
        max_top, max_stop, max_num: more is refused.
        caps_num: more continuations than that are not written, though not refused.
        is_seeded: whether the same seed draws the same.
        ends: whether it ends each text at once, and tells no token of it.
        cached: what it tells of its cache; None for nothing.
        bias_is_told: whether log probabilities are those after a constraint.
        spoils: whether it tells log probabilities of no token where several kinds of requests come at once.
        tempers: whether it tells log probabilities at the temperature of a request.
        paths: what else it has, by path.
        refuses: says why it refuses a request, or nothing.
    """

    dialect: Dialect = VLLM
    ignores: frozenset[str] = frozenset()
    max_top: int = 20
    max_stop: int = 100
    max_num: int = 100
    caps_num: int = 100
    is_seeded: bool = True
    ends: bool = False
    cached: int | None = None
    bias_is_told: bool = False
    spoils: bool = False
    tempers: bool = False
    paths: Mapping[str, Any] = field(default_factory=dict)
    refuses: Callable[[Mapping[str, Any]], str] = lambda body: ""
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        body = json.loads(request.content) if request.content else {}
        self.asked.append((path, body))
        if path in self.paths:
            told = self.paths[path]
            told = told(body) if callable(told) else told
            return httpx.Response(200, text=told) if isinstance(told, str) else httpx.Response(200, json=told)
        if path != self.dialect.path:
            return httpx.Response(404, json={"detail": "Not Found"})
        body = {name: value for name, value in body.items() if name not in self.ignores}
        for limit, given in (
            (self.max_top, body.get("logprobs", 0)),
            (self.max_stop, len(body.get("stop", ()))),
            (self.max_num, body["n"]),
        ):
            if given > limit:
                return httpx.Response(400, json={"error": {"message": f"{given} is more than {limit}"}})
        if reason := self.refuses(body):
            return httpx.Response(400, json={"error": {"message": reason}})
        return httpx.Response(200, json=self._completion(body))

    def _completion(self, body: Mapping[str, Any]) -> Any:
        num = min(body.get("n", 1), self.caps_num)
        details = {"prompt_tokens_details": {"cached_tokens": self.cached}} if self.cached is not None else {}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": num, **details}
        return {"choices": [self._choice(body) for _ in range(num)], "usage": usage}

    def _choice(self, body: Mapping[str, Any]) -> Any:
        if self.ends:
            return {"finish_reason": "stop", "logprobs": {"tokens": [], "token_logprobs": [], "top_logprobs": []}}
        name = "token_id:{}".format if self.dialect is VLLM else chr
        allowed = body.get("allowed_token_ids") or [int(token) for token in body.get("logit_bias", {})]
        token = allowed[0] if allowed else VOCABULARY[0] if self.is_seeded else VOCABULARY[len(self.asked)]
        likely = LIKELY * (body["temperature"] or 1.0) if self.tempers else LIKELY
        logprob = 0.0 if allowed and self.bias_is_told else likely
        top = dict.fromkeys(map(name, VOCABULARY[: body.get("logprobs", 0)]), likely)
        top |= dict.fromkeys(map(name, body.get("logprob_token_ids", ())), likely)
        if self.spoils and "logprob_token_ids" in body and body["max_tokens"] > 1:
            top |= {name(VOCABULARY[-1]): NOTHING}
        told = {"tokens": [name(token)], "token_logprobs": [logprob], "top_logprobs": [top]}
        return {"finish_reason": "length", "logprobs": told}


def with_client(server: Callable[[httpx.Request], httpx.Response], ask: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        client = HttpClient(
            Replicas([Replica("http://server")]), name="it", max_retries=0, transport=httpx.MockTransport(server)
        )
        try:
            return await ask(client, client.replicas.settle())
        finally:
            await client.aclose()

    return asyncio.run(run())


def probed(scripted: Scripted) -> Capabilities:
    async def ask(client: HttpClient, home: Home) -> Capabilities:
        server = Server(client, scripted.dialect, "demo", tokens_of)
        return await probe(server, home, prompt=(50, 51), sample=SAMPLE, sample_tokens=SAMPLE_TOKENS, name="the engine")

    capabilities = with_client(scripted, ask)
    assert isinstance(capabilities, Capabilities)
    return capabilities


# --- What it can do ----------------------------------------------------------------------------------------------


def test_of_a_server_that_can_do_all_all_is_found() -> None:
    texts = {"/generative_scoring": {"data": [{"score": 0.5}]}, "/detokenize": {"prompt": SAMPLE}}
    assert probed(Scripted(paths=texts, max_top=100, cached=3)) == Capabilities(
        max_num=16,
        has_seed=True,
        num_top=100,
        num_stop=32,
        options=("token ids", "pairs", "top", "single tokens"),
        tells_cached=True,
        has_prefix_cache=True,
        spells_alike=True,
        tells_tempered=False,
    )


def test_of_a_server_that_has_little_little_is_found() -> None:
    scripted = Scripted(OPENAI, ignores=frozenset({"logit_bias"}), max_top=5, caps_num=1, is_seeded=False)
    assert probed(scripted) == Capabilities(
        max_num=1,
        has_seed=False,
        num_top=5,
        num_stop=0,  # what it stops at is not shown
        options=("top",),
        tells_cached=False,
        has_prefix_cache=None,
        spells_alike=None,
        tells_tempered=False,
    )


@pytest.mark.parametrize(
    ("ignored", "options"),
    [
        (set(), ("token ids", "top", "single tokens")),
        ({"logprob_token_ids"}, ("top", "single tokens")),
        ({"allowed_token_ids"}, ("token ids", "top")),
        ({"logprob_token_ids", "allowed_token_ids"}, ("top",)),
    ],
)
def test_a_field_that_is_ignored_with_200_is_no_capability(ignored: set[str], options: tuple[str, ...]) -> None:
    assert probed(Scripted(ignores=frozenset(ignored))).options == options


@pytest.mark.parametrize("field_name", ["logprob_token_ids", "allowed_token_ids"])
def test_a_field_that_is_refused_is_no_capability(field_name: str) -> None:
    refusing = Scripted(refuses=lambda body: "unknown" if field_name in body else "")
    assert probed(refusing).options == probed(Scripted(ignores=frozenset({field_name}))).options


def test_log_probabilities_after_a_constraint_say_nothing_of_the_model() -> None:
    assert "single tokens" not in probed(Scripted(bias_is_told=True)).options


@pytest.mark.parametrize(
    ("limit", "num_top"), [(200, 100), (100, 100), (99, 20), (20, 20), (19, 5), (5, 5), (4, 1), (1, 1)]
)
def test_as_many_of_the_most_probable_tokens_as_a_server_tells_are_asked_for(limit: int, num_top: int) -> None:
    assert probed(Scripted(max_top=limit)).num_top == num_top
    assert num_top in NUMS_TOP


def test_one_token_alone_does_not_tell_two_options_apart() -> None:
    assert "top" not in probed(Scripted(max_top=1)).options


@pytest.mark.parametrize(("limit", "num_stop"), [(32, 32), (31, 4), (4, 4), (3, 1), (0, 0)])
def test_as_many_stop_texts_as_a_server_takes_are_given(limit: int, num_stop: int) -> None:
    assert probed(Scripted(max_stop=limit)).num_stop == num_stop


@pytest.mark.parametrize("kind", ["refused", "not written"])
@pytest.mark.parametrize(("limit", "max_num"), [(16, 16), (15, 8), (4, 4), (3, 2), (1, 1)])
def test_as_many_continuations_as_a_server_writes_are_asked_for(kind: str, limit: int, max_num: int) -> None:
    scripted = Scripted(max_num=limit) if kind == "refused" else Scripted(caps_num=limit)
    assert probed(scripted).max_num == max_num


@pytest.mark.parametrize(("is_seeded", "has_seed"), [(True, True), (False, False)])
def test_a_seed_is_kept_to_if_it_draws_the_same_twice(is_seeded: bool, has_seed: bool) -> None:
    assert probed(Scripted(is_seeded=is_seeded)).has_seed == has_seed


@pytest.mark.parametrize(
    ("hits", "has_cache"), [((0.0, 160.0), True), ((160.0, 160.0), False), ((1e3, 1.2e3), True), (None, None)]
)
def test_a_cache_shows_in_what_a_server_counts(hits: tuple[float, float] | None, has_cache: bool | None) -> None:
    def metrics(_: Any) -> str:
        assert hits is not None
        told.append("")
        return f'# HELP\nvllm:prefix_cache_hits_total{{engine="0"}} {hits[len(told) - 1]}\nvllm:other_total 7\n'

    told: list[str] = []
    assert probed(Scripted(paths={"/metrics": metrics} if hits else {})).has_prefix_cache == has_cache


@pytest.mark.parametrize("status", [401, 403, 503])
def test_counts_that_a_server_keeps_to_itself_are_not_told(status: int) -> None:
    scripted = Scripted()

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status) if request.url.path == "/metrics" else scripted(request)

    async def ask(client: HttpClient, home: Home) -> Any:
        return await Server(client, VLLM, "demo", tokens_of).num_cache_hits(home)

    assert with_client(handler, ask) is None


@pytest.mark.parametrize(("cached", "has_cache"), [(0, False), (7, True)])
def test_a_cache_shows_in_what_a_reply_tells(cached: int, has_cache: bool) -> None:
    capabilities = probed(Scripted(cached=cached))
    assert (capabilities.tells_cached, capabilities.has_prefix_cache) == (True, has_cache)


@pytest.mark.parametrize(
    ("told", "spells_alike"),
    [
        ({"prompt": SAMPLE}, True),
        ({"content": f" {SAMPLE}"}, True),  # some begin every text with a space
        ({"other": SAMPLE}, None),
        ("no JSON", None),
    ],
)
def test_tokens_are_compared_by_the_text_they_are_there(told: Any, spells_alike: bool | None) -> None:
    scripted = Scripted(paths={"/detokenize": told})
    assert probed(scripted).spells_alike is spells_alike
    assert ("/detokenize", {"model": "demo", "tokens": list(SAMPLE_TOKENS)}) in scripted.asked


def test_a_server_that_reads_tokens_otherwise_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(EngineError, match=r"http://server reads tokens otherwise .* model 'demo' as tokenizer="):
        probed(Scripted(paths={"/detokenize": {"text": "another"}}))


@pytest.mark.parametrize("tempers", [False, True])
def test_log_probabilities_at_the_temperature_of_a_request_are_noticed(tempers: bool) -> None:
    assert probed(Scripted(tempers=tempers)).tells_tempered is tempers


def test_of_several_servers_what_all_of_them_can_do_counts() -> None:
    servers = {"one": Scripted(max_top=100, cached=3), "two": Scripted(max_num=4, ignores=frozenset({"seed"}))}

    async def ask() -> tuple[Capabilities, list[int]]:
        replicas = Replicas([Replica(f"http://{name}") for name in servers])
        transport = httpx.MockTransport(lambda request: servers[request.url.host](request))
        client = HttpClient(replicas, name="it", max_retries=0, transport=transport)
        server = Server(client, VLLM, "demo", tokens_of)
        found = await probe_all(
            server, replicas.all, prompt=(50, 51), sample=SAMPLE, sample_tokens=SAMPLE_TOKENS, name="it"
        )
        await client.aclose()
        return found, [each.num_conversations for each in replicas.all]

    found, open_conversations = asyncio.run(ask())
    assert (found.max_num, found.num_top, found.tells_cached, found.has_prefix_cache) == (4, 20, False, None)
    assert found.options == ("token ids", "top", "single tokens")
    assert open_conversations == [0, 0]
    assert all(each.asked for each in servers.values())


def test_what_one_of_several_servers_does_not_tell_is_not_known() -> None:
    alike = Capabilities(4, True, 20, 4, ("pairs", "top"), True, True, True, False)
    assert common([alike]) == alike
    others = [
        replace(alike, has_seed=False, spells_alike=None),
        replace(alike, options=("top", "single tokens"), tells_tempered=True),
    ]
    assert common([alike, *others]) == Capabilities(4, False, 20, 4, ("top",), True, True, None, True)
    assert common([alike, replace(alike, has_prefix_cache=False), others[0]]).has_prefix_cache is False


def test_a_way_that_spoils_other_requests_is_not_gone() -> None:
    score = {"/generative_scoring": {"data": [{"score": 0.5}]}}
    assert probed(Scripted(paths=score)).options == ("token ids", "pairs", "top", "single tokens")
    assert probed(Scripted(paths=score, spoils=True)).options == ("top", "single tokens")


def test_log_probabilities_of_no_token_are_never_believed() -> None:
    async def ask(client: HttpClient, home: Home) -> Any:
        server = Server(client, VLLM, "demo", tokens_of)
        return await server.sampled(home, Sampling((50,), 4, num_top=1, told=(50, 51)))

    with pytest.raises(EngineError, match="it told log probabilities of no token") as caught:
        with_client(Scripted(spoils=True), ask)
    assert caught.value.is_retryable
    assert len(with_client(Scripted(), ask).continuations) == 1


# --- What it cannot do without -----------------------------------------------------------------------------------

HINT = r"ChatOpenAI\(base_url='http://server/v1'\), it can be given as `model` all the same"


def test_a_server_that_takes_no_token_ids_is_one_error_with_a_way_out() -> None:
    scripted = Scripted(OPENAI, refuses=lambda body: "prompt: must be a string")
    with pytest.raises(EngineError, match=HINT) as caught:
        probed(scripted)
    assert "does not go on from token ids as asked" in str(caught.value)
    assert "HTTP 400: prompt: must be a string" in str(caught.value)
    assert caught.value.engine == "the engine"
    assert len(scripted.asked) == 1


def test_a_server_that_tells_tokens_by_text_where_ids_are_wanted_is_one_too() -> None:
    async def ask(client: HttpClient, home: Home) -> None:
        server = Server(client, VLLM, "demo", tokens_of)
        await probe(server, home, prompt=(50,), sample=SAMPLE, sample_tokens=SAMPLE_TOKENS, name="it")

    with pytest.raises(EngineError, match=HINT):
        with_client(Scripted(OPENAI), ask)


def test_a_server_that_tells_no_log_probabilities_is_one_too() -> None:
    with pytest.raises(EngineError, match="no log probabilities of the most probable tokens"):
        probed(Scripted(max_top=1, refuses=lambda body: "no" if body["max_tokens"] == 1 else ""))
    with pytest.raises(EngineError, match="no log probabilities of a judgement's options"):
        probed(Scripted(OPENAI, max_top=1, ignores=frozenset({"logit_bias"})))


def test_a_server_that_ends_every_text_at_once_fails_by_an_error_of_ours() -> None:
    with pytest.raises(EngineError, match=HINT):
        probed(Scripted(OPENAI, ends=True))


def test_a_server_that_fails_in_between_is_no_server_without_the_capability() -> None:
    scripted = Scripted()

    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        return httpx.Response(503) if body.get("logprob_token_ids") else scripted(request)

    async def ask(client: HttpClient, home: Home) -> None:
        server = Server(client, VLLM, "demo", tokens_of)
        await probe(server, home, prompt=(50,), sample=SAMPLE, sample_tokens=SAMPLE_TOKENS, name="it")

    with pytest.raises(EngineError, match="HTTP 503") as caught:
        with_client(handler, ask)
    assert caught.value.is_retryable
