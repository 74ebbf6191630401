"""Runs a model whose cache cannot be rewound: every text that is asked about goes through it whole."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from itertools import islice
from typing import Any

import numpy as np
import torch

from langchain_rain.engines.base import Ticket
from langchain_rain.engines.runner import CacheInfo, ForwardPass, Ran, direction, input_device
from langchain_rain.engines.sampling import sampled
from langchain_rain.engines.transfer import ToHost, to_device
from langchain_rain.engines.wants import Direction, Got, NextToken
from langchain_rain.engines.work import Work
from langchain_rain.search.protocol import Context, Tokens

MAX_POSITIONS = 2**15
"""How many token positions go through the model at once; a step that has more takes several forward passes."""


class RecomputingRunner:
    """See `Runner`; keeps nothing from one step to the next.

    A step is for all texts that are as long as that of the oldest question: side by side without padding, so that a
    recurrent state is that of the text alone. The others wait.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._forward_pass = ForwardPass(model)
        takes_use_cache = "use_cache" in signature(model.forward).parameters
        self._no_cache = {"use_cache": False} if takes_use_cache else {}

    @property
    def cache_info(self) -> CacheInfo:
        """See `Runner`: nothing."""
        return CacheInfo()

    def open(self, context: Context, num_tokens: int) -> None:
        """See `Runner`; nothing to do."""

    def close(self, context: Context) -> None:
        """See `Runner`; nothing to do."""

    def release(self, ticket: Ticket) -> None:
        """See `Runner`; nothing to do."""

    def run(self, works: Mapping[Ticket, Work]) -> Ran:
        """See `Runner`."""
        length = next(iter(works.values())).wants[0].place.num_tokens
        asked = {ticket: work.wants for ticket, work in works.items() if work.wants[0].place.num_tokens == length}
        row_of: dict[Tokens, int] = {}
        rows: dict[Ticket, list[int]] = {}
        counts: Counter[Ticket] = Counter()
        for ticket, wants in asked.items():
            num_known = len(row_of)
            rows[ticket] = [row_of.setdefault(want.place.sequence, len(row_of)) for want in wants]
            counts[ticket] = (len(row_of) - num_known) * length
        flat = [(want, row) for ticket, wants in asked.items() for want, row in zip(wants, rows[ticket], strict=True)]
        answers = iter(self._answers(list(row_of), flat))
        return Ran({ticket: list(islice(answers, len(wants))) for ticket, wants in asked.items()}, dict(counts))

    def _answers(self, sequences: Sequence[Tokens], asked: Sequence[tuple[NextToken | Direction, int]]) -> list[Got]:
        directions = [(want, row) for want, row in asked if isinstance(want, Direction)]
        next_tokens = [(want, row) for want, row in asked if not isinstance(want, Direction)]
        num_kept = max((want.num_tokens for want, _ in directions), default=0)
        logits, hidden = self._forward(sequences, num_kept)
        to_host = ToHost()
        get: Callable[[], list[Got]] = list
        if next_tokens:
            get = sampled([want for want, _ in next_tokens], [row for _, row in next_tokens], logits, to_host)
        vectors = [to_host.add(direction(hidden[row, num_kept - want.num_tokens :])) for want, row in directions]
        to_host.copy()
        no_ids = np.zeros(0, np.int64)
        found, vector = iter(get()), iter(vectors)
        return [(no_ids, to_host[next(vector)]) if isinstance(want, Direction) else next(found) for want, _ in asked]

    def _forward(self, sequences: Sequence[Tokens], num_kept: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The last logits `[num_sequences, vocabulary]`, and the last `num_kept` hidden states of each."""
        (input_ids,) = to_device(input_device(self._model), np.array(sequences))
        logits, hidden = [], []
        for part in torch.split(input_ids, max(1, MAX_POSITIONS // input_ids.shape[1])):
            part_logits, part_hidden = self._forward_pass(num_logits=1, input_ids=part, **self._no_cache)
            logits.append(part_logits[:, -1])
            hidden.append(part_hidden[:, part_hidden.shape[1] - num_kept :])
        return torch.cat(logits), torch.cat(hidden)
