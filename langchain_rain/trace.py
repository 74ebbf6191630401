"""What happens in a search, as plain records: the data of the custom events `rain_*`."""

from typing import Any

from langchain_rain.search.protocol import Event, Simulated

Record = tuple[str, dict[str, Any]]
"""The name of an event and its data."""


def records_of(event: Event) -> list[Record]:
    """The records of an event, in the order in which it happened.

    `rain_rewind`: the number of tokens given up. `rain_draft`: a text that may be rejected, and of it the end that was
    only written to be judged. `rain_verdict`: what the judge said of it. `rain_commit`: a token set that is part of the
    answer now. This is the one place where rejected text is seen.
    """
    if isinstance(event, Simulated):
        rewinds = [("rain_rewind", {"num_tokens": event.num_rewound_tokens})] if event.num_rewound_tokens else []
        verdict = event.verdict
        return [
            *rewinds,
            ("rain_draft", {"text": event.draft, "rollout": event.rollout, "num_tokens": len(event.prefix)}),
            (
                "rain_verdict",
                {
                    "value": verdict.value,
                    "values": dict(verdict.values),
                    "is_vetoed": verdict.is_vetoed,
                    "is_abstained": verdict.is_abstained,
                },
            ),
        ]
    data = {
        "text": event.token_set.text,
        "value": event.value,
        "num_simulations": event.num_simulations,
        "is_satisfied": event.is_satisfied,
    }
    return [("rain_commit", data)]
