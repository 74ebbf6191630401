"""What LlamaIndex tells of a call, by callbacks and by instrumentation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher
from pydantic import PrivateAttr


class Notes(BaseEventHandler):
    """Writes down the events of the language model."""

    _events: list[BaseEvent] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Notes"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if event.class_name().startswith("LLM") or event.class_name() == "ExceptionEvent":
            self._events.append(event)

    @property
    def events(self) -> list[Any]:
        return self._events

    @property
    def names(self) -> list[str]:
        """The names of the events; of one that is told again and again while an answer grows, one."""
        names = [event.class_name() for event in self._events]
        return [name for number, name in enumerate(names) if "InProgress" not in name or name != names[number - 1]]


@contextmanager
def noted() -> Iterator[Notes]:
    """Notes of what happens inside."""
    notes, root = Notes(), get_dispatcher()
    root.add_event_handler(notes)
    try:
        yield notes
    finally:
        root.event_handlers.remove(notes)


def debugging() -> tuple[CallbackManager, LlamaDebugHandler]:
    """A manager of callbacks, and its handler that keeps what it hears."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    return CallbackManager([handler]), handler


def llm_events(handler: LlamaDebugHandler) -> list[tuple[Any, Any]]:
    """Beginning and end of each call of a language model."""
    return [(begin, end) for begin, end in handler.get_event_pairs(CBEventType.LLM)]
