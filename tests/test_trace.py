"""What happens in a search, as the records that custom events carry."""

import json

import pytest

from langchain_rain.search.protocol import Committed, Event, Simulated, TokenSet, Verdict
from langchain_rain.trace import Record, records_of

VERDICT = Verdict(-0.5, {"edible": -1.0, "warm": 0.0}, is_vetoed=False, is_abstained=True)
TOLD = {"value": -0.5, "values": {"edible": -1.0, "warm": 0.0}, "is_vetoed": False, "is_abstained": True}


def simulated(num_rewound_tokens: int) -> Simulated:
    return Simulated((1, 2), " Warm the soup", " soup", VERDICT, num_rewound_tokens)


@pytest.mark.parametrize(
    ("event", "records"),
    [
        (
            simulated(0),
            [
                ("rain_draft", {"text": " Warm the soup", "rollout": " soup", "num_tokens": 2}),
                ("rain_verdict", TOLD),
            ],
        ),
        (
            simulated(3),
            [
                ("rain_rewind", {"num_tokens": 3}),
                ("rain_draft", {"text": " Warm the soup", "rollout": " soup", "num_tokens": 2}),
                ("rain_verdict", TOLD),
            ],
        ),
        (
            Committed(TokenSet((1,), " Warm"), 0.25, num_simulations=4, is_satisfied=True),
            [("rain_commit", {"text": " Warm", "value": 0.25, "num_simulations": 4, "is_satisfied": True})],
        ),
    ],
)
def test_an_event_is_told_in_the_order_in_which_it_happened(event: Event, records: list[Record]) -> None:
    assert records_of(event) == records


@pytest.mark.parametrize("event", [simulated(1), Committed(TokenSet((1,), "x"), 1.0, 1, is_satisfied=False)])
def test_records_can_be_written_as_json(event: Event) -> None:
    assert json.loads(json.dumps(records_of(event))) == [list(record) for record in records_of(event)]


def test_what_is_told_may_be_changed_without_changing_what_happened() -> None:
    event = simulated(0)
    records_of(event)[1][1]["values"]["edible"] = 1.0
    assert event.verdict.values == {"edible": -1.0, "warm": 0.0}
