"""Any decoder-only Hugging Face model, in this process.

A stepper: each step is one forward pass over the new tokens of all pending requests, those of siblings side by side,
both orders of a judgement's options at once. Everything a conversation has computed is kept in its row of the cache.
"""

import hashlib
import inspect
import itertools
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from langchain_core.embeddings import Embeddings
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_rain.engines.base import StepReport, Ticket
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.embeddings import embed_texts, encoder_failure
from langchain_rain.engines.families import check_model, eos_token_ids
from langchain_rain.engines.kv_tree import Packed, RowFeed, TreeCache, pack
from langchain_rain.engines.masks import attention_mask
from langchain_rain.engines.merging import StepperChannel
from langchain_rain.engines.prefix_tree import CachedToken, PrefixTree
from langchain_rain.engines.reading import AnswerReader
from langchain_rain.engines.sampling import answer_wants
from langchain_rain.engines.text import Conversation, TextCodec
from langchain_rain.engines.work import EmbedWork, ExpandWork, Got, RolloutWork, ScoreWork, Want, Work
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Embed, Expand, Request, Rollout, Score

CACHE_MARGIN = 200
"""Room, in tokens, for the siblings of a search beside its prompt and answer."""

CACHE_FACTOR = 3
"""How often prompt, answer and margin fit into the cache of a search: written, judged, and tried."""


