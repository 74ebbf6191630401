"""What the next simulations will ask, foreseen so that it can be asked ahead.

Where the next simulation goes depends on a judgement that is not there yet. Most turn out good; so the simulations to
come are played on the tree as if all did, what they would ask is noted, and the tree is put back. Requests carry seeds
of their own, so that asking ahead saves forward passes that wait for one another and changes no value, choice or text,
but for what another packing of a forward pass does to the rounding. A wrong guess costs token positions.
"""

import logging
from collections.abc import Sequence
from typing import Any

from langchain_rain.search.protocol import Expand, Request, Rollout, Round, Steps, TokenSet
from langchain_rain.search.state import Search
from langchain_rain.search.tree import Node, backup, best_for_search

logger = logging.getLogger(__name__)

GOOD = 1.0
"""The value that a judgement is supposed to have until it is there."""

MAX_SIMULATIONS_PER_REQUEST = 4
"""How many simulations are played for each request that may be asked ahead: many ask nothing new. With 8 requests, 8
for each change nothing any more on the demo model, and 2 cost a tenth more forward passes."""


def ask_and_foresee(search: Search, requests: Sequence[Request]) -> Steps[Sequence[Any]]:
    """Asks, and asks ahead; lets the driver know what has happened since it was asked last."""
    events = search.take_events()
    foresee(search)
    ahead = [(key, request) for key, request in search.ahead.items() if request is not None and request not in requests]
    replies = yield Round(tuple(requests), events, tuple(request for _, request in ahead))
    for ((node, kind), _), reply in zip(ahead, replies[len(requests) :], strict=True):
        if reply is not None and not _learn(search, node, reply):
            logger.debug("Asked ahead to no use, and asked again if it is needed: %s", reply)
            search.ahead[node, kind] = None
    return replies[: len(requests)]


def foresee(search: Search) -> None:
    """Fills `search.ahead` up to `lookahead` requests with what the next simulations ask if every judgement is good."""
    if search.config.adaptive:
        return  # where it searches most judgements are bad, and a good one ends the search
    search.ahead = {key: request for key, request in search.ahead.items() if _is_of_use(*key, search.tree.root)}
    before: dict[Node, tuple[int, float, float]] = {}
    try:
        _play(search, before)
    finally:
        for node, statistics in before.items():
            node.visit_count, node.effective_visits, node.value = statistics


def _play(search: Search, before: dict[Node, tuple[int, float, float]]) -> None:
    """Plays simulations until there are enough requests; `before` keeps the numbers of the nodes that it touches."""
    limit, root = search.config.lookahead, search.tree.root
    for leaf in search.leaves:
        _suppose_good(search, leaf, before)
    for _ in range(MAX_SIMULATIONS_PER_REQUEST * limit):
        if sum(request is not None for request in search.ahead.values()) >= limit:
            return
        root = search.decided(root) or root
        if root.finish_reason is not None:
            return
        node = root
        while node.is_expanded and (node is root or node.visit_count > 0):
            node = best_for_search(node, c_puct=search.config.c_puct)
        _note(search, node)
        _suppose_good(search, node, before)


def _note(search: Search, node: Node) -> None:
    """Notes what a simulation asks that arrives at `node`."""
    is_visited = node.visit_count > 0 or node is search.tree.root
    key = (node, Expand if is_visited else Rollout)
    if node.finish_reason is not None or key in search.ahead:
        return
    if is_visited:
        search.ahead[key] = search.expansion_of(node)
    elif node.rollout is None:
        search.ahead[key] = search.rollout_of(node)


def _suppose_good(search: Search, leaf: Node, before: dict[Node, tuple[int, float, float]]) -> None:
    """Backs up what is hoped for."""
    path = search.tree.path_to(leaf)
    for node in path:
        before.setdefault(node, (node.visit_count, node.effective_visits, node.value))
    backup(path, GOOD)


def _is_of_use(node: Node, kind: type, root: Node) -> bool:
    """Whether the search may still need what was asked ahead: it is not known yet, and below or at the root."""
    is_needless = node.is_expanded if kind is Expand else node is root or node.rollout is not None
    return not is_needless and node.prefix[: len(root.prefix)] == root.prefix


def _learn(search: Search, node: Node, reply: Any) -> bool:
    """Puts a reply into the tree; False if it brought nothing, because it failed or offers no token set."""
    if isinstance(reply, TokenSet):
        node.rollout = reply
    elif isinstance(reply, list) and reply:
        search.grow(node, reply)
    else:
        return False
    return True
