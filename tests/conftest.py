"""What all tests share. Torch is imported only by those that need a model."""

import os
import signal
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # how fast a machine is, is no property of the code
settings.load_profile("untimed")
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: a name that is no folder fails at once
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny matrices are not worth a second thread
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # here, and in the processes that tests start


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level tokenizer with a beginning and an end of sequence."""
    from tests.tiny_models import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture(scope="session")
def llama(tokenizer: Any) -> Any:
    """A tiny Llama in float64 whose judgements vary."""
    from tests.tiny_models import tiny_llama

    return tiny_llama(tokenizer, seed=1)
