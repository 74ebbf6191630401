"""Which server a conversation goes to, and when one is left alone; the clock is a number."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from langchain_rain.engines.replicas import MAX_FAILURES, REST_SECONDS, Home, Replica, Replicas


@dataclass(slots=True)
class Clock:
    """Seconds, as set."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def replicas_of(num: int) -> tuple[Replicas, Clock]:
    clock = Clock()
    return Replicas([Replica(f"http://server-{number}") for number in range(num)], clock=clock), clock


def fail(replicas: Replicas, replica: Replica, times: int = MAX_FAILURES) -> None:
    for _ in range(times):
        replica.failed(replicas.clock())


def counts(replicas: Replicas) -> list[int]:
    return [replica.num_conversations for replica in replicas.all]


def test_a_new_conversation_goes_where_the_fewest_are() -> None:
    replicas, _ = replicas_of(3)
    homes = [replicas.settle() for _ in range(4)]
    assert [replicas.all.index(home.replica) for home in homes] == [0, 1, 2, 0]
    replicas.leave(homes[1])
    assert replicas.settle().replica is replicas.all[1]
    assert counts(replicas) == [2, 1, 1]


def test_a_new_conversation_may_be_given_a_server() -> None:
    replicas, _ = replicas_of(2)
    assert replicas.settle(replicas.all[1]).replica is replicas.all[1]
    assert counts(replicas) == [0, 1]


def test_a_conversation_stays_where_it_is_even_if_others_have_less_to_do() -> None:
    replicas, _ = replicas_of(2)
    home, other = replicas.settle(), replicas.settle()
    replicas.leave(other)
    assert [replicas.ask(home) for _ in range(3)] == [replicas.all[0]] * 3


def test_a_server_that_has_failed_less_often_in_a_row_is_asked_again() -> None:
    replicas, _ = replicas_of(2)
    home = replicas.settle()
    fail(replicas, home.replica, MAX_FAILURES - 1)
    home.replica.succeeded()
    fail(replicas, home.replica, MAX_FAILURES - 1)
    assert replicas.ask(home) is replicas.all[0]


def test_a_conversation_moves_from_a_server_that_has_failed_too_often_and_stays_there() -> None:
    replicas, clock = replicas_of(2)
    home, other = replicas.settle(), replicas.settle()
    fail(replicas, home.replica)
    assert replicas.ask(home) is replicas.all[1]
    assert counts(replicas) == [0, 2]
    clock.now += REST_SECONDS  # the first is back, and what has been read is with the second
    assert replicas.ask(home) is replicas.all[1]
    replicas.leave(home)
    replicas.leave(other)
    assert counts(replicas) == [0, 0]


def test_a_new_conversation_avoids_a_server_that_rests() -> None:
    replicas, clock = replicas_of(2)
    fail(replicas, replicas.all[0])
    assert [replicas.settle().replica for _ in range(2)] == [replicas.all[1]] * 2
    clock.now += REST_SECONDS
    assert replicas.settle().replica is replicas.all[0]


def test_while_all_rest_none_is_asked_and_a_new_conversation_waits_at_the_first() -> None:
    replicas, clock = replicas_of(2)
    for replica in replicas.all:
        fail(replicas, replica)
    home = replicas.settle()
    assert home.replica is replicas.all[0]
    assert replicas.ask(home) is None
    assert counts(replicas) == [1, 0]
    clock.now += REST_SECONDS
    assert replicas.ask(home) is replicas.all[0]


def test_after_the_rest_one_request_tries_and_the_others_wait_for_it() -> None:
    replicas, clock = replicas_of(1)
    home = replicas.settle()
    fail(replicas, home.replica)
    assert replicas.ask(home) is None
    clock.now += REST_SECONDS
    assert replicas.ask(home) is home.replica
    assert replicas.ask(home) is None  # the trial is under way
    home.replica.succeeded()
    assert [replicas.ask(home) for _ in range(2)] == [home.replica] * 2


def test_one_more_failure_after_the_rest_is_enough_for_another() -> None:
    replicas, clock = replicas_of(1)
    home = replicas.settle()
    fail(replicas, home.replica)
    clock.now += REST_SECONDS
    assert replicas.ask(home) is home.replica
    fail(replicas, home.replica, 1)
    clock.now += REST_SECONDS - 0.5
    assert replicas.ask(home) is None
    clock.now += 0.5
    assert replicas.ask(home) is home.replica


def test_a_trial_that_never_ends_does_not_keep_a_server_out_for_ever() -> None:
    replicas, clock = replicas_of(1)
    home = replicas.settle()
    fail(replicas, home.replica)
    clock.now += REST_SECONDS
    assert replicas.ask(home) is home.replica  # cancelled: nobody tells how it went
    clock.now += REST_SECONDS
    assert replicas.ask(home) is home.replica


def test_a_router_is_told_which_requests_belong_together() -> None:
    replicas = Replicas([Replica("http://router")], session_header="X-Session-ID")
    one, other = replicas.settle(), replicas.settle()
    assert set(one.headers) == set(other.headers) == {"X-Session-ID"}
    assert one.headers != other.headers
    assert replicas_of(1)[0].settle().headers == {}


@given(st.lists(st.tuples(st.sampled_from(["settle", "leave", "ask", "fail", "succeed", "wait"]), st.integers(0, 7))))
def test_every_server_counts_the_conversations_that_are_there(steps: list[tuple[str, int]]) -> None:
    replicas, clock = replicas_of(3)
    homes: list[Home] = []
    for step, number in steps:
        replica = replicas.all[number % 3]
        match step:
            case "settle":
                homes.append(replicas.settle())
            case "leave" if homes:
                replicas.leave(homes.pop(number % len(homes)))
            case "ask" if homes:
                replicas.ask(homes[number % len(homes)])
            case "fail":
                replica.failed(clock())
            case "succeed":
                replica.succeeded()
            case "wait":
                clock.now += number
        assert counts(replicas) == [sum(home.replica is each for home in homes) for each in replicas.all]
