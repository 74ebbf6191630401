"""What the next simulations will ask, foreseen so that it can be asked ahead.

Where the next simulation goes depends on a judgement that is not there yet. Most turn out good; so the simulations to
come are played on the tree as if all did, what they would ask is noted, and the tree is put back. Requests carry seeds
of their own: asking ahead saves forward passes that wait for one another, and changes no value, choice or text. A wrong
guess costs token positions.
"""

from collections.abc import Sequence
from typing import Any

from langchain_rain.search.protocol import Expand, Request, Rollout, Round, Steps, TokenSet
from langchain_rain.search.state import Search
from langchain_rain.search.tree import Node, backup, best_for_search

GOOD = 1.0
"""The value that a judgement is supposed to have until it is there."""

MAX_SIMULATIONS_PER_REQUEST = 4
"""How many simulations are played for each request that may be asked ahead: many ask nothing new. Ours, measured."""

Statistics = tuple[int, float, float]


def ask_all(search: Search, requests: Sequence[Request]) -> Steps[Sequence[Any]]:
    """Asks, and asks ahead; lets the driver know what has happened since it was asked last."""
    events, search.events = search.events, []
    foresee(search)
    ahead = [(key, request) for key, request in search.ahead.items() if request is not None and request not in requests]
    replies = yield Round(tuple(requests), tuple(events), tuple(request for _, request in ahead))
    for (key, _), reply in zip(ahead, replies[len(requests) :], strict=True):
        if reply is not None:
            _learn(search, key, reply)
    return replies[: len(requests)]


def foresee(search: Search) -> None:
    """Fills `search.ahead` up to `lookahead` requests with what the next simulations ask if every judgement is good."""
    search.ahead = {key: request for key, request in search.ahead.items() if _is_of_use(*key, search.tree.root)}
    known: dict[Node, Statistics] = {}
    root = search.tree.root
    if search.leaf is not None:
        _suppose_good(search, search.leaf, known)
    for _ in range(MAX_SIMULATIONS_PER_REQUEST * search.config.lookahead):
        if sum(request is not None for request in search.ahead.values()) >= search.config.lookahead:
            break
        root = (search.decided(root) if root.children else None) or root
        node = root
        while node.children and (node is root or node.visit_count > 0):
            node = best_for_search(node, c_puct=search.config.c_puct)
        _note(search, node)
        _suppose_good(search, node, known)
    for node, statistics in known.items():
        node.visit_count, node.effective_visits, node.value = statistics


def _note(search: Search, node: Node) -> None:
    """Notes what a simulation asks that arrives at `node`."""
    kind = Expand if node.visit_count > 0 or node is search.tree.root else Rollout
    is_open = node.finish_reason is None and (kind is Expand or node.rollout is None)
    if is_open and (node, kind) not in search.ahead:
        search.ahead[node, kind] = search.expansion_of(node) if kind is Expand else search.rollout_of(node)


def _suppose_good(search: Search, leaf: Node, known: dict[Node, Statistics]) -> None:
    """Backs up what is hoped for, and keeps what is known."""
    path = search.tree.path_to(leaf)
    for node in path:
        known.setdefault(node, (node.visit_count, node.effective_visits, node.value))
    backup(path, GOOD)


def _is_of_use(node: Node, kind: type, root: Node) -> bool:
    """Whether the search may still need what was asked ahead: it is not known yet, and below or at the root."""
    is_needless = bool(node.children) if kind is Expand else node is root or node.rollout is not None
    return not is_needless and node.prefix[: len(root.prefix)] == root.prefix


def _learn(search: Search, key: tuple[Node, type], reply: Any) -> None:
    """Puts a reply into the tree. What failed is asked once more when it is needed, and fails the search then."""
    node, _ = key
    if isinstance(reply, TokenSet):
        node.rollout = reply
    elif isinstance(reply, list) and reply:
        search.grow(node, reply)
    else:
        search.ahead[key] = None
