"""Training sums since the last log line, kept on the device until they are read.

meter.add(sums, logits, batch); meter.end_step(norm, skipped, step=17); report = meter.read(comm); meter.skips
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from data.loading.batch import Batch
from train.distributed.comm import Comm
from train.evaluation.answer import is_answer
from train.loop.skipped_updates import SkipLog, Skips
from train.losses.objective import Objective


class TrainMetrics:
    """Per loss term its sum and weight sum, per task hits, labels and samples without an answer, and the gradient norm.

    skips: of the interval that was read last.
    """

    def __init__(self, objective: Objective, tasks: Sequence[str], device: torch.device) -> None:
        self._objective, self._tasks = objective, list(tasks)
        self._num_terms = len(objective.names)
        # of the terms, then hits, then samples without an answer
        self.sums = torch.zeros(self._num_terms + 2 * len(self._tasks), dtype=torch.float64, device=device)
        self._step_sums: list[Tensor] = []  # of the terms, per micro-batch
        self.weight_sums = [0.0] * self._num_terms
        self._weights = objective.weights(0)  # of the last step
        self.labels = [0.0] * len(self._tasks)
        # The same on every rank, so they are not summed.
        self.norm = torch.zeros((), dtype=torch.float64, device=device)
        self.skip_log = SkipLog()
        self.skips = Skips(0, 0, 0, 0, 0, ())
        self.num_steps = self.num_samples = 0

    def add(self, sums: Tensor, logits: dict[str, Tensor], batch: Batch) -> None:
        """Device work only: no value is read here."""
        chosen = torch.stack([logits[task].detach().argmax(dim=1) for task in self._tasks])
        answered = torch.stack([is_answer(logits[task].detach()) for task in self._tasks])
        hits = (answered & (chosen == torch.stack([batch.label[task] for task in self._tasks]))).sum(dim=1)
        self.sums += torch.cat([sums.double(), hits, (~answered).sum(dim=1)])
        self._step_sums.append(sums)

    def count(self, batch: Batch, weight_sums: Sequence[float], num_samples: int, *, step: int) -> None:
        """What the host knows of a step: local labels, weight sums and samples over all ranks."""
        self._weights = self._objective.weights(step)
        self.weight_sums = [old + new for old, new in zip(self.weight_sums, weight_sums, strict=True)]
        labels = torch.stack([batch.valid[task] for task in self._tasks]).sum(dim=1).tolist()
        self.labels = [old + new for old, new in zip(self.labels, labels, strict=True)]
        self.num_steps += 1
        self.num_samples += num_samples

    def end_step(self, norm: Tensor, skipped: Tensor, *, searching: Tensor | None = None, step: int) -> None:
        """norm: of the gradients. skipped, searching: as SkipLog.count has them."""
        self.norm += torch.where(skipped > 0, 0.0, norm)
        parts = self._step_sums or [self.sums.new_zeros(self._num_terms)]  # a rank may be without a sample
        self.skip_log.count(skipped, searching, sum(parts[1:], start=parts[0]), step=step)
        self._step_sums = []

    def continue_row(self, row: int, since: int, terms: Sequence[str]) -> None:
        """Of a run that is taken up again within a row of skipped updates; see train.loop.skipped_updates."""
        self.skip_log.row, self.skip_log.since = row, since
        self.skip_log.broken = [name in terms for name in self._objective.names]

    def read(self, comm: Comm) -> dict[str, float]:
        """Means since the last call over all ranks (a collective), and start again."""
        skips, marks = self.skip_log.read()
        packed = torch.cat([self.sums.cpu(), marks, torch.tensor(self.labels, dtype=torch.float64)])
        comm.allreduce(packed, name="meter")
        num_terms, num_tasks = self._num_terms, len(self._tasks)
        sums, hits, no_answers, broken_terms, labels = (
            part.tolist() for part in packed.split([num_terms, num_tasks, num_tasks, num_terms, num_tasks])
        )
        self.skip_log.broken = [count > 0 for count in broken_terms]
        named = [name for name, count in zip(self._objective.names, broken_terms, strict=True) if count]
        self.skips = replace(skips, broken=named)
        report = {}
        total = 0.0
        for name, weight, value, weight_sum in zip(
            self._objective.names, self._weights, sums, self.weight_sums, strict=True
        ):
            report[f"loss.{name}"] = value / weight_sum if weight_sum else float("nan")
            total += weight * value / weight_sum if weight_sum else 0.0
        report["loss"] = total
        for task, hit, count in zip(self._tasks, hits, labels, strict=True):
            report[f"{task}.top1"] = hit / count if count else float("nan")
        report |= {f"{task}.no_answer": count for task, count in zip(self._tasks, no_answers, strict=True) if count}
        made = self.num_steps - skips.all
        report["gradient_norm"] = self.norm.item() / made if made else float("nan")
        report["skipped_updates"] = float(skips.all)
        self.reset()
        return report

    def reset(self) -> None:
        self.sums.zero_()
        self.norm.zero_()
        self._step_sums = []
        self.skip_log.reset()
        self.weight_sums = [0.0] * len(self.weight_sums)
        self.labels = [0.0] * len(self.labels)
        self.num_steps = self.num_samples = 0
