"""One thread, one seed, no network: what every test starts from."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")      # of kernels and commands too: two that share two cores wait in vain

import pytest
import torch


@pytest.fixture(autouse=True)
def _quiet_machine():
    torch.set_num_threads(1)
    torch.manual_seed(0)
