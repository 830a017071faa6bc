"""Training sums since the last log line, kept on the device until they are read.

meter.add(sums, logits, batch); meter.end_step(norm, skipped); report = meter.read(comm)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from data.batch import Batch
from train.comm import Comm
from train.objective import Objective


class Meter:
    """Per loss term its sum and mass, per task hits and labels, and the gradient norm; one vector."""

    def __init__(self, objective: Objective, tasks: Sequence[str], device: torch.device) -> None:
        self._objective, self._tasks = objective, list(tasks)
        self._num_terms = len(objective.names)
        self.sums = torch.zeros(self._num_terms + len(self._tasks), dtype=torch.float64, device=device)
        self.masses = [0.0] * self._num_terms
        self._weights = objective.weights(0)  # of the last step
        self.labels = [0.0] * len(self._tasks)
        # The same on every rank, so they are not summed.
        self.norms = torch.zeros(2, dtype=torch.float64, device=device)  # sum of norms, skipped updates
        self.num_steps = self.num_samples = 0

    def add(self, sums: Tensor, logits: dict[str, Tensor], batch: Batch) -> None:
        """Device work only: no value is read here."""
        answers = torch.stack([logits[task].detach().argmax(dim=1) for task in self._tasks])
        hits = (answers == torch.stack([batch.label[task] for task in self._tasks])).sum(dim=1)
        self.sums += torch.cat([sums.double(), hits])

    def count(self, batch: Batch, masses: Sequence[float], num_samples: int, *, step: int) -> None:
        """What the host knows of a step: local labels, masses and samples over all ranks."""
        self._weights = self._objective.weights(step)
        self.masses = [old + new for old, new in zip(self.masses, masses, strict=True)]
        labels = torch.stack([batch.valid[task] for task in self._tasks]).sum(dim=1).tolist()
        self.labels = [old + new for old, new in zip(self.labels, labels, strict=True)]
        self.num_steps += 1
        self.num_samples += num_samples

    def end_step(self, norm: Tensor, skipped: Tensor) -> None:
        self.norms += torch.stack([torch.where(skipped > 0, 0.0, norm), skipped]).double()

    def read(self, comm: Comm) -> dict[str, float]:
        """Means since the last call over all ranks (a collective), and start again."""
        packed = torch.cat([self.sums.cpu(), torch.tensor(self.labels, dtype=torch.float64)])
        comm.allreduce(packed, name="meter")
        sums = packed[: self._num_terms].tolist()
        hits, labels = packed[self._num_terms :].view(2, -1).tolist()
        norm, skipped = self.norms.tolist()
        report = {}
        total = 0.0
        for name, weight, value, mass in zip(self._objective.names, self._weights, sums, self.masses, strict=True):
            report[f"loss.{name}"] = value / mass if mass else float("nan")
            total += weight * value / mass if mass else 0.0
        report["loss"] = total
        for task, hit, count in zip(self._tasks, hits, labels, strict=True):
            report[f"{task}.top1"] = hit / count if count else float("nan")
        report["gradient_norm"] = norm / max(1.0, self.num_steps - skipped)
        report["skipped_updates"] = skipped
        self.reset()
        return report

    def reset(self) -> None:
        self.sums.zero_()
        self.norms.zero_()
        self.masses = [0.0] * len(self.masses)
        self.labels = [0.0] * len(self.labels)
        self.num_steps = self.num_samples = 0
