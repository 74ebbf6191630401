"""The models that are measured: the demo model, and Llamas of random weights of the usual sizes."""

import random
from collections import Counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from langchain_rain.engines.conversation import REPLACEMENT
from langchain_rain.engines.loading import load_engine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation import demo_world

SHAPES: dict[str, dict[str, Any]] = {
    "0.2M": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "7M": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8, "num_attention_heads": 8},
    "30M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 9, "num_attention_heads": 8},
    "120M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 12},
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
"""By the number of their parameters; the large ones, TinyLlama's and Llama 2's, for a GPU."""

MAX_CONTEXT = 4096
"""Tokens of context of the models of random weights."""

NUM_ANSWERS = 1000
"""Answers of the demo world that tokens are counted in."""

UNSEEN = 0.01
"""What a token counts that is in none of them."""

NEVER = -1e4
"""The logit of a token that must not come: its probability is 0, and no sum is spoilt by it."""


def demo_engine() -> TransformersEngine:
    """The bundled model."""
    engine = load_engine("demo")
    assert isinstance(engine, TransformersEngine)
    return engine


def random_engine(
    size: str, *, device: str = "cpu", seed: int = 0, dtype: torch.dtype | None = None
) -> TransformersEngine:
    """A Llama of random weights with the demo model's tokenizer; its texts never end by themselves.

    It writes tokens about as often as they stand in the answers of the demo world, so that clauses are as long, and no
    special tokens.
    """
    tokenizer = demo_engine().tokenizer
    tokenizer.model_max_length = MAX_CONTEXT
    torch.manual_seed(seed)
    config = LlamaConfig(
        **SHAPES[size],
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    made_in = min(dtype, torch.float32, key=lambda each: each.itemsize)  # half of the memory if it is half of it later
    auto: Any = AutoModelForCausalLM
    with torch.device(device):
        model: Any = auto.from_config(config, dtype=made_in)
        head = torch.nn.Linear(config.hidden_size, config.vocab_size, dtype=made_in)
    bias = token_logits(tokenizer, seed).to(device, made_in)
    head.weight, head.bias = model.lm_head.weight, torch.nn.Parameter(bias)
    model.lm_head = head
    if dtype != made_in:
        model.to(dtype)
    return TransformersEngine(model, tokenizer, name=f"random-{size}")


def token_logits(tokenizer: Any, seed: int) -> torch.Tensor:
    """The logarithm of how often each token stands in answers of the demo world, `[vocabulary]`."""
    rng = random.Random(seed)
    answers = [demo_world.sample_answer(demo_world.sample_request(rng), rng) for _ in range(NUM_ANSWERS)]
    counts = Counter(token for ids in tokenizer(answers, add_special_tokens=False).input_ids for token in ids)
    logits = torch.tensor([counts.get(token, UNSEEN) for token in range(len(tokenizer))]).log()
    parts_of_characters = [token for token in range(len(tokenizer)) if REPLACEMENT in tokenizer.decode([token])]
    logits[[*tokenizer.all_special_ids, *parts_of_characters]] = NEVER
    return logits


def demo_prompts(num_harmful: int, num_benign: int, seed: int) -> list[str]:
    """Prompts of the demo world that the demo model has not seen in training."""
    return [demo_world.as_prompt(each) for each in demo_world.test_requests(num_harmful, num_benign, seed=seed)]
