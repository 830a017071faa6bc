"""The fp16 loss scale: halved by a skipped update, doubled after 2000 good ones, kept over a restart."""

import pytest
import torch

from train.optim.grad_scaler import LossScale

CPU = torch.device("cpu")
GOOD, SKIPPED = torch.tensor(0.0), torch.tensor(1.0)


@pytest.fixture
def scale() -> LossScale:
    return LossScale(CPU)


def adapt(scale: LossScale, skipped: torch.Tensor, times: int) -> float:
    for _ in range(times):
        scale.adapt(skipped)
    return scale.value.item()


def test_it_halves_with_every_skipped_update_and_stays_above_one(scale: LossScale) -> None:
    assert scale.value.item() == 65536
    assert adapt(scale, SKIPPED, 1) == 32768
    assert adapt(scale, SKIPPED, 3) == 4096
    assert adapt(scale, SKIPPED, 50) == 1


def test_it_doubles_after_2000_good_updates_in_a_row(scale: LossScale) -> None:
    assert adapt(scale, GOOD, 1999) == 65536
    assert adapt(scale, GOOD, 1) == 131072
    assert adapt(scale, GOOD, 1999) == 131072
    assert adapt(scale, GOOD, 1) == 262144


def test_a_skipped_update_starts_the_row_anew(scale: LossScale) -> None:
    adapt(scale, GOOD, 1999)
    adapt(scale, SKIPPED, 1)
    assert adapt(scale, GOOD, 1999) == 32768
    assert adapt(scale, GOOD, 1) == 65536


def test_it_stops_growing_at_2_to_the_24(scale: LossScale) -> None:
    scale.value.fill_(2.0**24)
    assert adapt(scale, GOOD, 2000) == 2.0**24


def test_unscaling_takes_the_scale_out_in_place(scale: LossScale) -> None:
    gradients = [torch.tensor([65536.0, -131072.0]), torch.tensor([[32768.0]])]
    scale.unscale(gradients)
    assert [gradient.tolist() for gradient in gradients] == [[1.0, -2.0], [[0.5]]]


def test_it_continues_from_its_saved_state(scale: LossScale) -> None:
    adapt(scale, SKIPPED, 2)
    adapt(scale, GOOD, 1500)
    again = LossScale(CPU)
    again.load_state_dict({name: tensor.clone() for name, tensor in scale.state_dict().items()})
    assert adapt(again, GOOD, 499) == 16384
    assert adapt(again, GOOD, 1) == 32768
