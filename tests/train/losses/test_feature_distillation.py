"""Each feature loss against its formula in float64, and the bridges between features of different shapes."""

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import ModelError
from train.distillation.adapters import build_adapter
from train.distillation.feature_hooks import ForwardHooks
from train.losses.feature_distillation import FEATURE_LOSSES

SHAPE = (4, 3, 5, 6)


def features(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5


def smooth_l1(s: np.ndarray, t: np.ndarray) -> float:
    d = np.abs(s - t)
    return float(np.where(d < 1, d**2 / 2, d - 0.5).mean())


def mse(s: np.ndarray, t: np.ndarray) -> float:
    return float(((s - t) ** 2).mean())


def cosine(s: np.ndarray, t: np.ndarray) -> float:
    s, t = s.ravel(), t.ravel()
    return float(1 - s @ t / np.sqrt((s @ s) * (t @ t)))


def attention(s: np.ndarray, t: np.ndarray) -> float:
    maps = [(feature**2).sum(axis=0).ravel() for feature in (s, t)]
    one, other = (values / np.sqrt((values**2).sum()) for values in maps)
    return float(((one - other) ** 2).sum())


EXPECTED = {"smooth-l1": smooth_l1, "mse": mse, "cosine": cosine, "attention": attention}


def test_every_loss_has_a_formula_here() -> None:
    assert set(EXPECTED) == set(FEATURE_LOSSES)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_sum_is_that_of_the_formula(name: str) -> None:
    student, teacher = features(1), features(2)
    total, weight = FEATURE_LOSSES[name](student, teacher)
    pairs = zip(student.double().numpy(), teacher.double().numpy(), strict=True)
    assert total.item() == pytest.approx(sum(EXPECTED[name](*pair) for pair in pairs), rel=1e-5)
    assert weight.item() == len(student)


@pytest.mark.parametrize("name", EXPECTED)
def test_only_the_student_learns_and_a_sample_the_teacher_cannot_answer_adds_nothing(name: str) -> None:
    student, teacher = features(3).requires_grad_(), features(4).requires_grad_()
    with torch.no_grad():
        teacher[1, 0, 2, 2] = float("nan")
    total, weight = FEATURE_LOSSES[name](student, teacher)
    total.backward()
    kept = [0, 2, 3]
    assert total.item() == pytest.approx(FEATURE_LOSSES[name](student[kept], teacher[kept])[0].item(), rel=1e-5)
    assert weight.item() == 4
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[1].abs().sum() == 0
    assert student.grad[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("bridge", "kind", "student", "teacher", "result"),
    [
        ("none", "mse", (3, 4, 4), (3, 4, 4), (3, 4, 4)),
        ("none", "attention", (3, 4, 4), (7, 4, 4), None),
        ("pool", "attention", (3, 8, 8), (7, 4, 4), None),
        ("pool", "mse", (3, 8, 8), (3, 4, 4), (3, 4, 4)),
        ("pool", "cosine", (16, 8, 8), (32, 8, 8), (1024,)),
        ("pool", "cosine", (10,), (25,), (10,)),
        ("regressor", "mse", (16, 8, 8), (32, 8, 8), (32, 8, 8)),
        ("regressor", "mse", (16, 8, 8), (32, 4, 4), (32, 4, 4)),
        ("regressor", "smooth-l1", (10,), (25,), (25,)),
    ],
)
def test_a_bridge_makes_shapes_comparable(bridge: str, kind: str, student, teacher, result) -> None:
    module = build_adapter(bridge, kind=kind, student=student, teacher=teacher)
    ours, theirs = module(features(5, (2, *student)), features(6, (2, *teacher)))
    if result is not None:
        assert ours.shape[1:] == theirs.shape[1:] == result
    assert FEATURE_LOSSES[kind](ours, theirs)[0].isfinite()
    assert bool(list(module.parameters())) == (bridge == "regressor")


def test_pooling_averages_the_larger_side() -> None:
    student, teacher = torch.arange(4.0).view(1, 1, 2, 2), torch.full((1, 1, 1, 1), 7.0)
    ours, theirs = build_adapter("pool", kind="mse", student=(1, 2, 2), teacher=(1, 1, 1))(student, teacher)
    assert (ours.item(), theirs.item()) == (1.5, 7.0)


@pytest.mark.parametrize(
    ("bridge", "kind", "student", "teacher", "message"),
    [
        ("none", "mse", (16, 8, 8), (32, 8, 8), "gives 16x8x8, the teacher's 32x8x8; bridge: regressor .* or pool"),
        ("none", "attention", (16, 8, 8), (32, 4, 4), "gives 16x8x8, the teacher's 32x4x4; bridge: pool"),
        ("none", "cosine", (16, 8, 8), (512,), "gives 16x8x8, the teacher's 512; bridge: pool"),
        ("regressor", "mse", (16, 8, 8), (512,), "16x8x8, the teacher's 512; a regressor maps maps to maps"),
        ("pool", "attention", (16,), (16,), "attention compares maps"),
    ],
)
def test_shapes_that_do_not_fit_are_named_with_what_bridges_them(bridge, kind, student, teacher, message) -> None:
    with pytest.raises(ModelError, match=message):
        build_adapter(bridge, kind=kind, student=student, teacher=teacher)


def test_a_tap_holds_what_a_layer_gave() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    tap = ForwardHooks(model, ["1"])
    image = features(7, (4, 2))
    model(image)
    assert torch.equal(tap["1"], torch.relu(model[0](image)))


def test_an_unknown_layer_lists_the_valid_ones() -> None:
    model = nn.ModuleDict({"stem": nn.Linear(1, 1), "layer1": nn.Sequential(nn.ReLU())})
    with pytest.raises(
        ModelError, match=r"the student has no layer 'layr1'; did you mean 'layer1'\? \(valid: stem, la"
    ):
        ForwardHooks(model, ["layr1"], whose="the student")


def test_a_layer_that_gives_no_tensor_is_refused() -> None:
    model = nn.LSTM(2, 2)
    ForwardHooks(nn.ModuleDict({"lstm": model}), ["lstm"], whose="the teacher")
    with pytest.raises(ModelError, match="layer 'lstm' of the teacher gives a tuple"):
        model(torch.zeros(1, 1, 2))
