"""Who runs a model does so without cuDNN's attention, and leaves the process as it was."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from langchain_rain.engines.runner import WithoutPlans

cuda: Any = torch.backends.cuda


@pytest.fixture(params=[True, False], ids=["enabled before", "not enabled before"])
def was_enabled(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = cuda.cudnn_sdp_enabled()
    cuda.enable_cudnn_sdp(request.param)
    yield bool(request.param)
    cuda.enable_cudnn_sdp(before)


def test_it_is_off_inside_and_as_before_afterwards(was_enabled: bool) -> None:
    with WithoutPlans():
        with WithoutPlans():
            assert not cuda.cudnn_sdp_enabled()
        assert not cuda.cudnn_sdp_enabled()
    assert cuda.cudnn_sdp_enabled() == was_enabled
    with pytest.raises(ZeroDivisionError), WithoutPlans():
        raise ZeroDivisionError
    assert cuda.cudnn_sdp_enabled() == was_enabled


def test_threads_whose_passes_overlap_put_it_back(was_enabled: bool) -> None:
    inside = threading.Barrier(2)
    seen: list[bool] = []

    def run(is_first: bool) -> None:
        with WithoutPlans():
            inside.wait(10)
            if is_first:
                inside.wait(10)  # until the other one has left
            seen.append(cuda.cudnn_sdp_enabled())
        if not is_first:
            inside.wait(10)

    threads = [threading.Thread(target=run, args=(is_first,)) for is_first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [False, False]
    assert cuda.cudnn_sdp_enabled() == was_enabled


def test_where_there_is_nothing_else_it_stays() -> None:
    before = cuda.math_sdp_enabled()
    cuda.enable_math_sdp(False)
    try:
        with WithoutPlans():
            assert cuda.cudnn_sdp_enabled()
    finally:
        cuda.enable_math_sdp(before)
