"""What a student's logits are compared with a teacher's by: (sum, weight sum) over the samples of what they are given.

    loss_sum, weight_sum = kl_divergence(student, teacher, temperature=5.0)

student and teacher are logits [N, C] of one task, their classes in the same order. A sample for which the teacher's
logits are not all finite adds 0 to the sum and still counts in the weight sum, so that the weight sum is known before
the teacher has run. Gradients flow to the student alone.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from data.index.labels import MISSING

LossSum = tuple[Tensor, Tensor]
_FAR = -1e4  # the logit of a class that has no part: far below any other, and without NaN in the backward pass


def kl_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> LossSum:
    """Sum over samples of T^2 * sum_c p_c (log p_c - log q_c), p and q the softmax at T of teacher and student
    (Hinton et al. 2015). T^2 keeps the gradient's size when T changes."""
    usable, student, teacher = _comparable(student, teacher)
    log_p = functional.log_softmax(teacher / temperature, dim=1)
    log_q = functional.log_softmax(student / temperature, dim=1)
    per_sample = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return _add_up(per_sample, usable)


def js_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> LossSum:
    """Sum over samples of T^2 * [KL(p || m) + KL(q || m)] / 2 with m = (p + q) / 2 (Lin 1991): bounded by T^2 log 2, so
    that a sample on which the teacher is far off pulls less than with KL."""
    usable, student, teacher = _comparable(student, teacher)
    log_p = functional.log_softmax(teacher / temperature, dim=1)
    log_q = functional.log_softmax(student / temperature, dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    both = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return _add_up(temperature**2 * both.sum(dim=1) / 2, usable)


def logit_mse(student: Tensor, teacher: Tensor, *, temperature: float) -> LossSum:
    """Sum over samples of mean_c (z_c - v_c)^2 / 2 with the logits centred on their mean over the classes: what
    T^2 * KL tends to when T grows (Hinton et al. 2015, section 2.1). The temperature has no effect."""
    usable, student, teacher = _comparable(student, teacher)
    difference = student - teacher
    centred = difference - difference.mean(dim=1, keepdim=True)
    return _add_up(centred.square().mean(dim=1) / 2, usable)


def decoupled(
    student: Tensor, teacher: Tensor, *, temperature: float, target: Tensor, alpha: float = 1.0, beta: float = 8.0
) -> LossSum:
    """Sum over samples of T^2 * [alpha * KL(b_p || b_q) + beta * KL(p' || q')] (DKD, Zhao et al. 2022).

    b is the pair (probability of the target class, of all others), p' and q' are the softmax over the other classes
    alone. In plain KL the second part is damped by the teacher's doubt, just where it is sure and its ranking of the
    wrong classes is worth most. target int64 [N]; where it is missing, the teacher's top class stands in. With two
    classes the second part is 0. (DIST, the other modern choice, correlates samples of a batch and would depend on how
    the batch was dealt to ranks.)
    """
    usable, student, teacher = _comparable(student, teacher)
    target = torch.where(target == MISSING, teacher.argmax(dim=1), target)
    is_target = functional.one_hot(target, student.shape[1]).bool()
    log_p = functional.log_softmax(teacher / temperature, dim=1)
    log_q = functional.log_softmax(student / temperature, dim=1)
    binary_p, binary_q = _target_or_not(log_p, is_target), _target_or_not(log_q, is_target)
    of_target = (binary_p.exp() * (binary_p - binary_q)).sum(dim=1)
    others_p = functional.log_softmax((teacher / temperature).masked_fill(is_target, _FAR), dim=1)
    others_q = functional.log_softmax((student / temperature).masked_fill(is_target, _FAR), dim=1)
    of_others = (others_p.exp() * (others_p - others_q)).masked_fill(is_target, 0.0).sum(dim=1)
    return _add_up(temperature**2 * (alpha * of_target + beta * of_others), usable)


DistillationLoss = Callable[..., LossSum]
DISTILLATION_LOSSES: dict[str, DistillationLoss] = {
    "kl": kl_divergence,
    "js": js_divergence,
    "mse": logit_mse,
    "dkd": decoupled,
}
NEEDS_TARGET = ("dkd",)


def _target_or_not(log_probability: Tensor, is_target: Tensor) -> Tensor:
    """[N, C] -> log probabilities of (the target class, any other class), [N, 2]."""
    target = log_probability.masked_fill(~is_target, -torch.inf).logsumexp(dim=1)
    others = log_probability.masked_fill(is_target, -torch.inf).logsumexp(dim=1)
    return torch.stack([target, others], dim=1)


def _comparable(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(usable [N], both in float32, with zeros for what the teacher does not know)."""
    teacher = teacher.detach().float()
    usable = teacher.isfinite().all(dim=1)
    return usable, student.float(), teacher.where(usable[:, None], torch.zeros((), device=teacher.device))


def _add_up(per_sample: Tensor, usable: Tensor) -> LossSum:
    total = torch.where(usable, per_sample, torch.zeros((), device=per_sample.device)).sum()
    return total, torch.tensor(float(len(per_sample)), device=per_sample.device)
