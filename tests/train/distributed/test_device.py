"""What a machine gives one rank."""

from collections.abc import Iterator

import pytest
import torch

from train.distributed.comm import SingleProcess
from train.distributed.device import choose_device


@pytest.fixture
def torch_settings() -> Iterator[None]:
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.get_num_threads(),
    )
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]
    torch.set_num_threads(before[2])


def test_deterministic_algorithms_cost_no_filling_of_new_memory(torch_settings: None) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert choose_device("cpu", SingleProcess(), deterministic=True) == torch.device("cpu")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
