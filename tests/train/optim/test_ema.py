"""The moving average of weights and statistics, against the recursion in float64."""

import pytest
import torch
from torch import nn

from train.optim.ema import Ema


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train_a_little(model: nn.Module, step: int) -> None:
    torch.manual_seed(step)
    model.train()(torch.randn(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_it_follows_the_recursion_with_a_quick_start(decay: float) -> None:
    model = network()
    ema = Ema(model, decay=decay)
    floats = [name for name, tensor in model.state_dict().items() if tensor.is_floating_point()]
    expected = {name: model.state_dict()[name].double() for name in floats}
    for step in range(30):
        train_a_little(model, step)
        ema.update(step)
        kept = min(decay, (1 + step) / (10 + step))
        for name in floats:
            expected[name] = kept * expected[name] + (1 - kept) * model.state_dict()[name].double()
    for name in floats:
        torch.testing.assert_close(ema.model.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-6)


def test_running_statistics_are_averaged_and_counts_are_copied() -> None:
    model = network()
    ema = Ema(model, decay=0.9)
    train_a_little(model, 0)
    ema.update(100)
    average, norm = ema.model[1], model[1]
    torch.testing.assert_close(average.running_mean, 0.1 * norm.running_mean)
    assert average.num_batches_tracked == norm.num_batches_tracked == 1


def test_its_model_is_apart_frozen_and_in_eval() -> None:
    model = network()
    ema = Ema(model, decay=0.9)
    before = [parameter.clone() for parameter in ema.model.parameters()]
    train_a_little(model, 0)
    assert all(torch.equal(old, new) for old, new in zip(before, ema.model.parameters(), strict=True))
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
