"""Each loss between a student's and a teacher's logits against its formula, computed independently in float64."""

import numpy as np
import pytest
import torch

from data.index.labels import MISSING
from train.losses.logit_distillation import DISTILLATION_LOSSES, NEEDS_TARGET, decoupled, js_divergence, kl_divergence

N, C, T = 6, 5, 3.0
TARGET = torch.tensor([0, 4, 2, MISSING, 1, MISSING])


def logits(seed: int, *, classes: int = C, scale: float = 4.0) -> torch.Tensor:
    return torch.randn(N, classes, generator=torch.Generator().manual_seed(seed)) * scale


def softmax(row: np.ndarray) -> np.ndarray:
    exponent = np.exp(row - row.max())
    return exponent / exponent.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


def expected_kl(z: np.ndarray, v: np.ndarray, target: int) -> float:
    return T**2 * kl(softmax(v / T), softmax(z / T))


def expected_js(z: np.ndarray, v: np.ndarray, target: int) -> float:
    p, q = softmax(v / T), softmax(z / T)
    return T**2 * (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2


def expected_mse(z: np.ndarray, v: np.ndarray, target: int) -> float:
    return float(np.var(z - v)) / 2


def expected_dkd(z: np.ndarray, v: np.ndarray, target: int) -> float:
    if target == MISSING:
        target = int(v.argmax())
    p, q = softmax(v / T), softmax(z / T)
    binary = kl(np.array([p[target], 1 - p[target]]), np.array([q[target], 1 - q[target]]))
    others = [number for number in range(len(z)) if number != target]
    return T**2 * (1.0 * binary + 8.0 * kl(softmax(v[others] / T), softmax(z[others] / T)))


EXPECTED = {"kl": expected_kl, "js": expected_js, "mse": expected_mse, "dkd": expected_dkd}


def loss_of(name: str, student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor = TARGET):
    more = {"target": target} if name in NEEDS_TARGET else {}
    return DISTILLATION_LOSSES[name](student, teacher, temperature=T, **more)


def test_every_loss_has_a_formula_here() -> None:
    assert set(EXPECTED) == set(DISTILLATION_LOSSES)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_sum_is_that_of_the_formula_and_the_weight_the_number_of_samples(name: str) -> None:
    student, teacher = logits(1), logits(2)
    total, weight = loss_of(name, student, teacher)
    rows = zip(student.double().numpy(), teacher.double().numpy(), TARGET.tolist(), strict=True)
    assert total.item() == pytest.approx(sum(EXPECTED[name](*row) for row in rows), rel=2e-5)
    assert weight.item() == N


@pytest.mark.parametrize("name", EXPECTED)
def test_the_slope_is_that_of_the_formula(name: str) -> None:
    student, teacher = logits(3), logits(4)
    student.requires_grad_()
    loss_of(name, student, teacher)[0].backward()
    assert student.grad is not None
    z, v, h = student.detach().double().numpy(), teacher.double().numpy(), 1e-6
    for row, column in [(0, 0), (1, 4), (3, 2), (5, 1)]:
        up, down = z[row].copy(), z[row].copy()
        up[column] += h
        down[column] -= h
        target = int(TARGET[row])
        slope = (EXPECTED[name](up, v[row], target) - EXPECTED[name](down, v[row], target)) / (2 * h)
        assert student.grad[row, column].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_student_that_equals_its_teacher_has_loss_0_and_no_slope(name: str) -> None:
    student = logits(5).requires_grad_()
    total, _ = loss_of(name, student, student.detach())
    total.backward()
    assert total.item() == pytest.approx(0, abs=1e-4)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-4


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_sample_that_the_teacher_cannot_answer_adds_nothing_and_still_counts(name: str, broken: float) -> None:
    student, teacher = logits(6).requires_grad_(), logits(7)
    teacher[2, 1] = broken
    total, weight = loss_of(name, student, teacher)
    total.backward()
    kept = [0, 1, 3, 4, 5]
    without, _ = loss_of(name, student[kept], teacher[kept], TARGET[kept])
    assert total.item() == pytest.approx(without.item(), rel=1e-6)
    assert weight.item() == N
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[2].abs().sum() == 0


@pytest.mark.parametrize("name", EXPECTED)
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    teacher = logits(8).requires_grad_()
    loss_of(name, logits(9).requires_grad_(), teacher)[0].backward()
    assert teacher.grad is None


@pytest.mark.parametrize("name", EXPECTED)
def test_half_precision_logits_of_hundreds_stay_finite(name: str) -> None:
    student, teacher = (logits(10) * 100).half().requires_grad_(), (logits(11) * 100).half()
    total, _ = loss_of(name, student, teacher)
    total.backward()
    assert total.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", EXPECTED)
def test_no_samples_give_0(name: str) -> None:
    total, weight = loss_of(name, torch.zeros(0, C), torch.zeros(0, C), torch.zeros(0, dtype=torch.int64))
    assert (total.item(), weight.item()) == (0.0, 0.0)


def test_js_is_bounded_where_kl_is_not() -> None:
    far = torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 60.0]])
    assert js_divergence(*far, temperature=1.0)[0].item() <= np.log(2) + 1e-6
    assert kl_divergence(*far, temperature=1.0)[0].item() > 50


def test_mse_is_the_limit_of_kl_at_high_temperature() -> None:
    student, teacher = logits(12, scale=1.0), logits(13, scale=1.0)
    limit = kl_divergence(student.double(), teacher.double(), temperature=200.0)[0].item()
    assert loss_of("mse", student, teacher)[0].item() == pytest.approx(limit, rel=0.02)


def test_two_classes_leave_dkd_its_first_part() -> None:
    student, teacher = logits(14, classes=2), logits(15, classes=2)
    target = torch.tensor([0, 1, 0, 1, 0, 1])
    plain = kl_divergence(student, teacher, temperature=T)[0].item()
    assert decoupled(student, teacher, temperature=T, target=target)[0].item() == pytest.approx(plain, rel=1e-4)
