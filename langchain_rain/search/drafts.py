"""Whole messages, one level deep: drawn one after another until one satisfies.

For engines that write whole messages and show no tokens: a draft is a token set that ends the text, so there is
nothing to roll out and nothing to rewind to but the beginning. What was wrong with one draft may guide the next.
"""

from langchain_rain.errors import BudgetExceededError
from langchain_rain.search.paper import SearchResult, StopReason, evaluate, record_simulation, result_of
from langchain_rain.search.protocol import Expand, Steps, Verdict, ask, derive_seed
from langchain_rain.search.state import Search
from langchain_rain.search.tree import Node, backup


def draft(search: Search) -> Steps[SearchResult]:
    """Draws at most `num_children` messages, no more than `max_simulations`, and commits the first that satisfies.

    If none does, the result is the best of those without a veto, not satisfied.
    """
    verdicts: dict[Node, Verdict] = {}
    stop_reason: StopReason = "dead_end"
    try:
        for ordinal in range(min(search.config.num_children, search.config.max_simulations)):
            yield from _simulate(search, ordinal, verdicts)
            last = next(reversed(verdicts), None)
            if last is not None and verdicts[last].satisfies(search.config.accept_value):
                return _commit(search, last, verdicts[last])
    except BudgetExceededError:
        stop_reason = "budget"
    presentable = [node for node, verdict in verdicts.items() if not verdict.is_vetoed]
    best = max(presentable, key=lambda node: verdicts[node].value, default=search.tree.root)
    verdict = verdicts.get(best, next(reversed(verdicts.values()), None))
    return result_of(search, best, verdict, stop_reason=stop_reason, is_satisfied=False)


def _simulate(search: Search, ordinal: int, verdicts: dict[Node, Verdict]) -> Steps[None]:
    """Draws one more message and judges it; one that was drawn before is not judged again."""
    root = search.tree.root
    last = next(reversed(verdicts.values()), None)
    guided = last is not None and search.config.proposals == "principled"
    request = Expand(
        search.context,
        root.prefix,
        num_token_sets=1,
        num_tokens=1,
        num_draws=1,
        top_k=search.config.top_k,
        temperature=search.config.temperature,
        seed=derive_seed(search.seed, Expand, root.prefix, ordinal),
        exclude=frozenset(child.prefix for child in root.children),
        guidance=search.judge.guidance(last) if guided and last is not None else "",
    )
    events, search.events = search.events, []
    token_sets = yield from ask(request, events)
    if not token_sets:
        search.num_simulations += 1
        return
    search.grow(root, token_sets)
    child = root.children[-1]
    verdicts[child] = yield from evaluate(search, child.text, is_finished=True)
    backup([root, child], verdicts[child].value)
    record_simulation(search, child.prefix, child.text, "", verdicts[child])


def _commit(search: Search, chosen: Node, verdict: Verdict) -> SearchResult:
    assert chosen.finish_reason is not None, "a whole message ends the text"
    search.commit(chosen, chosen.value, is_satisfied=True)
    search.tree.move_root(chosen)
    return result_of(search, chosen, verdict, stop_reason=chosen.finish_reason, is_satisfied=True)
