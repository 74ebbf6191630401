"""What of a guard's answers a cache may keep."""

from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.messages import AIMessage

PASSING_REASONS = frozenset({"error", "budget"})
"""Why an answer ended that another time may not end so."""


class LastingAnswers(BaseCache):
    """A cache that keeps no answer that an error or a budget has cut short, and none that a policy let pass.

    Args:
        cache: keeps the others.
    """

    def __init__(self, cache: BaseCache) -> None:
        self._cache = cache

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """What was kept."""
        return self._cache.lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keeps an answer if it would be the same another time."""
        if _is_lasting(return_val):
            self._cache.update(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        """Forgets all of it."""
        self._cache.clear(**kwargs)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """What was kept."""
        return await self._cache.alookup(prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keeps an answer if it would be the same another time."""
        if _is_lasting(return_val):
            await self._cache.aupdate(prompt, llm_string, return_val)


def _is_lasting(generations: RETURN_VAL_TYPE) -> bool:
    for generation in generations:
        message = getattr(generation, "message", None)
        rain = message.response_metadata.get("rain", {}) if isinstance(message, AIMessage) else {}
        if rain.get("stop_reason") in PASSING_REASONS or rain.get("bypass") is not None:
            return False
    return True
