"""The servers tokenize and compute as transformers does, and come back after a kill."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.servers.processes import MODEL_FOLDER, MODEL_NAME, llama_server

TEXTS = (
    "How do I wash the bike?",
    "1) Lift the bike, gently.\n2) 'Tis  done (at 10:30)...\n\n",
    "Größe \u00a0 日本 😀 don't 'til\t3.14 ",
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


@pytest.fixture(scope="module")
def prompt(tokenizer: Any) -> Any:
    return tokenizer.apply_chat_template([{"role": "user", "content": TEXTS[0]}], add_generation_prompt=True)[
        "input_ids"
    ]


@pytest.fixture(scope="module")
def logprobs(prompt: list[int]) -> Any:
    """Of each token after the prompt, by transformers."""
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    with torch.inference_mode():
        return model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1).tolist()


def _post(url: str, **body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.parametrize("text", TEXTS)
def test_llama_server_tokenizes_as_transformers_does(llama_url: str, tokenizer: Any, text: str) -> None:
    tokens = _post(f"{llama_url}/tokenize", content=text, add_special=True)["tokens"]
    assert tokens == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_vllm_tokenizes_as_transformers_does(vllm_url: str, tokenizer: Any, text: str) -> None:
    assert _post(f"{vllm_url}/tokenize", prompt=text)["tokens"] == tokenizer(text)["input_ids"]


def test_llama_server_computes_the_logprobs_of_transformers(
    llama_url: str, prompt: list[int], logprobs: list[float]
) -> None:
    reply = _post(f"{llama_url}/completion", prompt=prompt, n_predict=1, n_probs=len(logprobs))
    found = {option["id"]: option["logprob"] for option in reply["completion_probabilities"][0]["top_logprobs"]}
    assert [found[token] for token in range(len(logprobs))] == pytest.approx(logprobs, abs=1e-3)


def test_vllm_computes_the_logprobs_of_transformers(vllm_url: str, prompt: list[int], logprobs: list[float]) -> None:
    asked = {"max_tokens": 1, "logprobs": 1, "logprob_token_ids": [38, 39], "return_tokens_as_token_ids": True}
    reply = _post(f"{vllm_url}/v1/completions", model=MODEL_NAME, prompt=prompt, **asked)
    (found,) = reply["choices"][0]["logprobs"]["top_logprobs"]
    assert found == pytest.approx({name: logprobs[int(name.removeprefix("token_id:"))] for name in found}, abs=1e-3)
    assert {"token_id:38", "token_id:39"} <= found.keys()


def test_a_killed_server_comes_back_on_its_port(demo_gguf: Path, tmp_path: Path) -> None:
    with llama_server(tmp_path / "log", demo_gguf) as server:
        server.kill()
        assert not server.is_running
        server.restart()
        assert _post(f"{server.url}/tokenize", content="")["tokens"] == []
    assert not server.is_running
