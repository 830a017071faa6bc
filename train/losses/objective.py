"""The training objective: a weighted sum of loss terms, each divided by its weight sum over the whole update.

objective = Objective([LossTerm("age", 1.0, loss=..., weight_sum=...)])
loss, sums = objective(logits, batch, weight_sums, step)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from data.loading.batch import Batch
from train.losses.classification import cross_entropy, focal, sample_weights

Logits = dict[str, Tensor]


@dataclass(frozen=True)
class LossTerm:
    """One loss term.

    loss(logits, batch) -> sum over the samples given, a scalar on the device.
    weight_sum(batch) -> the sum of their weights, from the batch alone: it is known before the forward pass, so the sum
    over all ranks travels while the previous step computes.
    ramp(step) -> what the weight is multiplied with at a step; None: 1 throughout.
    """

    name: str
    weight: float
    loss: Callable[[Logits, Batch], Tensor]
    weight_sum: Callable[[Batch], float]
    ramp: Callable[[int], float] | None = None

    def weight_at(self, step: int) -> float:
        return self.weight if self.ramp is None else self.weight * self.ramp(step)


class Objective:
    """Sum over the terms of weight * (sum / weight sum), and 0 where the weight sum is 0."""

    def __init__(self, terms: Sequence[LossTerm]) -> None:
        self.terms = list(terms)
        self.names = [term.name for term in self.terms]

    def weights(self, step: int) -> list[float]:
        return [term.weight_at(step) for term in self.terms]

    def weight_sums(self, batch: Batch) -> list[float]:
        return [term.weight_sum(batch) for term in self.terms]

    def __call__(self, logits: Logits, batch: Batch, weight_sums: Sequence[float], step: int) -> tuple[Tensor, Tensor]:
        """(scalar to differentiate, float32 [num_terms] sums for the log). weight_sums: of the whole update."""
        sums = torch.stack([term.loss(logits, batch) for term in self.terms])
        factors = [
            weight / weight_sum if weight_sum else 0.0
            for weight, weight_sum in zip(self.weights(step), weight_sums, strict=True)
        ]
        return (sums * torch.tensor(factors, device=sums.device)).sum(), sums.detach()


LOSSES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"cross-entropy": cross_entropy, "focal": focal}


def label_term(
    task: str,
    *,
    weight: float = 1.0,
    loss: str = "cross-entropy",
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    ramp: Callable[[int], float] | None = None,
) -> LossTerm:
    """The term that learns a task from its labels."""
    options = {"gamma": focal_gamma} if loss == "focal" else {"label_smoothing": label_smoothing}
    function = partial(LOSSES[loss], class_weights=class_weights, **options)
    return LossTerm(
        name=task,
        weight=weight,
        loss=lambda logits, batch: function(logits[task], batch.label[task])[0],
        weight_sum=lambda batch: float(sample_weights(batch.label[task], class_weights).sum()),
        ramp=ramp,
    )
