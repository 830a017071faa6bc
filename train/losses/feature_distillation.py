"""What features inside student and teacher are compared by: (sum, weight sum) over the samples of what they are given.

    loss_sum, weight_sum = smooth_l1(student, teacher)

Features are [N, ...], of equal shape but for `attention`, which needs equal heights and widths only. A sample whose
teacher feature is not finite adds 0 to the sum and counts in the weight sum. Gradients flow to the student alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

LossSum = tuple[Tensor, Tensor]


def smooth_l1(student: Tensor, teacher: Tensor) -> LossSum:
    """Sum over samples of mean over elements of d^2 / 2 where |d| < 1, else |d| - 1/2 (Girshick 2015)."""
    usable, student, teacher = _comparable(student, teacher)
    return _add_up(functional.smooth_l1_loss(student, teacher, reduction="none").flatten(1).mean(dim=1), usable)


def mse(student: Tensor, teacher: Tensor) -> LossSum:
    """Sum over samples of mean over elements of d^2 (FitNets, Romero et al. 2015, but for the factor 1/2)."""
    usable, student, teacher = _comparable(student, teacher)
    return _add_up((student - teacher).square().flatten(1).mean(dim=1), usable)


def cosine(student: Tensor, teacher: Tensor) -> LossSum:
    """Sum over samples of 1 - cos(s, t) of the flattened features: the cosine embedding loss of a pair that belongs
    together."""
    usable, student, teacher = _comparable(student, teacher)
    return _add_up(1 - functional.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1), usable)


def attention(student: Tensor, teacher: Tensor) -> LossSum:
    """Sum over samples of |a_s / |a_s| - a_t / |a_t||^2 with a = flattened mean over channels of the squared map
    (attention transfer, Zagoruyko and Komodakis 2017, with the square of their norm). Maps are [N, C, H, W]."""
    usable, student, teacher = _comparable(student, teacher)
    difference = _attention_map(student) - _attention_map(teacher)
    return _add_up(difference.square().sum(dim=1), usable)


FEATURE_LOSSES: dict[str, Callable[[Tensor, Tensor], LossSum]] = {
    "smooth-l1": smooth_l1,
    "mse": mse,
    "cosine": cosine,
    "attention": attention,
}


def _attention_map(feature: Tensor) -> Tensor:
    return functional.normalize(feature.square().mean(dim=1).flatten(1), dim=1)


def _comparable(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    teacher = teacher.detach().float()
    usable = teacher.flatten(1).isfinite().all(dim=1)
    mask = usable.view(-1, *[1] * (teacher.ndim - 1))
    return usable, student.float(), teacher.where(mask, torch.zeros((), device=teacher.device))


def _add_up(per_sample: Tensor, usable: Tensor) -> LossSum:
    total = torch.where(usable, per_sample, torch.zeros((), device=per_sample.device)).sum()
    return total, torch.tensor(float(len(per_sample)), device=per_sample.device)