class TransformersEngine:
    """Answers requests with a Hugging Face model and tokenizer.

    Args:
        model: a `PreTrainedModel` with a language-modelling head, attention by sdpa or eager.
        tokenizer: its `PreTrainedTokenizerBase`.
        embeddings: answers `Embed` from decoded text; without it the mean of the model's own last hidden states does.
        name: names the engine in errors and results; by default the model's name.

    Raises:
        EngineError: the model cannot be searched with: what it lacks is named.
    """

    writes_whole_messages = False

    def __init__(self, model: Any, tokenizer: Any, *, embeddings: Embeddings | None = None, name: str = "") -> None:
        self.name = name or str(model.config.name_or_path) or type(model).__name__
        check_model(model, self.name)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.embeddings = embeddings
        self.channel = StepperChannel(self)
        self._config = model.config.get_text_config(decoder=True)  # a model that also sees nests it
        self.max_context = int(getattr(self._config, "max_position_embeddings", 0) or 2**31)
        self._codec = TextCodec(tokenizer, eos_token_ids=eos_token_ids(model, tokenizer), name=self.name)
        self._cache = TreeCache()
        self._conversations: dict[Context, Conversation] = {}
        self._trees: dict[Context, PrefixTree] = {}
        self._rows: dict[Context, int] = {}
        self._pending: dict[Ticket, Work | Exception] = {}
        self._tickets = itertools.count()
        self._peak_of_closed = 0
        self._takes_logits_to_keep = "logits_to_keep" in inspect.signature(model.forward).parameters

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | None = None,
        embeddings: Embeddings | None = None,
        trust_remote_code: bool = False,
        name: str = "",
    ) -> "TransformersEngine":
        """Loads a model and its tokenizer from a folder or the Hugging Face hub; weights from safetensors only.

        Args:
            id_or_path: the folder, or the id on the hub.
            dtype: of the weights, for example "float32"; "auto" takes what the files hold.
            device: for example "cuda:0"; by default the first GPU, or the CPU where there is none.
            embeddings: as for the class.
            trust_remote_code: whether code that comes with the model may run.
            name: names the engine; by default `id_or_path`.

        Raises:
            EngineError: there is no such model, or it cannot be loaded.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            tokenizer = AutoTokenizer.from_pretrained(id_or_path, trust_remote_code=trust_remote_code)
            model: Any = AutoModelForCausalLM.from_pretrained(
                id_or_path, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
            )
            model.to(device)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise EngineError(
                f"{id_or_path!r} cannot be loaded; give a folder with a Hugging Face model (config.json, tokenizer, "
                f"safetensors) or the id of a model on the hub that can be reached: {reason}",
                engine=id_or_path,
            ) from error
        return cls(model, tokenizer, embeddings=embeddings, name=name or id_or_path)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name, number type, a hash over a sample of the weights and the tokenizer; the encoder too if there is one."""
        digest = hashlib.sha256(self._codec.identity.encode())
        for name, weight in self.model.named_parameters():
            sample = weight.detach().flatten()[:64].float().cpu().numpy()
            digest.update(name.encode() + repr(tuple(weight.shape)).encode() + sample.tobytes())
        encoder = repr(self.embeddings) if self.embeddings is not None else None
        return {
            "engine": "transformers",
            "name": self.name,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "weights": digest.hexdigest()[:16],
            "embeddings": encoder,
        }

    @property
    def peak_cached_positions(self) -> int:
        """The largest number of token positions that one conversation has had cached at once."""
        return max([self._peak_of_closed, *(tree.peak_num_cached for tree in self._trees.values())])

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations go through a template of the model's own; else they are put in lines."""
        return self._codec.has_chat_template

    def shown_to_model(self, request: Score) -> tuple[str, list[str]]:
        """What a judgement puts before the model: as text, special tokens included, and token by token."""
        tokens = self._codec.question_tokens(request.question, request.answer_prefix, request.wrapper)
        return self._codec.spelled_out(tokens)

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
        conversation = self._codec.conversation(prompt, max_tokens=max_tokens, stop=stop)
        tokens = conversation.prompt_tokens
        if len(tokens) + max_tokens > self.max_context:
            raise EngineError(
                f"A prompt of {len(tokens)} tokens and max_tokens={max_tokens} exceed the context of {self.name}, "
                f"{self.max_context} tokens. Shorten the prompt or lower max_tokens.",
                engine=self.name,
            )
        context = Context(self.name, num_prompt_tokens=len(tokens))
        self._conversations[context] = conversation
        return context

    def reader(self, context: Context) -> AnswerReader:
        """Reads the answer of an open conversation."""
        return self._codec.reader(self._conversations[context])

    def close(self, context: Context) -> None:
        """Frees the row of a conversation; the memory of all rows with the last of them. What it still asks fails."""
        for ticket, work in self._pending.items():
            if not isinstance(work, Exception) and work.context is context:
                self._pending[ticket] = EngineError(f"A conversation of {self.name} was closed.", engine=self.name)
        self._conversations.pop(context, None)
        if context in self._trees:
            self._peak_of_closed = max(self._peak_of_closed, self._trees.pop(context).peak_num_cached)
        self._rows.pop(context, None)
        if not self._rows:
            self._cache.clear()

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
        self._pending.pop(ticket, None)

    @torch.inference_mode()
    def step(self) -> StepReport:
        """One forward pass over the new tokens of all pending work, if there are any."""
        working = {
            ticket: work
            for ticket, work in self._pending.items()
            if not isinstance(work, Exception) and work.reply is None
        }
        positions = self._advance(working)
        finished = {}
        for ticket, work in list(self._pending.items()):
            reply = work if isinstance(work, Exception) else work.reply
            if reply is not None:
                finished[ticket] = reply
                del self._pending[ticket]
        return StepReport(finished, positions)

    def _work(self, request: Request) -> Work:
        conversation = self._conversations.get(request.context)
        if conversation is None:
            raise EngineError(f"{request.context!r} is closed, or not of {self.name}.", engine=self.name)
        if isinstance(request, Expand):
            return ExpandWork(request, conversation, self._codec)
        if isinstance(request, Rollout):
            return RolloutWork(request, conversation, self._codec)
        if isinstance(request, Embed):
            return EmbedWork(request, conversation)
        return self._score_work(request)

    def _score_work(self, request: Score) -> ScoreWork:
        tokens = self._codec.question_tokens(request.question, request.answer_prefix, request.wrapper)
        if len(tokens) >= self.max_context:
            raise EngineError(
                f"A judgement of {len(tokens)} tokens exceeds the context of {self.name}, {self.max_context} tokens. "
                "Shorten the rubric's examples or the prompt, or give a judge with a longer context.",
                engine=self.name,
                request="Score",
            )
        return ScoreWork(request, tokens, self._codec.options_token_ids(request.options))

    def _advance(self, working: Mapping[Ticket, Work]) -> dict[Ticket, int]:
        """Moves all work one step forward; returns the new positions of each that took part."""
        if self.embeddings is not None:
            self._embed_texts([work for work in working.values() if isinstance(work, EmbedWork)])
            working = {ticket: work for ticket, work in working.items() if work.reply is None}
        for context in dict.fromkeys(work.context for work in working.values()):
            works = [work for work in working.values() if work.context is context]
            tree = self._tree(context)
            tree.begin_step(kept=[node for work in works for node in work.stands_at])
            num_judged = sum(len(work.tokens) for work in works if isinstance(work, ScoreWork))
            # Long questions, with examples or documents in them, come again with every judgement. Both orders share
            # all but their ends, so that about half of this is left for the next question and the answer.
            tree.max_tokens = max(tree.max_tokens, num_judged)
        working = self._with_room(working)
        plans = {ticket: work.plan(self._tree(work.context)) for ticket, work in working.items()}
        to_fill: dict[CachedToken, Ticket] = {}
        for ticket, (needed, wants) in plans.items():
            asked = {want.node for want in wants}
            for node in needed:
                if not node.is_filled or node in asked:
                    to_fill.setdefault(node, ticket)
        answers = self._forward(working, plans, to_fill)
        self._embed_hidden([work for work in working.values() if isinstance(work, EmbedWork)])
        for ticket, work in working.items():
            work.take([answers[want] for want in plans[ticket][1]])
            if isinstance(work, ScoreWork) and work.end is not None:
                self._tree(work.context).forget_first(work.end)  # the options are not asked about again
        counts = Counter(to_fill.values())
        took_part = [ticket for ticket, (needed, _) in plans.items() if not to_fill.keys().isdisjoint(needed)]
        return {ticket: counts[ticket] for ticket in took_part}

    def _with_room(self, working: Mapping[Ticket, Work]) -> dict[Ticket, Work]:
        """All work but the expansions that have to wait: what is asked ahead must not take the whole cache.

        Those under way together are expected to hold no more than half of it; one is under way whatever it holds.
        """
        expanding = {ticket: work for ticket, work in working.items() if isinstance(work, ExpandWork)}
        held: Counter[Context] = Counter()
        for work in expanding.values():
            if work.has_begun:
                held[work.context] += work.expected_held
        waiting = set()
        for ticket, work in expanding.items():
            if work.has_begun:
                continue
            held_with_it = held[work.context] + work.expected_held
            if held[work.context] and held_with_it > self._tree(work.context).max_tokens // 2:
                waiting.add(ticket)
            else:
                held[work.context] = held_with_it
        return {ticket: work for ticket, work in working.items() if ticket not in waiting}

    def _forward(
        self,
        working: Mapping[Ticket, Work],
        plans: Mapping[Ticket, tuple[Sequence[CachedToken], Sequence[Want]]],
        to_fill: Mapping[CachedToken, Ticket],
    ) -> dict[Want, Got]:
        if not to_fill:
            return {}
        wants = list(dict.fromkeys(want for _, each in plans.values() for want in each))
        asked = {want.node for want in wants}
        new: dict[Context, list[CachedToken]] = {}
        for node, ticket in to_fill.items():
            new.setdefault(working[ticket].context, []).append(node)
        feeds = {
            self._rows[context]: RowFeed(
                self._trees[context],
                without_logits=[node for node in nodes if node not in asked],
                with_logits=[node for node in nodes if node in asked],
            )
            for context, nodes in new.items()
        }
        packed = pack(feeds)
        try:
            logits, hidden = self._run_model(packed)
            if len(feeds) > 1 and not hidden.isfinite().all():
                packed = pack(feeds, in_shared_lines=False)  # so that a row that overflows spoils no other one
                logits, _ = self._run_model(packed)
        except BaseException:
            self._forget_everything()
            raise
        for node in to_fill:
            node.is_filled = True
        if not wants:
            return {}
        offset = packed.input_ids.shape[1] - logits.shape[1]
        places = [packed.where[want.node] for want in wants]
        lines, columns = [line for line, _ in places], [column - offset for _, column in places]
        return dict(zip(wants, answer_wants(wants, logits[lines, columns]), strict=True))

    def _run_model(self, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[num_lines, num_logits or more, vocabulary]`, hidden states `[num_lines, num_tokens, dimension]`."""
        device = self.model.device
        self._cache.begin(packed)
        keep = {"logits_to_keep": max(1, packed.num_logits)} if self._takes_logits_to_keep else {}
        hidden: list[torch.Tensor] = []
        owner = threading.get_ident()

        def keep_hidden(_module: Any, _args: Any, output: Any) -> None:
            if threading.get_ident() == owner:  # another engine may use the same model at the same time
                hidden.append(output[0])

        handle = self.model.get_decoder().register_forward_hook(keep_hidden)
        try:
            output = self.model(
                input_ids=torch.from_numpy(packed.input_ids).to(device),
                position_ids=torch.from_numpy(packed.position_ids).to(device),
                attention_mask=attention_mask(packed, self._config, like=self.model),
                past_key_values=self._cache,
                use_cache=True,
                **keep,
            )
        finally:
            handle.remove()
        self._cache.store_hidden(hidden[0])
        logits = output.logits
        assert isinstance(logits, torch.Tensor)
        return logits, hidden[0]

    def _embed_hidden(self, works: Sequence[EmbedWork]) -> None:
        """Answers `Embed` by the mean of the model's own last hidden states, all of a step in one copy."""
        if works:
            hidden = self._cache.hidden
            assert hidden is not None
            means = [hidden[self._rows[work.context], work.slots].double().mean(dim=0) for work in works]
            vectors = torch.nn.functional.normalize(torch.stack(means), dim=1).cpu().numpy()
            for work, vector in zip(works, vectors, strict=True):
                work.reply = vector

    def _embed_texts(self, works: Sequence[EmbedWork]) -> None:
        """Answers `Embed` by the encoder, all of a step in one batch."""
        assert self.embeddings is not None
        texts = []
        for work in works:
            prefix, count = work.request.prefix, work.request.num_tokens
            whole = self._codec.read(work.conversation, prefix).decoded
            # A character that is not complete before these tokens is theirs, as in the text of a token set.
            texts.append(whole[len(self._codec.read(work.conversation, prefix[:-count]).text) :])
        try:
            vectors: Sequence[Any] = embed_texts(self.embeddings, texts)
        except Exception as error:  # noqa: BLE001 - somebody else's encoder; who asked for it is told, the others go on
            vectors = [encoder_failure(error, engine=self.name)] * len(works)
        for work, vector in zip(works, vectors, strict=True):
            work.reply = vector

    def _tree(self, context: Context) -> PrefixTree:
        """The tree of cached tokens of a conversation, in a row of its own."""
        if context not in self._trees:
            conversation = self._conversations[context]
            room = len(conversation.prompt_tokens) + conversation.max_tokens + CACHE_MARGIN
            self._trees[context] = PrefixTree(CACHE_FACTOR * room)
            taken = set(self._rows.values())
            self._rows[context] = next(row for row in itertools.count() if row not in taken)
        return self._trees[context]

    def _forget_everything(self) -> None:
        """After a forward pass that failed nothing in the cache can be trusted."""
        self._trees.clear()
        self._rows.clear()
        self._pending.clear()
        self._cache.clear()
