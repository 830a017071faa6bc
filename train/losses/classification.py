"""Classification losses as pure functions: (sum, weight sum) over the valid samples of what they are given.

    loss_sum, weight_sum = cross_entropy(logits, target)

The caller divides by the weight sum of the whole update, over all ranks and micro-batches, so that gradients do not
depend on how the batch was dealt. A target of -1 is a missing label.
"""

import torch
from torch import Tensor
from torch.nn import functional

from data.index.labels import MISSING


def sample_weights(target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """float [N]: the class weight of each labelled sample (1 without class weights), 0 where the label is missing."""
    valid = target != MISSING
    if class_weights is None:
        return valid.float()
    return torch.where(valid, class_weights.to(target.device)[target.clamp(min=0)], 0.0)


def cross_entropy(
    logits: Tensor, target: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Sum of w_y * [(1 - s) * -log p_y + s * mean_c -log p_c] and of w_y (Szegedy et al. 2016 for the smoothing s).

    logits [N, C], target int64 [N]; both results are float32 scalars.
    """
    weights = sample_weights(target, class_weights)
    log_probabilities = functional.log_softmax(logits.float(), dim=1)
    class_weights = None if class_weights is None else class_weights.to(logits.device)
    loss = functional.nll_loss(log_probabilities, target, class_weights, ignore_index=MISSING, reduction="sum")
    if label_smoothing:
        # Not torch's own smoothing, which weighs each of the classes instead of the sample.
        loss = (1 - label_smoothing) * loss - label_smoothing * (weights * log_probabilities.mean(dim=1)).sum()
    return loss, weights.sum()


def focal(
    logits: Tensor, target: Tensor, *, class_weights: Tensor | None = None, gamma: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Sum of w_y * (1 - p_y)^gamma * -log p_y and of w_y (Lin et al. 2017). logits [N, C], target int64 [N]."""
    weights = sample_weights(target, class_weights)
    log_probability = functional.log_softmax(logits.float(), dim=1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    # Where p_y rounds to 1, a gamma below 1 would have an infinite slope.
    rest = (-torch.expm1(log_probability)).clamp(min=torch.finfo(torch.float32).eps)
    loss = -(rest**gamma) * log_probability
    return (weights * loss).sum(), weights.sum()
