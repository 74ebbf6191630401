"""Models small enough to make in a test: random weights, a byte-level tokenizer trained on a few lines."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from langchain_rain import Rubric

CORPUS = [
    "Human: How do I wash the bike?\n\nAssistant: Rinse it with warm water, then dry it. Options:\n(A) yes\n(B) no\n",
    "The answer is: (A)",
    "The answer is: (B)",
]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

UNTRIED = Rubric.load("harmlessness").model_copy(update={"examples": ()})
"""A rubric on whose examples no judge is tried: random models would be found at chance."""


def tiny_tokenizer(*, with_bos: bool = True, with_eos: bool = True, with_chat_template: bool = False) -> Any:
    """A byte-level BPE tokenizer of some 400 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    if with_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        )
    special: dict[str, Any] = {"extra_special_tokens": ["<|user|>", "<|assistant|>"]}
    if with_bos:
        special["bos_token"] = "<|begin|>"
    if with_eos:
        special["eos_token"] = "<|end|>"
    fast = _wrapped(tokenizer, **special)
    if with_chat_template:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def space_marking_tokenizer() -> Any:
    """A tokenizer like Llama 2's: `▁` marks a space, and decoding drops the one before the first word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(["A world of rain. B yes or no A"] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _wrapped(tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _wrapped(tokenizer: Tokenizer, **special: Any) -> Any:
    tokenizer_class: Any = PreTrainedTokenizerFast
    return tokenizer_class(tokenizer_object=tokenizer, **special)


def tiny_llama(tokenizer: Any, *, seed: int = 0, dtype: torch.dtype = torch.float64, **settings: Any) -> Any:
    """A Llama of some 100 thousand random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": None,
            **settings,
        }
    )
    model: Any = LlamaForCausalLM(config)
    return model.to(dtype)


def tiny_model(config: PreTrainedConfig, *, attention: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """A model of random weights of the family that `config` is for."""
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    return auto.from_config(config, attn_implementation=attention).to(dtype)
