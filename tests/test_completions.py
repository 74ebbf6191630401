"""The engine of a model on a server, over a process without a model: chains, failures, ends, the command line."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from pydantic import SecretStr

from langchain_rain import ChatRain, EngineError, RainConfig, RainConfigError, RainLLM, cli
from langchain_rain.engines.completions import CompletionsEngine
from langchain_rain.engines.loading import demo_model_path
from langchain_rain.engines.tokenizers import end_token_ids, load_tokenizer
from langchain_rain.search.protocol import Context, Embed, Expand, Rollout, Score, TokenSet
from tests.servers.fault_proxy import fault_proxy, read_events
from tests.servers.processes import HOST, MODEL_FOLDER, ServerProcess, free_port
from tests.servers.stub_server import stub_server
from tests.tiny_models import UNTRIED, tiny_tokenizer

pytestmark = pytest.mark.allow_hosts([HOST])

PROMPT = "Human: How do I wash the bike?\n\nAssistant:"
FEW = RainConfig(max_simulations=6)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stub_server(tmp_path_factory.mktemp("stub") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer([str(MODEL_FOLDER)], engine="demo")


@pytest.fixture
def engine(stub: ServerProcess, tokenizer: Any) -> Iterator[CompletionsEngine]:
    engine = CompletionsEngine(stub.url, tokenizer=tokenizer)
    yield engine
    shut_down(engine)


def shut_down(engine: CompletionsEngine) -> None:
    """Ends an engine and waits for its thread."""
    thread = thread_of(engine)
    engine.shut_down()
    thread.join(timeout=30)
    assert not thread.is_alive()


def thread_of(engine: CompletionsEngine) -> threading.Thread:
    async def current() -> threading.Thread:
        return threading.current_thread()

    return engine.channel.run(current())


def liking(transcript: str) -> float:
    return 1.0


def mixed(transcript: str) -> float:
    """Some are better than others, so that there is something to search for."""
    return 1.0 if "cold" in transcript or "warm" in transcript else -1.0


def answering(engine: CompletionsEngine, **arguments: Any) -> RainLLM:
    settings = {"judge": mixed, "rubric": UNTRIED, "seed": 5, "max_tokens": 12, "on_unsatisfied": "best", **arguments}
    return RainLLM(model=engine, config=FEW, **settings)


def answer(engine: CompletionsEngine, request: Any) -> Any:
    return engine.channel.run(engine.answer(request)).reply


# --- Chains ------------------------------------------------------------------------------------------------------


def test_invoke_and_ainvoke_and_stream_and_batch_are_the_same_answer(engine: CompletionsEngine) -> None:
    llm = answering(engine)
    told = llm.invoke(PROMPT)
    assert told.endswith(".")
    assert asyncio.run(llm.ainvoke(PROMPT)) == told
    assert "".join(llm.stream(PROMPT)) == told
    assert llm.batch([PROMPT, PROMPT]) == [told, told]
    assert {llm.model_copy(update={"seed": seed}).invoke(PROMPT) for seed in range(8)} != {told}


def test_it_is_known_which_texts_a_server_is_given(engine: CompletionsEngine) -> None:
    context = engine.open(PROMPT, max_tokens=9)
    feeding = engine.feeding(context)
    engine.channel.close(context)
    rollout = Rollout(context, (5,), (), None, 1.0, seed=0)
    (text,) = feeding.texts(rollout, TokenSet((6, 7), "ab"))
    assert (text.tokens[-2:], len(text.tokens), text.num_asked) == ((5, 6), context.num_prompt_tokens + 2, 2)
    assert feeding.texts(Embed(context, (5,), 1), None) == []  # an encoder answers it, if anything does


def test_a_chat_and_a_text_are_answered_from_a_server(stub: ServerProcess) -> None:
    arguments: dict[str, Any] = {"judge": liking, "rubric": UNTRIED, "seed": 5, "max_tokens": 12, "config": FEW}
    chat = ChatRain.from_server(f"{stub.url}/v1", **arguments)
    llm = RainLLM.from_server([stub.url], model="demo", tokenizer=str(MODEL_FOLDER), api_key="sk-1", **arguments)
    message = chat.invoke("How do I wash the bike?")
    assert message.text.endswith(".")
    assert message.response_metadata["model_name"] == "demo"
    assert message.response_metadata["rain"]["is_satisfied"]
    assert llm.invoke(PROMPT).endswith(".")
    for each in (chat.model, llm.model):
        assert isinstance(each, CompletionsEngine)
        shut_down(each)


def test_the_server_judges_too(engine: CompletionsEngine) -> None:
    llm = answering(engine, judge=None, max_tokens=4)
    result = llm.generate([PROMPT]).generations[0][0].generation_info
    assert result is not None
    # The stub prefers whichever option comes first, which is told by asking both ways.
    assert result["rain"]["value"] == pytest.approx(0.0)
    assert result["rain"]["token_positions"] > 0


def test_two_servers_write_and_judge(stub: ServerProcess, engine: CompletionsEngine, tokenizer: Any) -> None:
    judge = CompletionsEngine(stub.url, tokenizer=tokenizer, name="judge")
    asked: list[str] = []
    inner = judge.answer

    async def noting(request: Any) -> Any:
        asked.append(type(request).__name__)
        return await inner(request)

    judge.answer = noting  # type: ignore[method-assign]
    told = [answering(engine, judge=each, max_tokens=4).invoke(PROMPT) for each in (judge, None)]
    assert told[0] == told[1]
    assert set(asked) == {"Score"}
    shut_down(judge)


@pytest.mark.parametrize("remote", ["judge", "model"])
def test_a_model_in_this_process_and_one_on_a_server_work_together(engine: CompletionsEngine, remote: str) -> None:
    models: dict[str, Any] = {"model": "demo", "judge": "demo", remote: engine}
    llm = RainLLM(**models, rubric=UNTRIED, config=FEW, seed=1, max_tokens=6, on_unsatisfied="best")
    told = llm.generate([PROMPT]).generations[0][0]
    assert told.text
    assert told.generation_info is not None
    assert told.generation_info["rain"]["num_simulations"] > 0


def test_answers_survive_a_server_that_breaks_a_third_of_its_requests(
    stub: ServerProcess, engine: CompletionsEngine, tokenizer: Any, tmp_path: Path
) -> None:
    events = tmp_path / "events"
    faults = ["drop", "truncate", "corrupt", "status"]
    with fault_proxy(stub.url, events, rate=0.3, seed=1, faults=faults) as proxy:
        broken = CompletionsEngine(stub.url, tokenizer=tokenizer)
        broken._client.replicas.all[0].url = proxy.url  # connecting, its pauses would be waited for
        broken._client._sleep = _no_time
        for seed in range(8):
            assert answering(broken, seed=seed).invoke(PROMPT) == answering(engine, seed=seed).invoke(PROMPT)
        shut_down(broken)
    assert any(event["fault"] for event in read_events(events))


async def _no_time(seconds: float) -> None:
    await asyncio.sleep(0)


# --- What a caller does wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"base_url": "localhost:8000"}, r"base_url: .*'http://localhost:8000', is allowed, given 'localhost:8000'"),
        ({"base_url": ["http://h", "ftp://u:hunter2@h"]}, r"base_url: .* given 'h'"),
        ({"base_url": []}, r"base_url: at least one address is allowed, given \[\]"),
        ({"base_url": None}, r"base_url: .* given None"),
        ({"base_url": "http://h:port"}, r"base_url: .* given 'http://h:port'"),
        ({"base_url": "http://h:99999"}, r"base_url: .* given 'http://h:99999'"),
        ({"dialect": "tgi"}, r"dialect: 'vllm', 'llama-server', 'sglang', 'openai' is allowed, given 'tgi'"),
        ({"data_parallel_size": 0}, r"data_parallel_size: a whole number from 1 on is allowed, given 0"),
        ({"data_parallel_size": True}, r"data_parallel_size: a whole number from 1 on is allowed, given True"),
        ({"max_retries": -1}, r"max_retries: a whole number from 0 on is allowed, given -1"),
        ({"max_retries": "3"}, r"max_retries: a whole number from 0 on is allowed, given '3'"),
        ({"read_timeout": -1.0}, r"read_timeout: seconds, more than 0, are allowed, given -1.0"),
        ({"read_timeout": None}, r"read_timeout: seconds, more than 0, are allowed, given None"),
        ({"connect_timeout": float("nan")}, r"connect_timeout: seconds, more than 0, are allowed, given nan"),
        ({"session_header": "X Session"}, r"session_header: the name of an HTTP header is allowed, given 'X Session'"),
        ({"session_header": 7}, r"session_header: the name of an HTTP header is allowed, given 7"),
        ({"api_key": 7}, r"api_key: a text of printable ASCII characters"),
        (
            {"api_key": "sk-secret\n"},
            r"api_key: a text of printable ASCII characters without spaces is allowed; the one given, which is not",
        ),
        ({"api_key": SecretStr("sk-sécret")}, r"api_key: a text of printable ASCII"),
    ],
)
def test_an_argument_that_is_not_allowed_is_named_with_what_is(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(RainConfigError, match=told) as caught:
        CompletionsEngine(**{"base_url": "http://localhost:1", **arguments})
    assert not any(secret in str(caught.value) for secret in ("hunter2", "sk-secret", "sécret"))
    assert caught.value.__cause__ is None


def test_a_salt_that_a_server_does_not_know_is_refused(stub: ServerProcess, tokenizer: Any) -> None:
    with pytest.raises(RainConfigError, match="cache_salt: llama-server keeps no tenants apart, given 'tenant'"):
        CompletionsEngine(stub.url, tokenizer=tokenizer, dialect="llama-server", cache_salt="tenant")


def test_an_empty_key_is_none(stub: ServerProcess, tokenizer: Any) -> None:
    engine = CompletionsEngine(stub.url, tokenizer=tokenizer, api_key="")
    assert "Authorization" not in engine._client._client.headers
    shut_down(engine)


def num_threads() -> int:
    return sum(thread.name.startswith("rain-") for thread in threading.enumerate())


def end_of_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("rain-http"):
            thread.join(timeout=30)


def test_a_server_that_is_down_is_told_and_nothing_is_left() -> None:
    before = num_threads()
    with pytest.raises(
        EngineError, match=r"http://127\.0\.0\.1:\d+ cannot be reached: .* Is the server running there\?"
    ):
        CompletionsEngine(f"http://user:hunter2@{HOST}:{free_port()}")
    end_of_threads()
    assert num_threads() == before
    gc.collect()  # what was left open would warn


def test_connecting_leaves_no_conversation_behind(stub: ServerProcess, tokenizer: Any) -> None:
    engine = CompletionsEngine([stub.url, stub.url], tokenizer=tokenizer)
    assert [each.num_conversations for each in engine._client.replicas.all] == [0, 0]
    shut_down(engine)


def test_a_server_without_token_ids_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with stub_server(tmp_path / "log", dialect="openai") as stub:
        with pytest.raises(EngineError, match=r"cannot be searched with\. As a chat model, for example ChatOpenAI\("):
            CompletionsEngine(stub.url, tokenizer=str(MODEL_FOLDER))
        end_of_threads()


def test_another_tokenizer_than_the_servers_is_refused(stub: ServerProcess) -> None:
    with pytest.raises(EngineError, match=r"reads tokens otherwise than the tokenizer given; give that of .*'demo'"):
        CompletionsEngine(stub.url, tokenizer=tiny_tokenizer())
    end_of_threads()


def test_a_tokenizer_that_cannot_be_loaded_is_asked_for(stub: ServerProcess, tmp_path: Path) -> None:
    with pytest.raises(
        EngineError, match=r"The tokenizer of demo cannot be loaded \('.*': .*\)\. Give it as tokenizer="
    ) as caught:
        CompletionsEngine(stub.url, tokenizer=str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    end_of_threads()


def test_the_first_tokenizer_that_can_be_loaded_is_taken(tmp_path: Path, tokenizer: Any) -> None:
    found = load_tokenizer([str(tmp_path), str(MODEL_FOLDER)], engine="demo")
    assert found.get_vocab() == tokenizer.get_vocab()


def test_the_ends_of_texts_are_those_of_the_tokenizer_and_of_the_settings_beside_it(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    tokenizer = load_tokenizer([str(tmp_path)], engine="demo")
    end = tokenizer.eos_token_id
    assert end_token_ids(tokenizer) == {end}
    for told, expected in ((3, {end, 3}), ([3, 4], {end, 3, 4}), (None, {end})):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": told}))
        assert end_token_ids(tokenizer) == expected
    (tmp_path / "generation_config.json").write_text("no JSON")
    assert end_token_ids(tokenizer) == {end}
    assert end_token_ids(tiny_tokenizer()) == {end}


def test_a_tokenizer_needs_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RainConfigError, match=r"pip install 'langchain-rain\[server\]'"):
        load_tokenizer(["demo"], engine="demo")


def test_a_server_needs_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_rain.engines.completions", None)
    with pytest.raises(RainConfigError, match=r"A server needs httpx: pip install 'langchain-rain\[server\]'"):
        RainLLM.from_server("http://localhost:1")


def test_importing_brings_no_client_of_servers() -> None:
    names = ["completions", "http_client", "capabilities", "server", "server_work", "dialects"]
    code = (
        "import sys, langchain_rain.cli; "
        f"print([name for name in {names} if 'langchain_rain.engines.' + name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


# --- Embeddings --------------------------------------------------------------------------------------------------


def test_similarity_without_embeddings_is_an_error_that_says_what_to_do(engine: CompletionsEngine) -> None:
    context = engine.open(PROMPT, max_tokens=8)
    reply = answer(engine, Embed(context, (40, 41), 1))
    assert isinstance(reply, EngineError)
    assert reply.request == "Embed"
    assert 'similarity needs embeddings=, any of LangChain, or is off (RainConfig(similarity_scope="off"' in str(reply)


def test_similarity_is_that_of_the_last_text(stub: ServerProcess, tokenizer: Any) -> None:
    encoder = DeterministicFakeEmbedding(size=4)
    engine = CompletionsEngine(stub.url, tokenizer=tokenizer, embeddings=encoder)
    context = engine.open(PROMPT, max_tokens=8)
    tokens = tuple(tokenizer(" the small lamp", add_special_tokens=False).input_ids)
    reply = answer(engine, Embed(context, tokens, 1))
    vector = np.array(encoder.embed_query(tokenizer.decode([tokens[-1]])))
    assert reply == pytest.approx(vector / np.linalg.norm(vector))
    paper = RainLLM(
        model=engine, judge=mixed, rubric=UNTRIED, config=RainConfig.preset("paper"), seed=1, max_tokens=2,
        on_unsatisfied="best",
    )  # fmt: skip
    assert paper.invoke(PROMPT)
    shut_down(engine)


def test_an_encoder_that_fails_is_told_of(stub: ServerProcess, tokenizer: Any) -> None:
    class Failing(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise RuntimeError("no memory")

        def embed_query(self, text: str) -> list[float]:
            raise NotImplementedError

    engine = CompletionsEngine(stub.url, tokenizer=tokenizer, embeddings=Failing())
    reply = answer(engine, Embed(engine.open(PROMPT, max_tokens=8), (40,), 1))
    assert isinstance(reply, EngineError)
    assert "The encoder of demo failed: RuntimeError: no memory" in str(reply)
    shut_down(engine)


# --- Requests ----------------------------------------------------------------------------------------------------


def test_each_request_has_a_reply_and_a_conversation_leaves_nothing(engine: CompletionsEngine) -> None:
    context = engine.open(PROMPT, max_tokens=12, stop=["lamp"])
    sets = answer(engine, Expand(context, (), 3, 2, 4, 15, 0.7, seed=1))
    assert all(len(each.tokens) == 2 for each in sets)
    rollout = answer(engine, Rollout(context, sets[0].tokens, (".",), None, 1.0, seed=1))
    assert rollout.finish_reason in ("stop", None)
    scored = answer(engine, Score(context, "Is it edible?\n(A) yes\n(B) no\n", "(", ("A", "B")))
    assert scored.logprobs[0] > scored.logprobs[1]
    (replica,) = engine._client.replicas.all
    assert replica.num_conversations == 1
    engine.channel.run(engine.aclose(context))
    assert replica.num_conversations == 0
    closed = answer(engine, Expand(context, (), 3, 1, 4, 15, 0.7, seed=1))
    assert isinstance(closed, EngineError)
    assert "is closed, or not of demo" in str(closed)
    assert closed.request == "Expand"


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda engine: engine.open(PROMPT, max_tokens=40_000), r"max_tokens=40000 exceed the context of demo, 32768"),
        (
            lambda engine: _raised(answer(engine, Score(engine.open(PROMPT, max_tokens=4), "?" * 40_000, "(", ("A",)))),
            r"A judgement of \d+ tokens exceeds the context of demo, 32768 tokens",
        ),
    ],
)
def test_what_exceeds_the_context_is_refused(
    engine: CompletionsEngine, ask: Callable[[CompletionsEngine], Any], told: str
) -> None:
    with pytest.raises(EngineError, match=told):
        ask(engine)


def _raised(reply: Any) -> Any:
    raise reply


def test_guidance_that_does_not_fit_is_left_out(engine: CompletionsEngine) -> None:
    context = engine.open(PROMPT, max_tokens=12)
    plain = answer(engine, Rollout(context, (), (".",), None, 1.0, seed=1))
    assert answer(engine, Rollout(context, (), (".",), None, 1.0, seed=1, guidance="be kind " * 40_000)) == plain
    guided = answer(engine, Rollout(context, (), (".",), None, 1.0, seed=1, guidance="Be kind."))
    assert guided.text


def test_what_a_judgement_shows_the_model_can_be_seen(engine: CompletionsEngine) -> None:
    text, tokens = engine.shown_to_model(Score(Context("demo", 0), "Edible?", "(", ("A",)))
    assert "Edible?" in text
    assert len(tokens) > 3
    assert engine.has_chat_template
    with pytest.raises(RainConfigError, match="demo cannot call tools"):
        engine.check_tools()


# --- Threads -----------------------------------------------------------------------------------------------------


async def test_ainvoke_does_not_block_the_event_loop(engine: CompletionsEngine) -> None:
    task = asyncio.create_task(answering(engine).ainvoke(PROMPT))
    num_turns = 0
    while not task.done():
        await asyncio.sleep(0)
        num_turns += 1
    assert num_turns > 50  # one that blocks takes a handful
    assert (await task).endswith(".")


def is_idle(engine: CompletionsEngine) -> bool:
    """Whether nothing is under way, and no conversation open, after a while at most."""
    for _ in range(1000):
        if not (engine.channel._tasks or engine._stays or engine._conversations._open):
            return True
        engine.channel.run(asyncio.sleep(0))
    return False


def test_a_stream_that_is_abandoned_cancels_what_is_under_way(engine: CompletionsEngine) -> None:
    stream = answering(engine).stream(PROMPT)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert is_idle(engine)
    assert answering(engine).invoke(PROMPT).endswith(".")
    assert is_idle(engine)


async def test_a_task_that_is_cancelled_cancels_what_is_under_way(engine: CompletionsEngine) -> None:
    task = asyncio.create_task(answering(engine).ainvoke(PROMPT))
    while not engine.channel._tasks:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_idle(engine)


def test_shutting_down_leaves_neither_thread_nor_socket(stub: ServerProcess, tokenizer: Any) -> None:
    engine = CompletionsEngine(stub.url, tokenizer=tokenizer)
    answering(engine).invoke(PROMPT)
    shut_down(engine)
    assert engine._client._client.is_closed
    engine.shut_down()  # again does nothing
    del engine
    gc.collect()


def test_an_engine_that_was_shut_down_says_so(stub: ServerProcess, tokenizer: Any) -> None:
    engine = CompletionsEngine(stub.url, tokenizer=tokenizer)
    shut_down(engine)
    with pytest.raises(EngineError, match="demo was shut down"):
        answering(engine, on_error="raise").invoke(PROMPT)
    end_of_threads()


# --- Identity ----------------------------------------------------------------------------------------------------


def test_an_identity_names_model_and_tokenizer_and_no_address_or_secret(stub: ServerProcess, tokenizer: Any) -> None:
    url = stub.url.replace("http://", "http://user:hunter2@")
    settings: dict[str, Any] = {"api_key": "sk-secret", "cache_salt": "salt-secret", "session_header": "X-S"}
    engine = CompletionsEngine(url, tokenizer=tokenizer, **settings)
    told = json.dumps(dict(engine.identity)) + repr(engine) + engine.name
    assert [part for part in (HOST, str(stub.port), "hunter2", "sk-secret", "salt-secret") if part in told] == []
    plain = CompletionsEngine(stub.url, tokenizer=tokenizer, data_parallel_size=2)
    assert plain.identity == engine.identity
    assert plain._codec.learn_end(
        tokenizer.convert_tokens_to_ids("<|system|>")
    )  # what it learns of ends by answering makes it no other
    assert plain.identity == engine.identity
    named = CompletionsEngine(stub.url, tokenizer=tokenizer, name="mine", embeddings=DeterministicFakeEmbedding(size=4))
    changed = {key for key in named.identity if named.identity[key] != plain.identity[key]}
    assert changed == {"name", "embeddings"}
    for each in (engine, plain, named):
        shut_down(each)


# --- The command line --------------------------------------------------------------------------------------------


def test_a_server_is_checked_as_a_table(stub: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["server", "check", stub.url.replace("http://", "http://user:hunter2@")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "vLLM 0.32.0" in out
    assert "told for any token" in " ".join(out.split())
    assert "hunter2" not in out
    end_of_threads()


def test_a_server_is_checked_as_one_json_object(stub: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["server", "check", stub.url, "--json", "--tokenizer", demo_model_path(), "--dialect", "vllm"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["server"] == "vLLM 0.32.0"
    assert (told["has_seed"], told["has_prefix_cache"], told["max_context"], told["num_top"]) == (True, None, 32768, 20)
    assert all(key.isidentifier() and key.islower() for key in told)
    end_of_threads()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["{url}", "--model", "other"], 3, "serves 'demo'; one of these is allowed as model, given 'other'"),
        (["http://127.0.0.1:{free_port}"], 3, "cannot be reached"),
        (["localhost:8000"], 2, "base_url:"),
        (["{url}", "--dialect", "tgi"], 2, "dialect:"),
        (["{url}", "--api-key-env", "NO_SUCH_KEY"], 2, "--api-key-env: the environment variable 'NO_SUCH_KEY'"),
        ([], 2, ""),
    ],
)
def test_a_check_that_fails_says_why_by_its_exit_code(
    stub: ServerProcess, arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [each.format(url=stub.url, free_port=free_port()) for each in arguments]
    assert cli.run(["server", "check", *given]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert told in " ".join(err.split())
    end_of_threads()
