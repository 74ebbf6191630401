"""RAIN where it is needed: draft, judge, go on; search only what fails.

Most answers are fine from the start, and a search that visits every token set many times pays for all of them. Here the
answer grows by segments that are drafted like plain sampling, and judged. While one is judged the next is begun. A
segment that fails is kept up to its first clause that fails; there the search of the paper takes over until something
that it has rolled out passes (of a round the best), and drafting goes on behind it. Segments grow while they pass, and
start small again where one has failed (algorithm.md, section 10).

What passes was judged itself, without a look ahead, above `value_threshold`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_rain.errors import BudgetExceededError
from langchain_rain.search.paper import (
    SearchResult,
    StopReason,
    evaluate,
    grow_until_end,
    record_simulation,
    simulate,
)
from langchain_rain.search.protocol import Round, Steps, Tokens, TokenSet, Verdict, ask, ask_all, together
from langchain_rain.search.state import Search, Segment
from langchain_rain.search.tree import backup


@dataclass(frozen=True, slots=True)
class Attempt:
    """A text that was written after the root, and what the judge says of all up to its end."""

    token_set: TokenSet
    verdict: Verdict


def generate(search: Search) -> Steps[SearchResult]:
    """Lets the answer grow by segments that pass until it ends."""
    return (yield from grow_until_end(search, extend))


def extend(search: Search) -> Steps[StopReason | None]:
    """Moves the root past one more segment; commits what is held back no longer.

    Returns why the text ends there, if it does.
    """
    try:
        failed = yield from _draft_segment(search)
        is_dead_end = failed is not None and not (yield from _repair(search, failed))
    except BudgetExceededError:
        _commit(search, num_held=0)  # what was moved past is the best there is
        raise
    reason = "dead_end" if is_dead_end else search.tree.root.finish_reason
    if reason is not None:
        _commit(search, num_held=0)
    return reason


# Drafting


def _draft_segment(search: Search) -> Steps[Attempt | None]:
    """Drafts a segment and moves on to its end; or to where its first clause fails, which is returned."""
    clauses = yield from _draft(search)
    whole = joined(clauses)
    verdict, search.drafted_ahead = yield from together(_evaluate(search, whole), _draft_ahead(search, whole))
    _record(search, whole, verdict)
    if search.passes(verdict):
        _move_on(search, Attempt(whole, verdict))
        search.num_passed += 1
        return None
    search.num_passed, search.drafted_ahead = 0, None
    return (yield from _keep_what_passes(search, clauses, verdict))


def _draft(search: Search) -> Steps[list[TokenSet]]:
    """Drafts clause by clause until there is enough to be judged, or the text ends."""
    length = search.config.segment_length(search.num_passed)
    clauses = [search.drafted_ahead] if search.drafted_ahead is not None else []
    written = joined(clauses)
    while written.finish_reason is None and len(written.tokens) < length:
        request = search.clause_after(written.tokens)
        clauses.append((yield from ask(request, search.take_events())))
        written = joined(clauses)
        if _is_nothing(clauses[-1]):
            raise search.nothing_offered(request)
    return clauses


def _draft_ahead(search: Search, written: TokenSet) -> Steps[TokenSet | None]:
    """Begins the clause after a segment, beside its judgement: asked for again when it has passed it goes on."""
    if written.finish_reason is not None or search.config.lookahead == 0:
        return None
    replies = yield Round((), search.take_events(), ahead=(search.clause_after(written.tokens),))
    return replies[0] if isinstance(replies[0], TokenSet) else None


def _keep_what_passes(search: Search, clauses: Sequence[TokenSet], verdict: Verdict) -> Steps[Attempt]:
    """Judges a segment that failed clause by clause; moves on to its first one that fails, and returns that."""
    beginnings = [joined(clauses[:count]) for count in range(1, len(clauses))]
    *verdicts, _ = yield from together(*(_evaluate(search, each) for each in beginnings), _drop_ahead(search))
    verdicts.append(verdict)
    num_good = next(count for count, each in enumerate(verdicts) if not search.passes(each))
    for beginning, each in list(zip(beginnings, verdicts, strict=False))[max(0, num_good - 1) : num_good + 1]:
        _record(search, beginning, each)
    if num_good > 0:
        _move_on(search, Attempt(beginnings[num_good - 1], verdicts[num_good - 1]))
    return Attempt(clauses[num_good], verdicts[num_good])


def _drop_ahead(search: Search) -> Steps[None]:
    yield Round((), search.take_events(), ahead=())


# Repairing


def _repair(search: Search, failed: Attempt) -> Steps[bool]:
    """Moves on past something else than `failed`; False if nothing is found that may be committed.

    Segments that are held back are taken back where nothing that follows them passes. Where a text has failed as a
    finished answer alone, other ends are tried: what goes on would be judged well without being any nearer to one.
    """
    root, held, attempts = search.tree.root, list(search.held), [failed]
    backup([search.tree.root.add_child(failed.token_set)], failed.verdict.value)  # a child whose value is known
    found = None
    try:
        search.seeks_end = yield from _fails_as_end(search, failed)
        found = yield from _find(search, attempts)
        while found is None and search.held and search.num_taken_back < search.config.hold_back:
            dead_end = _take_back(search)
            found = yield from _find(search, [], dead_end)
    finally:  # a budget or an error may end it while a segment is taken back that had passed
        search.seeks_end = False
        if found is None:
            for segment in held[len(search.held) :]:
                segment.before.children.append(segment.node)
            search.tree.root, search.held = root, held
    if found is None:
        found = _best(search, attempts)
    if found is not None:
        _move_on(search, found)
    return found is not None


def _fails_as_end(search: Search, failed: Attempt) -> Steps[bool]:
    """Whether a text that ends would pass if it went on."""
    if failed.token_set.finish_reason is None or search.judge.applies_to != {"prefix", "final"}:
        return False
    return search.passes((yield from _evaluate(search, replace(failed.token_set, finish_reason=None))))


def _find(search: Search, attempts: list[Attempt], dead_end: Tokens | None = None) -> Steps[Attempt | None]:
    """Searches from the root for a text that passes and does not begin with `dead_end`.

    All that is tried is appended to `attempts`.
    """
    config = search.config
    num_left = config.max_simulations
    while num_left > 0:
        simulations = yield from simulate(search, min(config.num_parallel_leaves, num_left))
        num_left -= len(simulations)
        tried = []
        for each in simulations:
            edges = [node.token_set for node in search.tree.path_to(each.leaf)[1:] if node.token_set is not None]
            tried.append(Attempt(joined([*edges, each.rollout]), each.verdict))
        attempts += tried
        found = _best_that_stands(search, tried, dead_end)
        if found is not None:
            return found
    return (yield from _find_guided(search, attempts, dead_end)) if config.proposals == "principled" else None


def _best_that_stands(search: Search, tried: Sequence[Attempt], dead_end: Tokens | None) -> Attempt | None:
    """The best attempt of a round that passes; of equals the one that selection preferred."""
    return max((each for each in tried if _stands(search, each, dead_end)), key=_value, default=None)


def _stands(search: Search, attempt: Attempt, dead_end: Tokens | None) -> bool:
    """Whether an attempt passes and says something: a mark alone, or the mere end, is judged as what was there before.

    The end is taken nevertheless if nothing better is found (`_best`).
    """
    token_set = attempt.token_set
    is_dead = dead_end is not None and token_set.tokens[: len(dead_end)] == dead_end
    return search.passes(attempt.verdict) and any(map(str.isalnum, token_set.text)) and not is_dead


def _value(attempt: Attempt) -> float:
    return attempt.verdict.value


def _find_guided(search: Search, attempts: list[Attempt], dead_end: Tokens | None) -> Steps[Attempt | None]:
    """Asks for clauses by a writer that is told what the rubric wants, all of them at once."""
    guidance = search.judge.guidance(min(attempts, key=_value).verdict)
    requests = [search.guided_clause(guidance, ordinal) for ordinal in range(search.config.num_children)]
    replies = dict.fromkeys((yield from ask_all(requests, search.take_events())))
    clauses = [clause for clause in replies if not _is_nothing(clause)]
    verdicts = yield from together(*(_evaluate(search, clause) for clause in clauses))
    tried = [Attempt(clause, verdict) for clause, verdict in zip(clauses, verdicts, strict=True)]
    for each in tried:
        _record(search, each.token_set, each.verdict)
    attempts += tried
    return _best_that_stands(search, tried, dead_end)


def _best(search: Search, attempts: Sequence[Attempt]) -> Attempt | None:
    """The best that may be committed though it does not pass, the first of equals."""
    allowed = [each for each in attempts if search.allows(each.verdict)]
    return max(allowed, key=_value, default=None)


# The tree


def joined(token_sets: Sequence[TokenSet]) -> TokenSet:
    """Token sets that follow one another as a single one; without any, one that says nothing."""
    return TokenSet(
        tokens=tuple(token for each in token_sets for token in each.tokens),
        text="".join(each.text for each in token_sets),
        logprob=sum(each.logprob for each in token_sets),
        finish_reason=next((each.finish_reason for each in token_sets if each.finish_reason is not None), None),
    )


def _move_on(search: Search, attempt: Attempt) -> None:
    """Moves the root past a text that follows it."""
    before = search.tree.root
    child = before.add_child(attempt.token_set)
    backup([child], attempt.verdict.value)
    search.tree.move_root(child)
    search.held.append(Segment(before, child, attempt.verdict))
    _commit(search, num_held=search.config.hold_back)


def _take_back(search: Search) -> Tokens:
    """Takes back the last segment that is held; returns its tokens, which lead to a dead end.

    Where a search has found it, the nodes on its way have the value it had, and learn what it has come to.
    """
    segment = search.held.pop()
    search.tree.take_back_root(segment.before)
    search.num_taken_back += 1
    dead_end = segment.node.prefix[len(segment.before.prefix) :]
    backup(segment.before.nodes_along(dead_end), -1.0)
    return dead_end


def _commit(search: Search, *, num_held: int) -> None:
    """Commits the oldest segments until no more than `num_held` are held back."""
    while len(search.held) > num_held:
        segment = search.held.pop(0)
        verdict = segment.verdict
        search.commit(segment.node, verdict.value, is_satisfied=verdict.satisfies(search.config.accept_value))
        search.num_taken_back = 0


def _evaluate(search: Search, token_set: TokenSet) -> Steps[Verdict]:
    """Judges the text of the root and what follows it."""
    text = search.tree.root.text + token_set.text
    return (yield from evaluate(search, text, is_finished=token_set.finish_reason is not None))


def _record(search: Search, token_set: TokenSet, verdict: Verdict) -> None:
    root = search.tree.root
    record_simulation(search, root.prefix + token_set.tokens, root.text + token_set.text, "", verdict)


def _is_nothing(token_set: TokenSet) -> bool:
    return not token_set.tokens and token_set.finish_reason is None
