"""Which models can be searched with: families and their attention, files they are loaded from, and clear refusals."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings

from langchain_rain.drivers import run
from langchain_rain.engines import recomputing
from langchain_rain.engines.runner import input_device
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.protocol import Context, Embed, Expand, Request, Rollout, Score
from tests.asking_in_turn import ASKED_IN_TURN, Asked, assert_naive_in_turn
from tests.comparing import (
    PROMPT,
    ROUNDING,
    answer,
    assert_naive_replies,
    assert_same,
    counted_forward_passes,
    search_job,
)
from tests.naive_engine import NaiveEngine
from tests.tiny_models import tiny_llama, tiny_model, tiny_tokenizer

VOCABULARY = len(tiny_tokenizer())
WINDOW = 8
LONG_PROMPT = "A zebra walked over the quiet hills"  # far longer than the window, in tokens of this tokenizer
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GPT_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 512,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
MIXED_LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZES),
    "llama whose config.json holds a window that llamas do not have": (
        "LlamaConfig",
        {**SIZES, "sliding_window": WINDOW},
    ),
    "qwen2": ("Qwen2Config", SIZES),
    "qwen2 with sliding and full layers": (
        "Qwen2Config",
        {**SIZES, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", SIZES),
    "gpt2": ("GPT2Config", GPT_SIZES),
    "mistral": ("MistralConfig", {**SIZES, "sliding_window": WINDOW}),
    "phi3": ("Phi3Config", {**{k: v for k, v in SIZES.items() if k != "head_dim"}, "sliding_window": WINDOW}),
    "gemma": ("GemmaConfig", SIZES),
    "gemma2": ("Gemma2Config", {**SIZES, **MIXED_LAYERS}),
    "gemma3 text": ("Gemma3TextConfig", {**SIZES, **MIXED_LAYERS}),
    "gemma3 that also sees": (
        "Gemma3Config",
        {
            "text_config": {**SIZES, **MIXED_LAYERS},
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": 28,
                "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
        },
    ),
    "opt, whose head goes past the base model": (
        "OPTConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 512,
            "init_std": 0.2,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
    ),
    "gpt-oss, with experts and attention sinks": (
        "GptOssConfig",
        {**SIZES, "sliding_window": WINDOW, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
    "deepseek v3, whose values are narrower than its keys": (
        "DeepseekV3Config",
        {
            **SIZES,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
}
ONLY_EAGER = {"gemma2", "gpt-oss, with experts and attention sinks"}
ONLY_FLOAT32 = {"gpt-oss, with experts and attention sinks", "deepseek v3, whose values are narrower than its keys"}


def config_of(name: str, settings: dict[str, Any]) -> Any:
    return getattr(transformers, name)(**settings)


def all_kinds(context: Context) -> list[Request]:
    return [
        Expand(context, (), 5, 1, num_draws=0, top_k=8, temperature=1.0, seed=1),
        Expand(context, (40, 50, 60), 5, 5, num_draws=4, top_k=8, temperature=1.0, seed=2),
        Rollout(context, (40, 50), until=(), max_tokens=5, temperature=1.0, seed=3),
        Rollout(context, (40, 50), until=(), max_tokens=2, temperature=1.0, seed=3, guidance="Be kind."),
        Score(context, "Is it good? (A) yes (B) no", "The answer is: (", ("A", "B")),
        Score(context, "Is it good? (A) no (B) yes", "The answer is: (", ("A", "B")),
        Embed(context, (40, 50, 60, 70), num_tokens=3),
    ]


each_family = pytest.mark.parametrize(
    ("family", "attention"),
    [
        (family, attention)
        for family in FAMILIES
        for attention in ("sdpa", "eager")
        if attention == "eager" or family not in ONLY_EAGER
    ],
)


def model_and_tolerance(family: str, attention: str) -> tuple[Any, float]:
    dtype = torch.float32 if family in ONLY_FLOAT32 else torch.float64
    model = tiny_model(config_of(*FAMILIES[family]), attention=attention, dtype=dtype)
    # Eager attention takes its softmax in float32, whatever the model's number type.
    return model, 1e-4 if family in ONLY_FLOAT32 else 1e-5 if attention == "eager" else ROUNDING


@each_family
def test_replies_of_a_family_are_the_naive_ones(tokenizer: Any, family: str, attention: str) -> None:
    model, tolerance = model_and_tolerance(family, attention)
    assert len(tokenizer(LONG_PROMPT).input_ids) > 2 * WINDOW
    assert_naive_replies(model, tokenizer, all_kinds, prompt=LONG_PROMPT, tolerance=tolerance)


@each_family
def test_replies_of_a_family_are_the_naive_ones_when_conversations_share_lines(
    tokenizer: Any, family: str, attention: str
) -> None:
    model, tolerance = model_and_tolerance(family, attention)
    engine, naive = TransformersEngine(model, tokenizer), NaiveEngine(model, tokenizer)
    requests: list[Request] = []
    expected = []
    # Of very different length: the first by all kinds of requests, the last by a prompt of few tokens.
    for prompt, part in {
        LONG_PROMPT: slice(None),
        PROMPT: slice(1, 3),
        "A zebra": slice(1),
        "yes": slice(2, 3),
    }.items():
        requests += all_kinds(engine.open(prompt, max_tokens=40))[part]
        expected += [naive.reply(request) for request in all_kinds(naive.open(prompt, max_tokens=40))[part]]
    with counted_forward_passes(model) as shapes:
        assert_same(answer(engine, *requests), expected, tolerance=tolerance)
    num_lines, num_tokens = shapes[0]
    assert num_lines == 3  # "A zebra" is the beginning of the first
    assert num_tokens < len(tokenizer(LONG_PROMPT).input_ids)  # so the longest conversation is in several lines


@functools.cache
def engines_of(family: str, attention: str) -> tuple[TransformersEngine, NaiveEngine, float]:
    model, tolerance = model_and_tolerance(family, attention)
    tokenizer = tiny_tokenizer()
    return TransformersEngine(model, tokenizer, max_cache_tokens=60), NaiveEngine(model, tokenizer), tolerance


@each_family
@settings(max_examples=4, deadline=None)
@given(asked=ASKED_IN_TURN)
def test_replies_of_a_family_are_the_naive_ones_when_the_cache_is_too_small_for_all(
    family: str, attention: str, asked: Sequence[Asked]
) -> None:
    engine, naive, tolerance = engines_of(family, attention)  # what the last example has cached is there
    assert_naive_in_turn(engine, naive, asked, tolerance=tolerance)


def test_a_sliding_window_makes_a_difference_here(tokenizer: Any) -> None:
    def replies(**window: int | None) -> Any:
        model = tiny_model(config_of("MistralConfig", {**SIZES, **window}), attention="sdpa")
        return assert_naive_replies(model, tokenizer, all_kinds, prompt=LONG_PROMPT)[0]

    assert replies(sliding_window=WINDOW) != replies(sliding_window=None)


def test_a_vocabulary_with_more_rows_than_the_tokenizer_has_tokens_is_no_obstacle(tokenizer: Any) -> None:
    model = tiny_model(config_of("LlamaConfig", {**SIZES, "vocab_size": VOCABULARY + 60}), attention="sdpa")
    assert_naive_replies(model, tokenizer, lambda context: [*all_kinds(context), unfiltered_siblings(context)])


def unfiltered_siblings(context: Context) -> Expand:
    return Expand(context, (), 9, 3, num_draws=8, top_k=10_000, temperature=3.0, seed=5)


# --- Recomputed --------------------------------------------------------------------------------------------------

WITHOUT_HEADS = {key: value for key, value in SIZES.items() if key != "head_dim"}
RECOMPUTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mamba": (
        "MambaConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "state_size": 4,
            "initializer_range": 0.2,
        },
        "state that cannot be rewound",
    ),
    "a hybrid of attention and recurrence": (
        "JambaConfig",
        {**WITHOUT_HEADS, "mamba_d_state": 4, "num_experts": 2, "use_mamba_kernels": False},
        r"state that cannot be rewound \(linear_attention\)",
    ),
    "a hybrid of attention and convolution": (
        "Lfm2Config",
        {**SIZES, "layer_types": ["conv", "full_attention"]},
        r"state that cannot be rewound \(conv\)",
    ),
    "llama4, whose chunks are no window": (
        "Llama4TextConfig",
        {**SIZES, "intermediate_size_mlp": 32, "num_local_experts": 1, "attention_chunk_size": WINDOW},
        "chunked_attention",
    ),
    "bloom": (
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 1, "n_head": 2, "initializer_range": 0.2},
        "position_ids",
    ),
    "the first gpt": ("OpenAIGPTConfig", GPT_SIZES, "takes no past_key_values"),
    "falcon with alibi": (
        "FalconConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "alibi": True,
            "initializer_range": 0.2,
        },
        "ALiBi",
    ),
    "gpt-neo": (
        "GPTNeoConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "initializer_range": 0.2,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        "local layers",
    ),
    "rwkv": (
        "RwkvConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
        "state that cannot be rewound",
    ),
    "qwen3-next, a hybrid with linear attention": (
        "Qwen3NextConfig",
        {
            **SIZES,
            "num_hidden_layers": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        r"state that cannot be rewound \(linear_attention\)",
    ),
    "roberta, whose positions do not begin at 0": (
        "RobertaConfig",
        {**SIZES, "is_decoder": True, "pad_token_id": 3},
        "share a cached beginning",
    ),
    "bert that sees what comes after": ("BertConfig", {**SIZES, "pad_token_id": 3}, "share a cached beginning"),
}


def recomputed(tokenizer: Any, kind: str) -> tuple[TransformersEngine, NaiveEngine]:
    name, settings, reason = RECOMPUTED[kind]
    model = tiny_model(config_of(name, settings), attention="eager", dtype=torch.float32)
    with pytest.warns(UserWarning, match=f"mine computes every text anew, which takes long: .*{reason}"):
        engine = TransformersEngine(model, tokenizer, name="mine")
    return engine, NaiveEngine(model, tokenizer)


@pytest.mark.parametrize("kind", RECOMPUTED)
def test_a_model_that_cannot_be_rewound_gives_the_naive_replies_with_a_warning(tokenizer: Any, kind: str) -> None:
    engine, naive = recomputed(tokenizer, kind)
    requests: list[Request] = []
    expected = []
    for prompt in (LONG_PROMPT, PROMPT):
        requests += all_kinds(engine.open(prompt, max_tokens=40))
        expected += [naive.reply(request) for request in all_kinds(naive.open(prompt, max_tokens=40))]
    assert_same(answer(engine, *requests), expected, tolerance=1e-4)
    assert engine.cache_info.num_bytes == 0


def test_texts_of_one_length_go_through_together_and_count_each(tokenizer: Any) -> None:
    engine, _ = recomputed(tokenizer, "mamba")
    context = engine.open("yes", max_tokens=40)

    def ask(*prefix: int) -> Request:
        return Rollout(context, prefix, until=(), max_tokens=1, temperature=1.0, seed=1)

    length = context.num_prompt_tokens + 2
    with counted_forward_passes(engine.model) as shapes:
        first, second, third, shorter = (engine.submit(each) for each in (ask(5, 6), ask(5, 6), ask(5, 7), ask(5)))
        assert engine.step().positions == {first: length, second: 0, third: length}
        assert engine.step().positions == {shorter: length - 1}
    assert shapes == [(2, length), (1, length - 1)]


def test_texts_that_are_too_many_for_a_pass_take_several(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputing, "MAX_POSITIONS", 20)
    engine, naive = recomputed(tokenizer, "bloom")
    engines = (engine, naive)
    asked, expected = (Expand(each.open("yes", max_tokens=9), (), 5, 3, 6, 9, 1.0, seed=1) for each in engines)
    with counted_forward_passes(engine.model) as shapes:
        replies = answer(engine, asked)
    assert_same(replies, [naive.reply(expected)], tolerance=1e-4)
    assert max(num_rows * num_tokens for num_rows, num_tokens in shapes) <= 20


def test_a_search_with_a_model_that_cannot_be_rewound_is_the_naive_one(tokenizer: Any) -> None:
    engine, naive = recomputed(tokenizer, "mamba")
    outcomes = [run(search_job(each)).result for each in (engine, naive)]
    assert_same(outcomes[0], outcomes[1], tolerance=1e-4)


def test_an_encoder_decoder_is_refused(tokenizer: Any) -> None:
    config = transformers.T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(EngineError, match="T5ForConditionalGeneration cannot be searched with: it is an encoder-dec"):
        TransformersEngine(transformers.T5ForConditionalGeneration(config), tokenizer)


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_attention_that_takes_no_mask_of_ours_is_refused(tokenizer: Any, attention: str) -> None:
    model = tiny_llama(tokenizer)
    model.config._attn_implementation = attention  # the library that computes it need not be here
    with pytest.raises(EngineError, match=rf"its attention is '{attention}'; load it with attn_implementation='sdpa'"):
        TransformersEngine(model, tokenizer)


# --- Number types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.15), (torch.float16, 0.02)])
def test_half_precision_judges_as_the_naive_engine_within_its_precision(
    tokenizer: Any, attention: str, dtype: torch.dtype, tolerance: float
) -> None:
    config = config_of("LlamaConfig", {**SIZES, "initializer_range": 0.1})
    model = tiny_model(config, attention=attention, dtype=dtype)
    engine, naive = TransformersEngine(model, tokenizer), NaiveEngine(model, tokenizer)
    contexts = [each.open(PROMPT, max_tokens=40) for each in (engine, naive)]
    replies = answer(engine, *all_kinds(contexts[0]))
    expected = [naive.reply(request) for request in all_kinds(contexts[1])]
    # What is drawn may differ where two tokens are about as probable; what is asked about is what it is.
    for reply, other in zip(replies[3:], expected[3:], strict=True):
        assert_same(reply, other, tolerance=tolerance)
    for token_set in [*replies[0], *replies[1], replies[2]]:
        tokens = token_set.tokens
        assert 0 < len(tokens) <= 5
        assert -60 < token_set.logprob <= 0
    assert_same(replies[0][0].logprob, expected[0][0].logprob, tolerance=tolerance)


# --- Loading -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(tokenizer, seed=1, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def copy_of(folder: Path, target: Path, *, without: str = "") -> Path:
    for file in folder.iterdir():
        if file.name != without:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_a_saved_folder_loads_and_answers_as_the_model_that_was_saved(saved: Path, tokenizer: Any) -> None:
    loaded = TransformersEngine.from_pretrained(str(saved))
    original = TransformersEngine(tiny_llama(tokenizer, seed=1, dtype=torch.float32), tokenizer, name=str(saved))
    assert loaded.name == str(saved)
    assert loaded.identity == original.identity
    assert TransformersEngine.from_pretrained(str(saved), name="mine").name == "mine"
    requests = (all_kinds(engine.open(PROMPT, max_tokens=40)) for engine in (loaded, original))
    assert_same(answer(loaded, *next(requests)), answer(original, *next(requests)), tolerance=1e-5)


def test_a_folder_loads_in_the_number_type_that_is_asked_for(saved: Path) -> None:
    engine = TransformersEngine.from_pretrained(str(saved), dtype=torch.float64, device="cpu")
    assert engine.identity["dtype"] == "float64"


SPREAD = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}


@pytest.mark.parametrize("device_map", ["auto", SPREAD, {**SPREAD, "model.embed_tokens": "disk"}])
def test_a_model_that_accelerate_has_spread_answers_as_in_one_piece(saved: Path, device_map: Any) -> None:
    whole = TransformersEngine.from_pretrained(str(saved), device="cpu")
    spread = TransformersEngine.from_pretrained(str(saved), device_map=device_map)
    requests = (all_kinds(engine.open(PROMPT, max_tokens=40)) for engine in (spread, whole))
    assert_same(answer(spread, *next(requests)), answer(whole, *next(requests)), tolerance=1e-5)
    assert spread.identity["name"] == whole.identity["name"]


def test_a_quantised_model_stays_where_it_was_loaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any, **kwargs: Any) -> Any:
        model = tiny_llama(tiny_tokenizer(), seed=1)
        model.hf_quantizer = object()
        model.to = None  # as some kinds of quantised models refuse to be moved
        return model

    monkeypatch.setattr("langchain_rain.engines.transformers.AutoModelForCausalLM.from_pretrained", load)
    engine = TransformersEngine.from_pretrained(str(saved))
    assert len(answer(engine, all_kinds(engine.open(PROMPT, max_tokens=40))[0])[0]) == 5


def test_a_device_and_a_map_of_devices_exclude_each_other(saved: Path) -> None:
    with pytest.raises(RainConfigError, match="device or device_map is allowed, given 'cpu' and 'auto'"):
        TransformersEngine.from_pretrained(str(saved), device="cpu", device_map="auto")


def test_a_model_whose_weights_are_brought_in_when_needed_takes_its_tokens_where_it_runs(tokenizer: Any) -> None:
    model = tiny_llama(tokenizer)
    assert input_device(model) == torch.device("cpu")
    model.to("meta")
    assert input_device(model) == torch.device("cpu")
    model._hf_hook = SimpleNamespace(execution_device="cuda:1")
    assert input_device(model) == torch.device("cuda:1")


def test_all_tokens_that_the_generation_settings_name_end_a_text(saved: Path, tmp_path: Path) -> None:
    folder = copy_of(saved, tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [40, 41]}))
    engine = TransformersEngine.from_pretrained(str(folder))
    context = engine.open(PROMPT, max_tokens=8)
    (token_sets,) = answer(engine, Expand(context, (), 400, 1, num_draws=0, top_k=1, temperature=1.0, seed=0))
    assert {each.tokens[0] for each in token_sets if each.finish_reason == "eos"} == {1, 40, 41}


def test_a_name_that_is_no_folder_and_cannot_be_looked_up_is_an_error_that_names_it() -> None:
    with pytest.raises(EngineError, match="'nobody/has-such-a-model' cannot be loaded; give a folder") as caught:
        TransformersEngine.from_pretrained("nobody/has-such-a-model")
    assert caught.value.engine == "nobody/has-such-a-model"


def test_a_folder_that_holds_no_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(EngineError, match=tmp_path.name):
        TransformersEngine.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_an_error_that_names_it(saved: Path, tmp_path: Path, missing: str) -> None:
    folder = copy_of(saved, tmp_path, without=missing)
    with pytest.raises(EngineError, match=tmp_path.name):
        TransformersEngine.from_pretrained(str(folder))


def test_pickled_weights_are_not_read(saved: Path, tmp_path: Path, tokenizer: Any) -> None:
    folder = copy_of(saved, tmp_path, without="model.safetensors")
    torch.save(tiny_llama(tokenizer).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match="safetensors"):
        TransformersEngine.from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"cut off"),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "from the future"}'),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_folder(
    saved: Path, tmp_path: Path, file: str, content: bytes
) -> None:
    folder = copy_of(saved, tmp_path)
    (folder / file).write_bytes(content)
    with pytest.raises(EngineError, match=tmp_path.name):
        TransformersEngine.from_pretrained(str(folder))


def test_weights_of_another_shape_are_an_error_that_names_the_folder(saved: Path, tmp_path: Path) -> None:
    folder = copy_of(saved, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(EngineError, match=tmp_path.name):
        TransformersEngine.from_pretrained(str(folder))
