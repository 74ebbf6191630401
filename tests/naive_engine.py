"""The oracle: an engine without a cache, one whole forward pass for every single question.

Slow and plain on purpose. Whatever an engine does to be fast, its replies have to be these.
"""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langchain_rain.engines.base import StepReport, Ticket
from langchain_rain.engines.conversation import Conversation
from langchain_rain.engines.dialogue import Dialogue, guided
from langchain_rain.engines.merging import StepperChannel
from langchain_rain.engines.text import TextCodec
from langchain_rain.search.protocol import (
    Context,
    Embed,
    Expand,
    OptionLogprobs,
    Request,
    Rollout,
    Score,
    Tokens,
    TokenSet,
)

Vector = NDArray[np.float64]


class NaiveEngine:
    """Answers requests with a Hugging Face model, each token by a forward pass over everything before it.

    A stepper that finishes the oldest pending request in one step.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str = "naive") -> None:
        self.name = name
        self.identity: Mapping[str, Any] = {"engine": "naive", "name": name}
        self.channel = StepperChannel(self)
        self.num_positions = 0
        self._model = model.eval()
        takes_use_cache = "use_cache" in inspect.signature(model.forward).parameters
        self._no_cache = {"use_cache": False} if takes_use_cache else {}
        self._codec = TextCodec(tokenizer, eos_token_ids=_eos_token_ids(model, tokenizer), name=name)
        self._conversations: dict[Context, Conversation] = {}
        self._pending: dict[Ticket, Request] = {}
        self._tickets = itertools.count()

    def open(self, prompt: str | Dialogue, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        conversation = self._codec.conversation(prompt, max_tokens=max_tokens, stop=stop)
        context = Context(self.name, num_prompt_tokens=len(conversation.prompt_tokens))
        self._conversations[context] = conversation
        return context

    def close(self, context: Context) -> None:
        self._conversations.pop(context, None)

    def submit(self, request: Request) -> Ticket:
        ticket = next(self._tickets)
        self._pending[ticket] = request
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        self._pending.pop(ticket, None)

    def step(self) -> StepReport:
        ticket = next(iter(self._pending))
        before = self.num_positions
        reply = self.reply(self._pending.pop(ticket))
        return StepReport({ticket: reply}, {ticket: self.num_positions - before})

    def reply(self, request: Request) -> Any:
        """The reply to a request, at once."""
        if isinstance(request, Expand):
            return self._most_probable_tokens(request) if request.num_tokens == 1 else self._token_sets(request)
        if isinstance(request, Rollout):
            return self._roll_out(request)
        if isinstance(request, Score):
            return self._score(request)
        return self._embed(request)

    def _most_probable_tokens(self, request: Expand) -> list[TokenSet]:
        logprobs = self._next_logprobs(self._sequence(request), request.temperature)
        ranked = np.argsort(-logprobs, kind="stable")
        candidates = [
            self._token_set(request, (int(token),), float(logprobs[token]), is_greedy=rank == 0)
            for rank, token in enumerate(ranked)
            if (int(token),) not in request.exclude
        ]
        return candidates[: request.num_token_sets]

    def _token_sets(self, request: Expand) -> list[TokenSet]:
        random = np.random.Generator(np.random.Philox(request.seed))
        draws = random.random((request.num_draws, request.num_tokens))
        candidates = [self._grow(request, np.zeros(request.num_tokens), is_greedy=True)]
        candidates += [self._grow(request, uniforms, is_greedy=False) for uniforms in draws]
        chosen: list[TokenSet] = []
        for candidate in candidates:
            is_new = candidate.tokens not in [each.tokens for each in chosen]
            if is_new and candidate.tokens not in request.exclude:
                chosen.append(candidate)
        return chosen[: request.num_token_sets]

    def _grow(self, request: Expand, uniforms: Vector, *, is_greedy: bool) -> TokenSet:
        tokens: Tokens = ()
        total = 0.0
        for uniform in uniforms:
            if self._finish_reason(request, tokens) is not None:
                break
            logprobs = self._next_logprobs((*self._sequence(request), *tokens), request.temperature)
            top = np.argsort(-logprobs, kind="stable")[: request.top_k]
            token, logprob = _draw(top, logprobs[top], float(uniform))
            tokens, total = (*tokens, token), total + logprob
        return self._token_set(request, tokens, total, is_greedy=is_greedy)

    def _roll_out(self, request: Rollout) -> TokenSet:
        random = np.random.Generator(np.random.Philox(request.seed))
        tokens: Tokens = ()
        total = 0.0
        while not self._is_rolled_out(request, tokens):
            logprobs = self._next_logprobs((*self._sequence(request), *tokens), request.temperature)
            ids = np.arange(len(logprobs))
            guided_prompt = self._guided_prompt(request)
            if guided_prompt is not None:
                ids = np.argsort(-logprobs, kind="stable")[:15]
                ids = ids[np.exp(logprobs[ids]) >= 0.001 * np.exp(logprobs.max())]
                sequence = (*guided_prompt, *request.prefix, *tokens)
                logprobs = self._next_logprobs(sequence, request.temperature)[ids]
            token, logprob = _draw(ids, logprobs, random.random())
            tokens, total = (*tokens, token), total + logprob
        return self._token_set(request, tokens, total, is_greedy=False)

    def _is_rolled_out(self, request: Rollout, tokens: Tokens) -> bool:
        if len(tokens) == request.max_tokens or self._finish_reason(request, tokens) is not None:
            return True
        text = self._codec.read(self._conversations[request.context], request.prefix + tokens).decoded
        is_long_enough = len(tokens) >= request.min_tokens and bool(request.prefix + tokens)
        return is_long_enough and any(text.endswith(mark) for mark in request.until)

    def _score(self, request: Score) -> OptionLogprobs:
        question = self._codec.question_tokens(request.question, request.answer_prefix)
        logprobs = self._next_logprobs(question, temperature=1.0)
        spellings = [list(self._codec.option_token_ids(option)) for option in request.options]
        probabilities = [np.exp(logprobs[ids]).sum() for ids in spellings]
        return OptionLogprobs(tuple(float(np.log(each)) for each in probabilities), float(sum(probabilities)))

    def _embed(self, request: Embed) -> Vector:
        sequence = self._sequence(request)
        self.num_positions += len(sequence)
        with torch.inference_mode():
            decoder = self._model.get_decoder()
            decoder = decoder.model if decoder is self._model else decoder  # Llama 4
            states = decoder(self._input_ids(sequence), **self._no_cache).last_hidden_state
        mean: Vector = states[0, -request.num_tokens :].double().mean(dim=0).cpu().numpy()
        return np.asarray(mean / np.linalg.norm(mean))

    def _next_logprobs(self, sequence: Tokens, temperature: float) -> Vector:
        self.num_positions += len(sequence)
        with torch.inference_mode():
            logits = self._model(self._input_ids(sequence), **self._no_cache).logits[0, -1].cpu()
        return np.asarray(torch.log_softmax(logits.double() / temperature, dim=-1).numpy())

    def _input_ids(self, sequence: Tokens) -> torch.Tensor:
        return torch.tensor([sequence], device=self._model.device)

    def _sequence(self, request: Expand | Rollout | Embed) -> Tokens:
        return self._conversations[request.context].prompt_tokens + request.prefix

    def _guided_prompt(self, request: Rollout) -> Tokens | None:
        conversation = self._conversations[request.context]
        prompt, guidance = conversation.prompt, request.guidance
        if not guidance:
            return None
        if isinstance(prompt, str):
            guided_prompt: str | Dialogue = f"{guidance}\n\n{prompt}"
        else:
            guided_prompt = Dialogue(tuple(guided(prompt.messages, guidance)), tools=prompt.tools)
        tokens = self._codec.conversation(guided_prompt, max_tokens=0, stop=()).prompt_tokens
        config = self._model.config.get_text_config(decoder=True)
        longest = getattr(config, "max_position_embeddings", None) or 10**9
        return tokens if len(tokens) + conversation.max_tokens <= longest else None

    def _finish_reason(self, request: Expand | Rollout, tokens: Tokens) -> str | None:
        return self._codec.read(self._conversations[request.context], request.prefix + tokens).finish_reason

    def _token_set(self, request: Expand | Rollout, tokens: Tokens, logprob: float, *, is_greedy: bool) -> TokenSet:
        conversation = self._conversations[request.context]
        before = self._codec.read(conversation, request.prefix)
        after = self._codec.read(conversation, request.prefix + tokens)
        return TokenSet(tokens, after.text.removeprefix(before.text), logprob, is_greedy, after.finish_reason)


def _draw(ids: NDArray[np.int64], logprobs: Vector, uniform: float) -> tuple[int, float]:
    """The token that `uniform` in [0, 1) picks among `ids`, and its log probability renormalised over them."""
    cumulative = np.cumsum(np.exp(logprobs - logprobs.max()))
    picked = min(int(cumulative.searchsorted(uniform * cumulative[-1], side="right")), len(ids) - 1)
    return int(ids[picked]), float(logprobs[picked] - logprobs.max() - np.log(cumulative[-1]))


def _eos_token_ids(model: Any, tokenizer: Any) -> set[int]:
    declared = model.generation_config.eos_token_id
    ids = set(declared) if isinstance(declared, list) else {declared}
    return (ids | {tokenizer.eos_token_id}) - {None}
