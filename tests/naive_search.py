"""The oracle of the search: RAIN as docs/algorithm.md states it, eager, synchronous, in one class.

It shares requests, seeds and events with the package, and no step of the algorithm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from langchain_rain.search.config import SearchConfig
from langchain_rain.search.protocol import (
    Committed,
    Context,
    Embed,
    Event,
    Expand,
    Request,
    Rollout,
    Score,
    Simulated,
    Tokens,
    TokenSet,
    Verdict,
    derive_seed,
)
from tests.scripted_games import OPTIONS


@dataclass(eq=False)
class NaiveNode:
    prefix: Tokens = ()
    text: str = ""
    token_set: TokenSet | None = None
    depth: int = 0
    prior: float = 1.0
    visits: int = 0
    effective_visits: float = 0.0
    value: float = 0.0
    path_embeddings: list[Any] = field(default_factory=list)
    stand_in: Any = None
    num_expansions: int = 0
    children: list["NaiveNode"] = field(default_factory=list)

    @property
    def is_end(self) -> bool:
        return self.token_set is not None and self.token_set.finish_reason is not None

    @property
    def embedding(self) -> Any:
        if not self.path_embeddings:
            return self.stand_in
        mean = self.path_embeddings[0]
        for count, embedding in enumerate(self.path_embeddings[1:], start=1):
            mean = (mean * count + embedding) / (count + 1)
        return mean


class NaiveSearch:
    """Plays a whole game at once; `events` is its trace, `root` the last root."""

    def __init__(
        self, answer: Callable[[Request], Any], context: Context, config: SearchConfig, *, seed: int, can_veto: bool
    ) -> None:
        self.answer, self.context, self.config, self.seed, self.can_veto = answer, context, config, seed, can_veto
        self.root = NaiveNode(visits=1, effective_visits=1.0)
        self.events: list[Event] = []
        self.stop_reason: str | None = None
        self.num_simulations = self.num_commits = 0
        self.last_leaf: Tokens = ()

    def play(self) -> "NaiveSearch":
        while self.stop_reason is None:
            self._extend()
        return self

    def _extend(self) -> None:
        config, before = self.config, self.num_simulations
        self._expand(self.root)
        self._set_priors(self.root)
        used = self.root.visits if self.num_commits else 0
        limit = max(config.max_simulations - used, min(config.min_further_simulations, config.max_simulations))
        is_above = False
        while self.num_simulations - before < limit and not is_above:
            self._simulate()
            best = self._ranked()[0]
            is_above = best.visits > config.min_visits and best.value > config.value_threshold
        chosen, is_satisfied = self._accept(is_above=is_above)
        if chosen is None:
            self.stop_reason = "dead_end"
            return
        assert chosen.token_set is not None
        self.events.append(Committed(chosen.token_set, chosen.value, self.num_simulations - before, is_satisfied))
        self.num_commits += 1
        self.root = chosen
        self.stop_reason = chosen.token_set.finish_reason

    def _ranked(self) -> list[NaiveNode]:
        return sorted(self.root.children, key=lambda child: (-child.effective_visits, -child.value))

    def _accept(self, *, is_above: bool) -> tuple[NaiveNode | None, bool]:
        best = self._ranked()[0]
        if is_above and self.config.value_threshold >= self.config.accept_value:
            _, is_vetoed, is_abstained = self._verdict(best.text) if self.can_veto else (0.0, False, False)
            if not is_vetoed and not is_abstained:
                return best, True
        if self.config.accept_value == -1 and not self.can_veto:
            return best, False
        for child in self._ranked():
            value, is_vetoed, is_abstained = self._verdict(child.text)
            if not is_vetoed and value >= self.config.accept_value:
                return child, value > self.config.accept_value and not is_abstained
        return None, False

    def _verdict(self, text: str) -> tuple[float, bool, bool]:
        reply = self.answer(Score(self.context, text, "", OPTIONS))
        if reply.logprobs[1] == 0:
            return -1.0, True, False
        return (0.0, False, True) if reply.mass == 0 else (reply.logprobs[0] + 1, False, False)

    def _simulate(self) -> None:
        path = [self.root]
        while path[-1].children:
            self._maybe_add(path[-1])
            path.append(max(path[-1].children, key=lambda child: self._puct(child, path[-1])))
        leaf = path[-1]
        rollout = TokenSet((), "")
        if not leaf.is_end:
            config = self.config
            rollout = self.answer(
                Rollout(
                    self.context,
                    leaf.prefix,
                    config.rollout_until,
                    config.max_rollout_tokens,
                    config.temperature,
                    derive_seed(self.seed, Rollout, leaf.prefix, 0),
                )
            )
        draft = leaf.text + rollout.text
        value, is_vetoed, is_abstained = self._verdict(draft)
        if not leaf.is_end:
            self._expand(leaf)
        for node in path:
            node.value = (node.value * node.effective_visits + value) / (node.effective_visits + 1)
            node.effective_visits += 1
            node.visits += 1
        if self.config.similarity_scope != "off" or self.config.adds_children:
            self._share(path, path[-1].prefix + rollout.tokens, value)
        self.num_simulations += 1
        num_common = 0
        while self.last_leaf[: num_common + 1] == leaf.prefix[: num_common + 1] and num_common < len(self.last_leaf):
            num_common += 1
        verdict = Verdict(value, is_vetoed=is_vetoed, is_abstained=is_abstained)
        self.events.append(Simulated(leaf.prefix, draft, rollout.text, verdict, len(self.last_leaf) - num_common))
        self.last_leaf = leaf.prefix

    def _puct(self, child: NaiveNode, parent: NaiveNode) -> float:
        known = 0 if child.effective_visits == 0 else (child.value + 1) / (1 - -1 + 1e-5)
        return known + self.config.c_puct * (
            child.prior * math.sqrt(parent.effective_visits) / (1 + child.effective_visits)
        )

    def _share(self, path: list[NaiveNode], whole: Tokens, value: float) -> None:
        scope = self.config.similarity_scope
        for parent, node in pairwise(path):
            node.path_embeddings.append(self._embedding(whole, len(whole) - len(parent.prefix)))
            for sibling in parent.children:
                if sibling is node:
                    continue
                if scope == "all" and sibling.embedding is None:
                    sibling.stand_in = self._embedding(sibling.prefix, len(sibling.prefix) - len(parent.prefix))
                if scope == "off" or sibling.embedding is None:
                    continue
                ours, theirs = node.embedding, sibling.embedding
                similarity = float(ours @ theirs) / (float(np.linalg.norm(ours)) * float(np.linalg.norm(theirs)))
                if similarity >= self.config.similarity_threshold:
                    weight = self.config.similarity_weight * similarity
                    total = sibling.effective_visits + weight
                    sibling.value = (sibling.value * sibling.effective_visits + value * weight) / total
                    sibling.effective_visits = total

    def _embedding(self, prefix: Tokens, num_tokens: int) -> Any:
        return self.answer(Embed(self.context, prefix, num_tokens))

    def _expand(self, node: NaiveNode) -> None:
        if not node.children and not node.is_end:
            self._add(node, self.config.num_children, self.config.num_draws)

    def _maybe_add(self, node: NaiveNode) -> None:
        children, config = node.children, self.config
        if not config.adds_children or len(children) >= config.max_children:
            return
        if any(child.visits == 0 or child.value >= 0 for child in children):
            return
        length = config.token_set_lengths[min(node.depth, len(config.token_set_lengths) - 1)]
        stacked = np.stack([child.embedding for child in children])
        spread = float(np.linalg.norm(stacked.var(axis=0, ddof=1))) if len(children) > 1 else 0.0
        if spread < config.spread_threshold * length * math.sqrt(384 / stacked.shape[1]):
            self._add(node, 1, 5)

    def _add(self, node: NaiveNode, num_token_sets: int, num_draws: int) -> None:
        config = self.config
        request = Expand(
            self.context,
            node.prefix,
            num_token_sets,
            config.token_set_lengths[min(node.depth, len(config.token_set_lengths) - 1)],
            num_draws,
            config.top_k,
            config.temperature,
            derive_seed(self.seed, Expand, node.prefix, node.num_expansions),
            frozenset(child.token_set.tokens for child in node.children if child.token_set),
        )
        node.num_expansions += 1
        for token_set in self.answer(request):
            node.children.append(
                NaiveNode(node.prefix + token_set.tokens, node.text + token_set.text, token_set, node.depth + 1)
            )
        self._set_priors(node)

    def _set_priors(self, node: NaiveNode) -> None:
        token_sets = [child.token_set for child in node.children if child.token_set]
        weights = [math.exp(token_set.logprob) for token_set in token_sets]
        sampled = [weight for weight, each in zip(weights, token_sets, strict=True) if not each.is_greedy]
        if self.config.token_set_lengths[min(node.depth, len(self.config.token_set_lengths) - 1)] > 1 and sampled:
            for number, each in enumerate(token_sets):
                if each.is_greedy:
                    weights[number] = max(min(weights[number], sum(sampled)), max(sampled) + min(sampled))
        mixing = self.config.root_mixing if node is self.root else 0.0
        for child, weight in zip(node.children, weights, strict=True):
            child.prior = (1 - mixing) * (weight / sum(weights)) + mixing * (1 / len(weights))
