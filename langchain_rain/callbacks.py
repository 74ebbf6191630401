"""The run that an answer belongs to: custom events in it, child runs below it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    UsageMetadataCallbackHandler,
)
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

from langchain_rain.engines.calling import WithoutTokens
from langchain_rain.trace import Record

Manager = TypeVar("Manager", bound=BaseCallbackManager)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a chat model or a gate, as far as what happens inside is told to its handlers.

    Attributes:
        run_id: of the run.
        handlers: hear of the run itself.
        inheritable_handlers: hear of its children too.
        tags: of the run.
        metadata: of the run.
        inheritable_tags: of its children too.
        inheritable_metadata: of its children too.
        tells_usage: whether it tells of all that was run below it, which nobody may count again then.
    """

    run_id: UUID
    handlers: Sequence[BaseCallbackHandler]
    inheritable_handlers: Sequence[BaseCallbackHandler]
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    inheritable_tags: Sequence[str] = ()
    inheritable_metadata: Mapping[str, Any] = field(default_factory=dict)
    tells_usage: bool = True

    @classmethod
    def of(cls, manager: BaseRunManager | BaseCallbackManager, run_id: UUID, *, tells_usage: bool = True) -> "Run":
        """The run of a manager."""
        return cls(
            run_id,
            manager.handlers,
            manager.inheritable_handlers,
            manager.tags,
            manager.metadata,
            manager.inheritable_tags,
            manager.inheritable_metadata,
            tells_usage,
        )

    def children(self) -> CallbackManager:
        """For runs below this one."""
        return self._below(CallbackManager(handlers=[], parent_run_id=self.run_id))

    def achildren(self) -> AsyncCallbackManager:
        """The same for coroutines."""
        return self._below(AsyncCallbackManager(handlers=[], parent_run_id=self.run_id))

    def tell(self, records: Sequence[Record]) -> None:
        """Dispatches custom events to the handlers of the run."""
        manager = CallbackManager(list(self.handlers), tags=list(self.tags), metadata=dict(self.metadata))
        for name, data in records:
            manager.on_custom_event(name, data, run_id=self.run_id)

    async def atell(self, records: Sequence[Record]) -> None:
        """The same without blocking the event loop."""
        manager = AsyncCallbackManager(list(self.handlers), tags=list(self.tags), metadata=dict(self.metadata))
        for name, data in records:
            await manager.on_custom_event(name, data, run_id=self.run_id)

    def _below(self, manager: Manager) -> Manager:
        for handler in self.inheritable_handlers:
            if isinstance(handler, UsageMetadataCallbackHandler):
                if not self.tells_usage:  # as it is: wrapped, it would not be known again and count twice
                    manager.add_handler(handler)
            elif not _must_not_hear_drafts(handler):
                manager.add_handler(WithoutTokens(handler))
        manager.add_tags(list(self.inheritable_tags))
        manager.add_metadata(dict(self.inheritable_metadata))
        return manager


def _must_not_hear_drafts(handler: BaseCallbackHandler) -> bool:
    """Streams would show what may be rejected."""
    return isinstance(handler, _StreamingCallbackHandler | _V2StreamingCallbackHandler)
