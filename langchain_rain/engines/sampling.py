"""From logits to tokens: the next-token questions of all pending requests, answered together."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from langchain_rain.engines.work import Draw, Got, MostProbable, Probability, Want

GREEDY_TEMPERATURE = 1e-3
"""What temperature 0 stands for: logits that differ by 0.1 are e^100 apart, and all numbers stay finite."""


def answer_wants(wants: Sequence[Want], logits: torch.Tensor) -> list[Got]:
    """Answers each want from its row of `logits` `[num_wants, vocabulary]`.

    Every row is treated alone, so what else is asked in the same step does not change an answer.
    """
    wide = logits.double() if logits.dtype == torch.float64 else logits.float()
    coldest = [max(want.temperature, GREEDY_TEMPERATURE) for want in wants]
    temperatures = torch.tensor(coldest, dtype=wide.dtype, device=wide.device)
    logprobs = torch.log_softmax(wide / temperatures[:, None], dim=-1)
    answers: dict[int, Got] = {}
    _answer_most_probable(wants, logprobs, answers)
    _answer_draws(wants, logprobs, answers)
    for row, want in enumerate(wants):
        if isinstance(want, Probability):
            ids = np.array(want.token_ids)
            answers[row] = (ids, _to_numpy(logprobs[row, torch.from_numpy(ids).to(logprobs.device)]))
    return [answers[row] for row in range(len(wants))]


def _answer_most_probable(wants: Sequence[Want], logprobs: torch.Tensor, answers: dict[int, Got]) -> None:
    """Most probable first, of equals the one with the lower id first; `topk` alone leaves that open."""
    rows = [row for row, want in enumerate(wants) if isinstance(want, MostProbable)]
    if not rows:
        return
    counts = [min(want.count, logprobs.shape[-1]) for want in wants if isinstance(want, MostProbable)]
    asked = logprobs[rows]
    lowest = torch.topk(asked, max(counts), dim=-1).values[list(range(len(rows))), [count - 1 for count in counts]]
    # Nothing is lower than what is not a number: of such a row all is kept, and the checks of replies find it.
    where, ids = torch.nonzero(~(asked < lowest[:, None]), as_tuple=True)
    values = _to_numpy(asked[where, ids])
    ends = np.searchsorted(where.cpu().numpy(), np.arange(1, len(rows)))
    for row, count, row_ids, row_values in zip(
        rows, counts, np.split(ids.cpu().numpy(), ends), np.split(values, ends), strict=True
    ):
        order = np.argsort(-row_values, kind="stable")[:count]
        answers[row] = (row_ids[order], row_values[order])


def _answer_draws(wants: Sequence[Want], logprobs: torch.Tensor, answers: dict[int, Got]) -> None:
    rows = [row for row, want in enumerate(wants) if isinstance(want, Draw)]
    if not rows:
        return
    cumulative = logprobs[rows].double().exp().cumsum(dim=-1)
    uniforms = torch.tensor(
        [want.uniform for want in wants if isinstance(want, Draw)], dtype=torch.float64, device=logprobs.device
    )
    drawn = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)
    drawn = drawn.clamp(max=logprobs.shape[-1] - 1)
    values = _to_numpy(logprobs[rows].gather(1, drawn))
    ids = drawn.cpu().numpy()
    for index, row in enumerate(rows):
        answers[row] = (ids[index], values[index])


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.double().cpu().numpy()
    return array
