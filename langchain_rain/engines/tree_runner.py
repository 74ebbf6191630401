"""Runs a model over one tree of cached keys and values: each token is computed once for all who share it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from langchain_rain.engines.admission import Admission, Admitted, CacheLimit
from langchain_rain.engines.base import Ticket
from langchain_rain.engines.kv_tree import TreeCache
from langchain_rain.engines.masks import Masks
from langchain_rain.engines.packing import Feed, Packed, in_passes, pack
from langchain_rain.engines.prefix_tree import CachedToken
from langchain_rain.engines.runner import CacheInfo, ForwardPass, Ran, direction, input_device
from langchain_rain.engines.sampling import rows_of, sampled
from langchain_rain.engines.transfer import ToHost, to_device
from langchain_rain.engines.wants import Direction, Got, NextToken
from langchain_rain.engines.work import Work
from langchain_rain.search.protocol import Context, Tokens

MAX_SLOTS_APART = 2**16
"""How many slots a forward pass may read at once in which every token has a line of its own."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The questions of a step, one by one, and the token at the place of each."""

    wants: list[NextToken]
    nodes: list[CachedToken]
    directions: list[Direction]
    direction_ends: list[CachedToken]


@dataclass(frozen=True, slots=True)
class _Logits:
    """What came out of a forward pass.

    Attributes:
        parts: `[num_rows, vocabulary]` together.
        row_of: the row of each token of which logits are wanted.
        is_sound: whether all hidden states are finite numbers; None if it does not matter.
    """

    parts: list[torch.Tensor]
    row_of: dict[CachedToken, int]
    is_sound: torch.Tensor | None = None


