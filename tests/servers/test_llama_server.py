"""llama-server reads the bundled model as transformers does."""

import json
import urllib.request
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.servers.processes import MODEL_FOLDER

TEXTS = (
    "How do I wash the bike?",
    "1) Lift the bike, gently.\n2) 'Tis  done (at 10:30)...\n\n",
    "Größe \u00a0 日本 😀 don't 'til\t3.14 ",
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


def _post(url: str, **body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.parametrize("text", TEXTS)
def test_llama_server_tokenizes_as_transformers_does(llama_url: str, tokenizer: Any, text: str) -> None:
    tokens = _post(f"{llama_url}/tokenize", content=text, add_special=True)["tokens"]
    assert tokens == tokenizer(text)["input_ids"]


def test_llama_server_computes_the_log_probabilities_of_transformers(llama_url: str, tokenizer: Any) -> None:
    message = {"role": "user", "content": TEXTS[0]}
    prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True)["input_ids"]
    answer = _post(f"{llama_url}/completion", prompt=prompt, n_predict=1, n_probs=len(tokenizer))
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    with torch.inference_mode():
        expected = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1).tolist()
    found = {option["id"]: option["logprob"] for option in answer["completion_probabilities"][0]["top_logprobs"]}
    assert [found[token] for token in range(len(tokenizer))] == pytest.approx(expected, abs=1e-3)
