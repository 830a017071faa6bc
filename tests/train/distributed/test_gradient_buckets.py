"""Flat gradient buckets hold what autograd made, leave while backward runs, and carry the norms' statistics."""

from typing import Any

import pytest
import torch
from torch import nn

from train.distributed.comm import Comm, SingleProcess
from train.distributed.gradient_buckets import GradientBuckets, flatten_statistics

INPUT = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))


class AlikeRanks(SingleProcess):
    """Ranks that all hold the same numbers, so that every sum is a multiple; remembers the messages in order."""

    def __init__(self, size: int) -> None:
        self.size, self.sent = size, []

    size: int
    sent: list[str]

    def allreduce_async(self, tensor: torch.Tensor, *, name: str) -> Any:
        self.sent.append(name)
        tensor.mul_(self.size)


class Network(nn.Module):
    """Layers of uneven size, a norm, and one layer that the loss never meets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(5, 40)
        self.norm = nn.BatchNorm1d(40)
        self.unused = nn.Linear(3, 3)
        self.last = nn.Linear(40, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)).relu())


def autograd_gradients() -> dict[str, torch.Tensor]:
    model = Network()
    model(INPUT).square().sum().backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }


def run_update(model: nn.Module, buckets: GradientBuckets, *, share: float, parts: int = 1) -> None:
    buckets.zero()
    chunks = INPUT.chunk(parts)
    for number, chunk in enumerate(chunks):
        if number == parts - 1:
            buckets.arm(share=share)
        model(chunk).square().sum().backward()
    buckets.finish()


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_gradients_are_the_sum_of_autograds(size: int, count: int) -> None:
    comm: Comm = AlikeRanks(size)
    model = Network()
    buckets = GradientBuckets(model, comm, count=count)
    for _ in range(2):  # the second update starts from the first one's gradients
        run_update(model, buckets, share=1 / size)
    for name, expected in autograd_gradients().items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        torch.testing.assert_close(gradient, size * expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("size", [1, 2])
def test_the_norm_and_the_flat_gradients_are_those_of_all_parameters(size: int) -> None:
    model = Network()
    buckets = GradientBuckets(model, AlikeRanks(size))
    run_update(model, buckets, share=1 / size)
    expected = sum(gradient.double().square().sum() for gradient in autograd_gradients().values()) ** 0.5
    torch.testing.assert_close(buckets.norm().double(), size * torch.as_tensor(expected))
    for flat in buckets.gradients:
        flat.mul_(0)
    assert all(torch.all(parameter.grad == 0) for parameter in model.parameters())


def test_buckets_leave_while_backward_runs_and_only_in_the_last_part() -> None:
    comm = AlikeRanks(2)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    buckets = GradientBuckets(model, comm, count=3)
    buckets.zero()
    model(INPUT[:3]).square().sum().backward()
    assert comm.sent == []
    buckets.arm(share=0.5)
    model(INPUT[3:]).square().sum().backward()
    assert comm.sent == ["bucket0", "bucket1", "bucket2"]
    buckets.finish()
    assert len(comm.sent) == 3


def test_micro_batches_give_the_gradient_of_their_sum() -> None:
    sums = []
    for parts in (1, 3):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
        run_update(model, GradientBuckets(model, AlikeRanks(2)), share=0.5, parts=parts)
        sums.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(sums[1], sums[0])


def test_a_rank_without_a_sample_takes_part_with_zeros() -> None:
    comm = AlikeRanks(2)
    model = Network()
    buckets = GradientBuckets(model, comm)
    buckets.zero()
    buckets.arm(share=0.0)
    buckets.finish()
    assert comm.sent == ["bucket0", "bucket1"]
    assert all(torch.all(parameter.grad == 0) for parameter in model.parameters())


def test_statistics_are_averaged_by_the_ranks_shares() -> None:
    model = Network()
    buckets = GradientBuckets(model, AlikeRanks(2))
    run_update(model, buckets, share=0.5)
    expected = Network()
    expected(INPUT)
    torch.testing.assert_close(model.norm.running_mean, expected.norm.running_mean)
    torch.testing.assert_close(model.norm.running_var, expected.norm.running_var)
    before = model.norm.running_var.clone()
    buckets.zero()
    buckets.arm(share=0.25)
    buckets.finish()
    torch.testing.assert_close(model.norm.running_var, 2 * 0.25 * before)


@pytest.mark.parametrize("size", [1, 2])
def test_a_skipped_update_takes_its_statistics_back(size: int) -> None:
    model = Network()
    buckets = GradientBuckets(model, AlikeRanks(size))
    run_update(model, buckets, share=1 / size)
    good = {name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    buckets.zero()
    buckets.arm(share=1 / size)
    model(INPUT * torch.nan).square().sum().backward()
    buckets.finish()
    assert torch.isnan(model.norm.running_mean).any()
    assert not torch.isfinite(buckets.norm())
    buckets.take_back(torch.tensor(1.0))
    assert all(torch.equal(model.get_buffer(name), buffer) for name, buffer in good.items())


def test_a_good_update_keeps_its_statistics() -> None:
    model = Network()
    buckets = GradientBuckets(model, SingleProcess())
    run_update(model, buckets, share=1.0)
    after = model.norm.running_mean.clone()
    buckets.take_back(torch.tensor(0.0))
    assert torch.equal(model.norm.running_mean, after)


def test_frozen_parts_have_no_gradient_and_no_place_in_the_messages() -> None:
    model = Network()
    model.norm.eval()
    model.norm.requires_grad_(False)
    flat = flatten_statistics(model, device=torch.device("cpu"))
    assert len(flat) == 0
    buckets = GradientBuckets(model, AlikeRanks(2))
    run_update(model, buckets, share=0.5)
    assert model.norm.weight.grad is None
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert sum(flat.numel() for flat in buckets.gradients) == trained


def test_a_model_that_is_all_frozen_is_refused() -> None:
    with pytest.raises(ValueError, match="frozen"):
        GradientBuckets(Network().requires_grad_(False), SingleProcess())