class TreeRunner:
    """See `Runner`; what is computed stays for whoever begins with the same tokens, within a limit.

    Args:
        model: takes tokens of a tree, each with its position and a mask (`families.check_model`).
        name: of the engine, for errors.
        limit: of what is cached; None for what the open conversations need.
    """

    def __init__(self, model: Any, name: str, limit: CacheLimit | None = None) -> None:
        self._model = model
        self._forward_pass = ForwardPass(model)
        self._masks = Masks(model.config.get_text_config(decoder=True), model.dtype)
        self._cache = TreeCache()
        self._admission = Admission(name, limit)
        self._tree = self._admission.tree
        self._begun: set[Context] = set()
        self._num_read: Counter[Context] = Counter()  # of the prompts that are being read

    @property
    def cache_info(self) -> CacheInfo:
        """See `Runner`."""
        tree = self._tree
        return CacheInfo(tree.num_cached, tree.max_tokens, self._cache.num_bytes, tree.peak_num_cached)

    def open(self, context: Context, num_tokens: int) -> None:
        """See `Runner`."""
        self._admission.open(context, num_tokens)

    def close(self, context: Context) -> None:
        """See `Runner`; memory beyond what the others need is given back."""
        self._begun.discard(context)
        self._num_read.pop(context, None)
        self._admission.close(context)
        if self._cache.capacity > self._tree.max_tokens:
            self._cache.compact(self._tree.compact(), self._tree.max_tokens)

    def release(self, ticket: Ticket) -> None:
        """See `Runner`."""
        self._admission.release(ticket)

    def clear(self) -> None:
        """Forgets everything and frees all memory."""
        self._admission.clear()
        self._cache.clear()

    def run(self, works: Mapping[Ticket, Work]) -> Ran:
        """See `Runner`.

        Raises:
            Exception: the forward pass failed; nothing that was cached is left, as none of it can be trusted.
        """
        try:
            admitted, refused = self._admission.admit(works)
            ran = self._run({ticket: works[ticket] for ticket in admitted}, admitted)
        except BaseException:
            self.clear()
            raise
        for ticket in ran.answers:
            if works[ticket].is_passing:
                self._admission.let_pass(ticket)
        return Ran({**refused, **ran.answers}, ran.positions, ran.cached)

    def read(self, *texts: Tokens) -> list[torch.Tensor]:
        """Computes what is new of some texts in one pass, for a trial; the logits `[vocabulary]` at their ends."""
        self._tree.begin_step()
        new: list[CachedToken] = []
        ends = [self._tree.link(self._tree.root, text, new) for text in texts]
        for end in ends:
            self._tree.hold(end)
        self._tree.give_slots(new)
        logits = self._forward(pack(self._tree, [Feed([node for node in new if node not in ends], ends)]))
        return [logits.parts[0][logits.row_of[end]] for end in ends]

    def _run(self, works: Mapping[Ticket, Work], admitted: Mapping[Ticket, Admitted]) -> Ran:
        if not works:
            return Ran()
        to_fill = {node: ticket for ticket, each in admitted.items() for node in each.new}
        asked = _Asked([], [], [], [])
        took_part = []
        for ticket, work in works.items():
            ends = admitted[ticket].ends
            is_new = ends is None
            for want, end in zip(work.wants, ends, strict=True) if ends is not None else ():
                if isinstance(want, Direction):
                    asked.directions.append(want)
                    asked.direction_ends.append(end)
                else:
                    asked.wants.append(want)
                    asked.nodes.append(end)
                    to_fill.setdefault(end, ticket)
                is_new = is_new or end in to_fill
            if is_new:
                took_part.append(ticket)
        gots, vectors = self._answers(asked, self._feeds(to_fill, works, asked))
        next_got, next_vector = iter(gots), iter(vectors)
        answers = {
            ticket: [next(next_vector if isinstance(want, Direction) else next_got) for want in work.wants]
            for ticket, work in works.items()
            if admitted[ticket].ends is not None
        }
        counts = Counter(to_fill.values())
        positions = {ticket: counts[ticket] for ticket in took_part}
        return Ran(answers, positions, self._found_of_prompts(works, admitted, to_fill))

    def _found_of_prompts(
        self, works: Mapping[Ticket, Work], admitted: Mapping[Ticket, Admitted], to_fill: Mapping[CachedToken, Ticket]
    ) -> dict[Ticket, int]:
        """How much was there already of the prompts that are read to their ends now: all that they did not compute."""
        asking = {
            ticket: work.context
            for ticket, work in works.items()
            if not work.is_passing and work.context not in self._begun
        }
        if not asking:  # as in nearly every step
            return {}
        for node, ticket in to_fill.items():
            if ticket in asking and node.position < asking[ticket].num_prompt_tokens:
                self._num_read[asking[ticket]] += 1
        found = {}
        for ticket, context in asking.items():
            if admitted[ticket].ends is not None and context not in self._begun:
                self._begun.add(context)
                # Less than nothing was found of a prompt that was forgotten while it was read.
                found[ticket] = max(0, context.num_prompt_tokens - self._num_read.pop(context, 0))
        return found

    def _feeds(
        self, to_fill: Mapping[CachedToken, Ticket], works: Mapping[Ticket, Work], asked: _Asked
    ) -> Sequence[Feed]:
        """What is to be computed, by the conversation that asks for it first."""
        wants_logits = set(asked.nodes)
        new: dict[Context, tuple[list[CachedToken], list[CachedToken]]] = {}
        for node, ticket in to_fill.items():
            new.setdefault(works[ticket].context, ([], []))[node in wants_logits].append(node)
        return [Feed(without_logits, with_logits) for without_logits, with_logits in new.values()]

    def _answers(self, asked: _Asked, feeds: Sequence[Feed]) -> tuple[list[Got], list[Got]]:
        """The answers to next-token questions, and those to the others."""
        logits = _joined([self._forward(pack(self._tree, each)) for each in in_passes(feeds)])
        answers, is_sound = self._fetched(asked, logits)
        if not is_sound:
            answers, _ = self._fetched(asked, self._forward_apart(feeds))
        return answers

    def _fetched(self, asked: _Asked, logits: _Logits) -> tuple[tuple[list[Got], list[Got]], bool]:
        """The answers, and whether all hidden states are finite numbers; all of it in one copy from the device."""
        to_host = ToHost()
        get: Callable[[], list[Got]] = list
        if asked.wants:
            rows = [logits.row_of[node] for node in asked.nodes]
            together = logits.parts[0] if len(logits.parts) == 1 else torch.cat(logits.parts)
            get = sampled(asked.wants, rows, together, to_host)
        soundness = to_host.add(logits.is_sound) if logits.is_sound is not None else None
        directions = self._directions(asked)
        vectors = to_host.add(directions) if directions is not None else None
        to_host.copy()
        no_ids = np.zeros(0, np.int64)
        found = [(no_ids, vector) for vector in to_host[vectors]] if vectors is not None else []
        return (get(), found), soundness is None or bool(to_host[soundness])

    def _forward_apart(self, feeds: Sequence[Feed]) -> _Logits:
        """The same with every token in a line of its own, so that one that overflows spoils no other one.

        The mask weighs what a token must not see 0, but 0 times what is not a number is none.
        """
        nodes = [node for feed in feeds for node in feed.nodes]
        wants_logits = {node for feed in feeds for node in feed.with_logits}
        nodes.sort(key=lambda node: node.position)
        passes = []
        while nodes:
            count = max(1, MAX_SLOTS_APART // (nodes[-1].position + 1))
            part, nodes = nodes[:count], nodes[count:]
            apart = [Feed([], [node]) if node in wants_logits else Feed([node], []) for node in part]
            passes.append(self._forward(pack(self._tree, apart, in_shared_lines=False)))
        return _joined(passes)

    def _forward(self, packed: Packed) -> _Logits:
        sliding = self._masks.sliding(packed)
        arrays = [packed.input_ids, packed.position_ids, packed.is_ancestor]
        arrays += [] if sliding is None else [sliding]
        input_ids, position_ids, *masks = to_device(input_device(self._model), *arrays)
        self._cache.begin(packed, num_slots=self._tree.num_slots, max_slots=self._tree.max_tokens)
        logits, hidden = self._forward_pass(
            num_logits=packed.num_logits,
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=self._masks.for_layers(masks[0], masks[1] if len(masks) > 1 else None),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache.store_hidden(hidden)
        is_sound = hidden.isfinite().all()
        if not packed.where:
            return _Logits([], {}, is_sound)
        num_columns = logits.shape[1]
        offset = packed.input_ids.shape[1] - num_columns
        rows = [line * num_columns + column - offset for line, column in packed.where.values()]
        wanted = rows_of(logits.flatten(0, 1), rows)
        return _Logits([wanted], {node: row for row, node in enumerate(packed.where)}, is_sound)

    def _directions(self, asked: _Asked) -> torch.Tensor | None:
        """Unit vectors `[num_directions, dimension]` of the model's own last hidden states."""
        if not asked.directions:
            return None
        hidden = self._cache.hidden
        assert hidden is not None
        ways = zip(asked.directions, asked.direction_ends, strict=True)
        slots = [self._tree.slots_to(end)[-want.num_tokens :] for want, end in ways]
        return torch.stack([direction(hidden[each]) for each in to_device(hidden.device, *slots)])


def _joined(passes: Sequence[_Logits]) -> _Logits:
    """What came out of several passes, together."""
    if len(passes) == 1:  # as in nearly every step
        return passes[0]
    joined = _Logits([], {})
    num_rows = 0
    for each in passes:
        joined.row_of.update((node, num_rows + row) for node, row in each.row_of.items())
        joined.parts.extend(each.parts)
        num_rows += sum(map(len, each.parts))
    sound = [each.is_sound for each in passes if each.is_sound is not None]
    return replace(joined, is_sound=torch.stack(sound).all() if sound else None)
