"""Servers of one model: which one a conversation goes to, and which one is left alone for a while.

A search asks about beginnings of one text again and again, and a server that has read one before has it in its cache:
so all of a conversation goes to one server, and moves only if that one fails.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Clock = Callable[[], float]

MAX_FAILURES = 3
"""After how many failures in a row a server is left alone: one may be chance."""

REST_SECONDS = 5.0
"""For how long; then one request tries whether it is back."""


@dataclass(slots=True, eq=False)
class Replica:
    """A server, with a circuit breaker.

    Attributes:
        url: where it is, without a slash at its end.
        headers: what is sent with each request to it.
        num_conversations: that are open there.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # there may be a password in it
    num_conversations: int = 0
    _num_failures: int = 0  # in a row
    _rests_until: float = 0.0

    def is_available(self, now: float) -> bool:
        """Whether it may be asked."""
        return self._num_failures < MAX_FAILURES or now >= self._rests_until

    def begin(self, now: float) -> None:
        """Notes that it is asked; of a server that has rested one request at a time tries whether it is back."""
        if self._num_failures >= MAX_FAILURES:
            self._rests_until = now + REST_SECONDS

    def succeeded(self) -> None:
        """Notes that it has answered."""
        self._num_failures = 0

    def failed(self, now: float, *, is_gone: bool = False) -> None:
        """Notes that it has failed, or that nobody is there at all, which is no chance."""
        self._num_failures = MAX_FAILURES if is_gone else self._num_failures + 1
        self._rests_until = now + REST_SECONDS


@dataclass(slots=True, eq=False)
class Home:
    """Where a conversation is.

    Attributes:
        replica: the server.
        headers: what is sent with each of its requests, wherever it is.
    """

    replica: Replica
    headers: Mapping[str, str] = field(default_factory=dict)


class Replicas:
    """Chooses among servers: the one with the fewest conversations of those that have not failed lately.

    Args:
        replicas: at least one.
        session_header: tells a router which requests are of one conversation; empty for none.
        clock: seconds that never go back.
    """

    def __init__(self, replicas: Sequence[Replica], *, session_header: str = "", clock: Clock = time.monotonic) -> None:
        assert replicas, "there is at least one server"
        self.all = tuple(replicas)
        self._session_header = session_header
        self.clock = clock

    def settle(self, replica: Replica | None = None) -> Home:
        """A home for a new conversation, at a certain server or one chosen; `leave` frees it."""
        headers = {self._session_header: uuid.uuid4().hex} if self._session_header else {}
        home = Home(replica or self._least_loaded() or self.all[0], headers)
        home.replica.num_conversations += 1
        return home

    def leave(self, home: Home) -> None:
        """Notes that a conversation has ended."""
        home.replica.num_conversations -= 1

    def ask(self, home: Home) -> Replica | None:
        """The server to ask now: that of the conversation, which moves if it has failed; None if all have."""
        now = self.clock()
        if not home.replica.is_available(now):
            other = self._least_loaded()
            if other is None:
                return None
            self.leave(home)
            home.replica = other
            other.num_conversations += 1
        home.replica.begin(now)
        return home.replica

    def _least_loaded(self) -> Replica | None:
        now = self.clock()
        available = [replica for replica in self.all if replica.is_available(now)]
        return min(available, key=lambda replica: replica.num_conversations, default=None)
