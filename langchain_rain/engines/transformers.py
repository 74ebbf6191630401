"""Any decoder-only Hugging Face model, in this process.

A stepper: a step is one forward pass (several, where it would be too large) over the new tokens of all that is asked,
those of siblings side by side, both orders of a judgement's options at once. What was computed is kept in one tree for
all conversations.
"""

import functools
import hashlib
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from langchain_core.embeddings import Embeddings
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_rain.engines.admission import CacheLimit, check_limit
from langchain_rain.engines.base import Likelihood, StepReport, Ticket
from langchain_rain.engines.conversations import Conversations, Feeding
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.embeddings import embed_texts, encoder_failure
from langchain_rain.engines.families import check_model, eos_token_ids, why_not_cached
from langchain_rain.engines.merging import StepperChannel
from langchain_rain.engines.reading import AnswerReader
from langchain_rain.engines.recomputing import RecomputingRunner
from langchain_rain.engines.runner import CacheInfo, Ran, Runner, WithoutPlans, input_device
from langchain_rain.engines.text import TextCodec
from langchain_rain.engines.tree_runner import TreeRunner
from langchain_rain.engines.trying import bytes_per_token, reads_trees
from langchain_rain.engines.work import EmbedWork, Work
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.protocol import Context, Request, Score


class TransformersEngine:
    """Answers requests with a Hugging Face model and tokenizer.

    Args:
        model: a `PreTrainedModel` with a language-modelling head, attention by sdpa or eager. One whose cache cannot be
            rewound (recurrent, ALiBi, ...) computes every text anew, with a warning; the limits are then kept anyway.
        tokenizer: its `PreTrainedTokenizerBase`.
        embeddings: answers `Embed` from decoded text; without it the mean of the model's own last hidden states does.
        name: names the engine in errors and results; by default the model's name.
        max_cache_tokens: how many tokens may be cached at once; by default what the open conversations need, and some
            thousands that later ones may share.
        max_cache_bytes: how much memory the cache may take. While one of its tensors grows, the old copy of that one
            comes on top.

    Raises:
        RainConfigError: a limit is no positive number, or less than a token takes.
        EngineError: the model cannot be searched with: what it lacks is named.
    """

    writes_whole_messages = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        embeddings: Embeddings | None = None,
        name: str = "",
        max_cache_tokens: int | None = None,
        max_cache_bytes: int | None = None,
    ) -> None:
        self.name = name or str(model.config.name_or_path) or type(model).__name__
        check_model(model, self.name)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.embeddings = embeddings
        self.channel = StepperChannel(self)
        self._config = model.config.get_text_config(decoder=True)  # a model that also sees nests it
        self.max_context = int(getattr(self._config, "max_position_embeddings", 0) or 2**31)
        self._codec = TextCodec(tokenizer, eos_token_ids=eos_token_ids(model, tokenizer), name=self.name)
        self._runner = _runner(model, self.name, max_cache_tokens=max_cache_tokens, max_cache_bytes=max_cache_bytes)
        self._conversations = Conversations(self._codec, max_context=self.max_context, name=self.name)
        self._pending: dict[Ticket, Work | Exception] = {}
        self._tickets = itertools.count()

    @classmethod
    def from_pretrained(  # noqa: PLR0913 - how it is loaded, and all that the class takes
        cls,
        id_or_path: str,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        embeddings: Embeddings | None = None,
        trust_remote_code: bool = False,
        name: str = "",
        max_cache_tokens: int | None = None,
        max_cache_bytes: int | None = None,
    ) -> "TransformersEngine":
        """Loads a model and its tokenizer from a folder or the Hugging Face hub; weights from safetensors only.

        Args:
            id_or_path: the folder, or the id on the hub.
            dtype: of the weights, for example "float32"; "auto" takes what the files hold.
            device: for example "cuda:0"; by default the first GPU, or the CPU where there is none.
            device_map: in place of `device`: how `accelerate` spreads the model over devices, for example "auto".
            embeddings: as for the class.
            trust_remote_code: whether code that comes with the model may run.
            name: names the engine; by default `id_or_path`.
            max_cache_tokens: as for the class.
            max_cache_bytes: as for the class.

        Raises:
            RainConfigError: both `device` and `device_map` are given.
            EngineError: there is no such model, or it cannot be loaded.
        """
        if device is not None and device_map is not None:
            raise RainConfigError(f"device or device_map is allowed, given {device!r} and {device_map!r}.")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            tokenizer = AutoTokenizer.from_pretrained(id_or_path, trust_remote_code=trust_remote_code)
            model: Any = AutoModelForCausalLM.from_pretrained(
                id_or_path,
                dtype=dtype,
                device_map=device_map,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
            if device_map is None and getattr(model, "hf_quantizer", None) is None:  # who loads quantised places it
                model.to(device)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise EngineError(
                f"{id_or_path!r} cannot be loaded; give a folder with a Hugging Face model (config.json, tokenizer, "
                f"safetensors) or the id of a model on the hub that can be reached: {reason}",
                engine=id_or_path,
            ) from error
        return cls(
            model,
            tokenizer,
            embeddings=embeddings,
            name=name or id_or_path,
            max_cache_tokens=max_cache_tokens,
            max_cache_bytes=max_cache_bytes,
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name, number type, a hash over a sample of the weights and the tokenizer; the encoder too if there is one."""
        encoder = repr(self.embeddings) if self.embeddings is not None else None
        return {
            "engine": "transformers",
            "name": self.name,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "weights": self._weights_hash,
            "embeddings": encoder,
        }

    @functools.cached_property
    def _weights_hash(self) -> str:
        """Computed once, of a model that is frozen: each call asks for it, and would wait for a GPU."""
        digest = hashlib.sha256(self._codec.identity.encode())
        for name, weight in self.model.named_parameters():
            sample = b"" if weight.is_meta else weight.detach().flatten()[:64].float().cpu().numpy().tobytes()
            digest.update(name.encode() + repr(tuple(weight.shape)).encode() + sample)
        return digest.hexdigest()[:16]

    @property
    def cache_info(self) -> CacheInfo:
        """What is kept of what has been computed."""
        return self._runner.cache_info

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations go through a template of the model's own; else they are put in lines."""
        return self._codec.has_chat_template

    def shown_to_model(self, request: Score) -> tuple[str, list[str]]:
        """What a judgement puts before the model: as text, special tokens included, and token by token."""
        return self._codec.spelled_out(self._codec.score_tokens(request))

    def check_tools(self) -> None:
        """Checks that the model can be offered tools.

        Raises:
            RainConfigError: it cannot; says why.
        """
        self._codec.check_tools()

    def open(self, prompt: str | Dialogue, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        """Begins a conversation.

        Raises:
            EngineError: the prompt is empty and the model cannot begin a text, or prompt and answer exceed its context.
        """
        return self._conversations.open(prompt, max_tokens=max_tokens, stop=stop)

    def reader(self, context: Context) -> AnswerReader:
        """Reads the answer of an open conversation."""
        return self._conversations.reader(context)

    def feeding(self, context: Context) -> Feeding:
        """Tells which texts go through the model."""
        return self._conversations.feeding(context, has_encoder=self.embeddings is not None)

    def close(self, context: Context) -> None:
        """Frees what a conversation holds; what it has computed is kept within the limit. What it still asks fails."""
        for ticket, work in self._pending.items():
            if not isinstance(work, Exception) and work.context is context:
                self._runner.release(ticket)
                self._pending[ticket] = EngineError(f"A conversation of {self.name} was closed.", engine=self.name)
        self._conversations.close(context)
        self._runner.close(context)

    def submit(self, request: Request) -> Ticket:
        """Takes a request for the following steps."""
        ticket = next(self._tickets)
        try:
            self._pending[ticket] = self._work(request)
        except EngineError as error:
            self._pending[ticket] = error
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forgets a request."""
        self._runner.release(ticket)
        self._pending.pop(ticket, None)

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Computes the new tokens of all pending work, if there are any, in one forward pass where that can be."""
        working = {
            ticket: work
            for ticket, work in self._pending.items()
            if not isinstance(work, Exception) and work.reply is None
        }
        ran = self._advance(working)
        finished = {}
        for ticket, work in list(self._pending.items()):
            reply = work if isinstance(work, Exception) else work.reply
            if reply is not None:
                finished[ticket] = reply
                self._runner.release(ticket)
                del self._pending[ticket]
        return StepReport(finished, ran.positions, ran.cached)

    @torch.inference_mode()
    def log_likelihood(self, prompt: str | Dialogue, text: str) -> Likelihood:
        """How probable the model finds `text` behind `prompt`, at temperature 1, in a pass of its own without cache.

        What exceeds the context at its end is left out.

        Raises:
            EngineError: the model cannot read one of them.
        """
        before = self._codec.conversation(prompt, max_tokens=1, stop=()).prompt_tokens
        tokens = (*before, *self._codec.encoded(text))[: self.max_context]
        num_tokens = len(tokens) - len(before)
        if num_tokens <= 0:
            return Likelihood(0.0, 0)
        input_ids = torch.tensor([tokens], device=input_device(self.model))
        with WithoutPlans():
            logits = self.model(input_ids, use_cache=False).logits[0, len(before) - 1 : -1]
        logprobs = logits.float().log_softmax(-1).gather(-1, input_ids[0, len(before) :, None].to(logits.device))
        return Likelihood(float(logprobs.double().sum()), num_tokens)

    def _work(self, request: Request) -> Work:
        work = self._conversations.work(request)
        conversation = self._conversations.of(request)
        self._runner.open(request.context, len(conversation.prompt_tokens) + conversation.max_tokens)
        return work

    def _advance(self, working: Mapping[Ticket, Work]) -> Ran:
        """Moves all work one step forward; returns what that took."""
        if self.embeddings is not None:
            self._embed_texts([work for work in working.values() if isinstance(work, EmbedWork)])
            working = {ticket: work for ticket, work in working.items() if work.reply is None}
        if not working:
            return Ran()
        try:
            ran = self._runner.run(working)
        except BaseException:
            self._pending.clear()  # whoever is waiting is told by the channel
            raise
        for ticket, answers in ran.answers.items():
            if isinstance(answers, EngineError):
                self._pending[ticket] = answers
            else:
                working[ticket].take(answers)
        return ran

    def _embed_texts(self, works: Sequence[EmbedWork]) -> None:
        """Answers `Embed` by the encoder, all of a step in one batch."""
        assert self.embeddings is not None
        texts = [
            self._codec.last_text(work.conversation, work.request.prefix, work.request.num_tokens) for work in works
        ]
        try:
            vectors: Sequence[Any] = embed_texts(self.embeddings, texts)
        except Exception as error:  # noqa: BLE001 - somebody else's encoder; who asked for it is told, the others go on
            vectors = [encoder_failure(error, engine=self.name)] * len(works)
        for work, vector in zip(works, vectors, strict=True):
            work.reply = vector


def _runner(model: Any, name: str, *, max_cache_tokens: int | None, max_cache_bytes: int | None) -> Runner:
    check_limit("max_cache_tokens", max_cache_tokens)
    check_limit("max_cache_bytes", max_cache_bytes)
    reason = why_not_cached(model)
    if reason is None and not reads_trees(model):
        reason = "what it says of texts that share a cached beginning is not what it says of each of them"
    if reason is not None:
        warnings.warn(f"{name} computes every text anew, which takes long: {reason}.", UserWarning, stacklevel=3)
        return RecomputingRunner(model)
    return TreeRunner(model, name, _limit(model, max_cache_tokens=max_cache_tokens, max_cache_bytes=max_cache_bytes))


def _limit(model: Any, *, max_cache_tokens: int | None, max_cache_bytes: int | None) -> CacheLimit | None:
    """The narrower one of the limits that a caller has given.

    Raises:
        RainConfigError: the memory is less than one token takes.
    """
    limits = []
    if max_cache_tokens is not None:
        limits.append(CacheLimit(max_cache_tokens, f"max_cache_tokens={max_cache_tokens}"))
    if max_cache_bytes is not None:
        per_token = bytes_per_token(model)
        if max_cache_bytes < per_token:
            raise RainConfigError(
                f"max_cache_bytes: the cache takes {per_token} bytes a token, given {max_cache_bytes!r} for all of it."
            )
        limits.append(CacheLimit(max_cache_bytes // per_token, f"max_cache_bytes={max_cache_bytes}"))
    return min(limits, key=lambda each: each.num_tokens, default=None)
