"""From logits to tokens: the next-token questions of all pending requests, answered together on the model's device."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from langchain_rain.engines.transfer import ToHost, to_device
from langchain_rain.engines.wants import Draw, Got, MostProbable, NextToken, Probability

GREEDY_TEMPERATURE = 1e-3
"""What temperature 0 stands for: logits that differ by 0.1 are e^100 apart, and all numbers stay finite."""


def answer_wants(wants: Sequence[NextToken], logits: torch.Tensor) -> list[Got]:
    """Answers each want from its row of `logits` `[num_wants, vocabulary]`."""
    to_host = ToHost()
    answers = sampled(wants, range(len(wants)), logits, to_host)
    to_host.copy()
    return answers()


def sampled(
    wants: Sequence[NextToken], rows: Sequence[int], logits: torch.Tensor, to_host: ToHost
) -> Callable[[], list[Got]]:
    """Answers each want from its row of `logits` `[num_rows, vocabulary]`; the answers are there after `to_host.copy`.

    Every row is treated alone, so what else is asked in the same step does not change an answer. Wants that share row
    and temperature share the work.
    """
    index_of: dict[tuple[int, float], int] = {}
    asked = [(row, max(want.temperature, GREEDY_TEMPERATURE)) for want, row in zip(wants, rows, strict=True)]
    indices = [index_of.setdefault(each, len(index_of)) for each in asked]
    wide = rows_of(logits, [row for row, _ in index_of])
    wide = wide if wide.dtype == torch.float64 else wide.float()
    if any(temperature != 1 for _, temperature in index_of):
        (divisors,) = to_device(logits.device, np.array([[temperature] for _, temperature in index_of]))
        wide = wide / divisors.to(wide.dtype)
    logprobs = torch.log_softmax(wide, dim=-1)
    answers: dict[int, Callable[[], Got]] = {}
    for answer in (_answer_top, _answer_draws, _answer_probabilities):
        answers |= answer(wants, indices, logprobs, to_host)
    return lambda: [answers[number]() for number in range(len(wants))]


def _answer_top(
    wants: Sequence[NextToken], indices: Sequence[int], logprobs: torch.Tensor, to_host: ToHost
) -> dict[int, Callable[[], Got]]:
    """The most probable tokens, and draws from among them."""
    counts = {number: each.count for number, each in enumerate(wants) if isinstance(each, MostProbable)}
    top_ks = {number: each.top_k for number, each in enumerate(wants) if isinstance(each, Draw) and each.top_k}
    asked = counts | top_ks
    if not asked:
        return {}
    rows = sorted({indices[number] for number in asked})
    place_of = {row: place for place, row in enumerate(rows)}
    values, ids = ranked(rows_of(logprobs, rows), min(max(asked.values()), logprobs.shape[-1]))
    answers: dict[int, Callable[[], Got]] = {}
    if counts:
        ids_at, values_at = to_host.add(ids), to_host.add(values)
        for number, count in counts.items():
            answers[number] = _cut(to_host, ids_at, values_at, place_of[indices[number]], count)
    if top_ks:
        draws = [want for want in wants if isinstance(want, Draw) and want.top_k]
        places = [place_of[indices[number]] for number in top_ks]
        relative, ids = rows_of(values - values[:, :1], places).double(), rows_of(ids, places)
        cumulative = relative.exp().cumsum(dim=-1)
        lasts = np.minimum(np.array(list(top_ks.values())), logprobs.shape[-1])[:, None] - 1
        uniforms, last = to_device(logprobs.device, _padded([each.uniforms for each in draws]), lasts)
        totals = cumulative.gather(1, last)
        picked = torch.minimum(torch.searchsorted(cumulative, uniforms * totals, right=True), last)
        drawn = relative.gather(1, picked) - totals.log()
        ids_at, values_at = to_host.add(ids.gather(1, picked)), to_host.add(drawn)
        for place, (number, draw) in enumerate(zip(top_ks, draws, strict=True)):
            answers[number] = _cut(to_host, ids_at, values_at, place, len(draw.uniforms))
    return answers


def _answer_draws(
    wants: Sequence[NextToken], indices: Sequence[int], logprobs: torch.Tensor, to_host: ToHost
) -> dict[int, Callable[[], Got]]:
    """Draws from the full distribution."""
    draws = {number: want for number, want in enumerate(wants) if isinstance(want, Draw) and not want.top_k}
    if not draws:
        return {}
    of_draws = rows_of(logprobs, [indices[number] for number in draws])
    cumulative = of_draws.double().exp().cumsum(dim=-1)
    (uniforms,) = to_device(logprobs.device, _padded([draw.uniforms for draw in draws.values()]))
    drawn = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
    drawn = drawn.clamp_(max=logprobs.shape[-1] - 1)
    ids_at, values_at = to_host.add(drawn), to_host.add(of_draws.gather(1, drawn))
    return {
        number: _cut(to_host, ids_at, values_at, place, len(draw.uniforms))
        for place, (number, draw) in enumerate(draws.items())
    }


def _answer_probabilities(
    wants: Sequence[NextToken], indices: Sequence[int], logprobs: torch.Tensor, to_host: ToHost
) -> dict[int, Callable[[], Got]]:
    asked = {number: want for number, want in enumerate(wants) if isinstance(want, Probability)}
    if not asked:
        return {}
    of_asked = rows_of(logprobs, [indices[number] for number in asked])
    (ids,) = to_device(logprobs.device, _padded([want.token_ids for want in asked.values()]).astype(np.int64))
    ids_at, values_at = to_host.add(ids), to_host.add(of_asked.gather(1, ids))
    return {
        number: _cut(to_host, ids_at, values_at, place, len(want.token_ids))
        for place, (number, want) in enumerate(asked.items())
    }


def ranked(logprobs: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of each row and their ids, largest first, of equals the one with the lower id first.

    `topk` leaves open which of equals come, so it is asked about whole numbers of which none are equal: the bits of a
    float32 in an order of whole numbers, then the id. A number that is none comes before all others.
    """
    if logprobs.dtype != torch.float32:
        values, ids = torch.sort(logprobs, dim=-1, descending=True, stable=True)
        return values[:, :count], ids[:, :count]
    bits = logprobs.view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    tie_break = torch.arange(logprobs.shape[-1] - 1, -1, -1, device=logprobs.device)
    ids = torch.topk((ordered << 32) | tie_break, count, dim=-1).indices
    return logprobs.gather(1, ids), ids


def rows_of(tensor: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
    """Some rows of `tensor`; the tensor itself if they are all of it, in order."""
    if list(indices) == list(range(len(tensor))):
        return tensor
    return tensor.index_select(0, to_device(tensor.device, np.array(indices))[0])


def _padded(rows: Sequence[Sequence[float]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Rows of different length as one array, with zeros at their ends."""
    padded = np.zeros((len(rows), max(map(len, rows))))
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


def _cut(to_host: ToHost, ids_at: int, values_at: int, place: int, count: int) -> Callable[[], Got]:
    """Reads the first `count` numbers at `place`, once they have come."""
    return lambda: (
        to_host[ids_at][place, :count].astype(np.int64, copy=False),
        to_host[values_at][place, :count].astype(np.float64, copy=False),
    )
