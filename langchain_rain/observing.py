"""Who may look on while a search runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from langchain_rain.engines.base import Cost
from langchain_rain.search.protocol import Request, Round

if TYPE_CHECKING:
    from langchain_rain.drivers import Outcome


class Observer(Protocol):
    """Hears of one search as it happens, at times of the driver's clock; never twice at once.

    What it raises is logged, and changes nothing.
    """

    def on_round(self, asked: Round, new: Mapping[int, Request], at: float) -> None:
        """The search has come to a round; these of its requests, by their numbers, are about to be submitted."""

    def on_replies(self, replies: Mapping[int, Any], at: float) -> None:
        """Replies, or exceptions in their place, have arrived, of which some may have been given up meanwhile."""

    def on_end(self, end: "Outcome[Any] | BaseException", cost: Cost, at: float) -> None:
        """The search has ended, in this way and at this cost; nothing comes after."""
