"""The bundled model in the format of llama.cpp, in float32.

The stock converter refuses it, for it does not know the pre-tokenizer.
"""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

# llama.cpp knows pre-tokenizers only by the name of a model. BLOOM's splits only around spaces and a few marks, the
# bundled one also around every other mark and digit; but no merge crosses those borders, so the tokens are the same.
# Most others split where the bundled one does not: between a space and a digit, or, as GPT-2's, inside a word that
# begins with an apostrophe.
PRE_TOKENIZER = "bloom"

# The names of a Llama's weights in GGUF; inside a layer, "blk.N." stands instead of "model.layers.N.".
TENSOR_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model_folder: Path, path: Path) -> None:
    """Writes the Llama of a folder, with its byte-level BPE tokenizer and its chat template, to one GGUF file.

    Raises:
        ValueError: the folder holds another kind of model.
    """
    config = json.loads((model_folder / "config.json").read_text())
    if config["architectures"] != ["LlamaForCausalLM"] or not config["tie_word_embeddings"]:
        raise ValueError(f"{model_folder} is no Llama with tied embeddings: {config['architectures']}.")
    writer = gguf.GGUFWriter(path, "llama")
    _add_parameters(writer, config)
    _add_tokenizer(writer, model_folder)
    for name, weight in load_file(model_folder / "model.safetensors").items():
        writer.add_tensor(_gguf_name(name), _permuted(name, weight, config).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_parameters(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("demo")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: gguf.GGUFWriter, model_folder: Path) -> None:
    tokenizer = json.loads((model_folder / "tokenizer.json").read_text())
    settings = json.loads((model_folder / "tokenizer_config.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(vocabulary[settings["bos_token"]])
    writer.add_eos_token_id(vocabulary[settings["eos_token"]])
    writer.add_pad_token_id(vocabulary[settings["pad_token"]])
    writer.add_add_bos_token(True)  # as the post-processor of tokenizer.json does
    writer.add_chat_template(settings["chat_template"])


def _gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` becomes `blk.3.ffn_up.weight`."""
    stem = name.removesuffix(".weight")
    if not stem.startswith("model.layers."):
        return f"{TENSOR_NAMES[stem]}.weight"
    layer, part = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{TENSOR_NAMES[part]}.weight"


def _permuted(name: str, weight: NDArray[np.float32], config: dict[str, Any]) -> NDArray[np.float32]:
    """Queries and keys in the order of llama.cpp, which rotates neighbours where transformers rotates halves."""
    if name.endswith("q_proj.weight"):
        num_heads = config["num_attention_heads"]
    elif name.endswith("k_proj.weight"):
        num_heads = config["num_key_value_heads"]
    else:
        return weight
    return weight.reshape(num_heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
