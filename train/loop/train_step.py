"""One optimizer update from one batch, the same whatever the number of ranks and micro-batches.

train_step.update(batch, totals, step=17)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from data.loading.batch import Batch
from data.randomness import mix
from models.preprocessing import PRECISIONS, Normalise
from train.distributed.comm import Comm
from train.distributed.gradient_buckets import GradientBuckets
from train.loop.step_sync import StepTotals
from train.loop.train_metrics import TrainMetrics
from train.losses.objective import Objective
from train.optim.grad_scaler import LossScale

_DROPOUT = 211  # domain of the random keys of dropout and stochastic depth
# Batch statistics of one sample say nothing (and torch refuses them).
_FEWEST_FOR_STATISTICS = 2


def seed_generators(seed: int, device: torch.device) -> None:
    """Those that a step on `device` draws from. torch.manual_seed visits every kind of device and takes 0.1 ms."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class TrainStep:
    """Forward, backward, gradient sums over the ranks, gradient hooks, optimizer step, update hooks.

    batch_hooks run on every micro-batch, on the device, before the forward pass; gradient_hooks between the sum and
    the step, the only place where gradients may be edited; update_hooks after the step. batch_size: samples of a full
    update over all ranks; one with less than half of them counts by its share of them. Default: all count in full.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        normalise: Normalise,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        buckets: GradientBuckets,
        metrics: TrainMetrics,
        comm: Comm,
        device: torch.device,
        learning_rate: Callable[[int], float],
        precision: str = "fp32",
        micro_batch: int | None = None,
        clip_norm: float | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        batch_hooks: Sequence[Callable[[Batch], Batch]] = (),
        gradient_hooks: Sequence[Callable[[int], None]] = (),
        update_hooks: Sequence[Callable[[int], None]] = (),
    ) -> None:
        self.model, self.normalise, self.objective = model, normalise, objective
        self.optimizer, self.buckets, self.metrics, self.comm = optimizer, buckets, metrics, comm
        self.device, self.learning_rate = device, learning_rate
        self.precision, self.micro_batch, self.clip_norm, self.seed = precision, micro_batch, clip_norm, seed
        self.batch_size = batch_size
        self.batch_hooks, self.gradient_hooks, self.update_hooks = batch_hooks, gradient_hooks, update_hooks
        self.scale = LossScale(device) if precision == "fp16" else None

    def update(self, batch: Batch, totals: StepTotals, *, step: int) -> None:
        """One update; `step` counts from 0 over all epochs."""
        seed_generators(int(mix(_DROPOUT, self.seed, step, self.comm.rank)) >> 1, self.device)
        weight = self._weight(totals.num_samples)
        self._set_learning_rate(step)
        self.buckets.zero()
        parts = batch.split(self.micro_batch or max(1, len(batch)))
        for part in parts:
            if part is parts[-1]:
                self.buckets.arm(share=self._share(len(batch), totals.num_samples))
            if len(part):
                self._backward(part, totals, step)
        self.buckets.finish()
        self._apply(step, weight)
        self.metrics.count(batch, totals.weight_sums, totals.num_samples, step=step)

    def _share(self, mine: int, everyone: int) -> float:
        """This rank's weight in the averaged statistics; where no rank has a usable sample, all weigh the same."""
        return mine / everyone if everyone else 1 / self.comm.size

    def _weight(self, num_samples: int) -> float:
        """What an update's gradients, and what it makes of the running statistics, are multiplied with: norms over a
        handful of samples, as the last batch of an epoch may be, say little, and would undo what full batches brought.
        Decay and penalties go on as in every update."""
        if self.batch_size is None or num_samples >= self.batch_size / 2:
            return 1.0
        return num_samples / self.batch_size

    def read_metrics(self) -> dict[str, float]:
        """Means over all ranks since the last call (a collective)."""
        return self.metrics.read(self.comm)

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Logits of a batch that is on the device, in the run's precision, by this model or another (EMA, teacher)."""
        with torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32"):
            logits: dict[str, Tensor] = model(self.normalise(batch.image))
        return logits

    def _backward(self, part: Batch, totals: StepTotals, step: int) -> None:
        part = part.to(self.device)
        for hook in self.batch_hooks:
            part = hook(part)
        with _running_statistics(self.model, when=len(part) < _FEWEST_FOR_STATISTICS):
            logits = self.predict(self.model, part)
        loss, sums = self.objective(logits, part, totals.weight_sums, step)
        (loss if self.scale is None else loss * self.scale.value).backward()
        self.metrics.add(sums, logits, part)

    def _apply(self, step: int, weight: float) -> None:
        if self.scale is not None:
            self.scale.unscale(self.buckets.gradients)
        norm = self.buckets.norm()
        # Not finite on one rank is not finite in the sum: all ranks skip the same updates without asking.
        skipped = (~torch.isfinite(norm)).float()
        if self.clip_norm is not None:
            factor = (self.clip_norm / norm).clamp(max=1.0)
            torch._foreach_mul_(self.buckets.gradients, factor)
        if weight < 1:
            # Not the rate of this step: momentum would carry nearly all of the gradient into the next ones.
            torch._foreach_mul_(self.buckets.gradients, weight)
        for hook in self.gradient_hooks:
            hook(step)
        # The fused optimizers skip on the device when this is 1, so the host need not wait for the answer.
        self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.step()
        self.buckets.weigh(weight)
        self.buckets.take_back(skipped)
        for hook in self.update_hooks:
            hook(step)
        searching = None if self.scale is None else self.scale.can_fall
        if self.scale is not None:
            self.scale.adapt(skipped)
        self.metrics.end_step(norm, skipped, searching=searching, step=step)

    def _set_learning_rate(self, step: int) -> None:
        rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_multiplier", 1.0)


@contextmanager
def _running_statistics(model: nn.Module, *, when: bool) -> Iterator[None]:
    """Batch norms use (and keep) their running statistics inside."""
    norms = (
        [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training] if when else []
    )
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
