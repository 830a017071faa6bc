"""The one small message per step: what all ranks must know before a step starts, summed a batch ahead.

    control.start(next_batch, stop=False); message = control.finish()

It carries the weight sum of every loss term, the number of samples, the number of bad ones and the wish to stop.
"""

from dataclasses import dataclass

import torch

from data.batch import Batch
from train.comm import Comm
from train.objective import Objective


@dataclass(frozen=True)
class StepTotals:
    """Sums over all ranks for one step, the same on every rank."""

    masses: list[float]  # per loss term
    num_samples: int
    num_bad: int
    stop: bool


class Control:
    """At most one message is under way at a time."""

    def __init__(self, objective: Objective, comm: Comm) -> None:
        self._objective, self._comm = objective, comm
        self._message = torch.zeros(0)
        self._handle: object | None = None

    def start(self, batch: Batch, *, stop: bool) -> None:
        values = [*self._objective.masses(batch), len(batch), len(batch.bad), stop]
        self._message = torch.tensor(values, dtype=torch.float64)
        self._handle = self._comm.allreduce_async(self._message, name="control")

    def finish(self) -> StepTotals:
        self._comm.wait(self._handle)
        *masses, num_samples, num_bad, stop = self._message.tolist()
        return StepTotals(masses, int(num_samples), int(num_bad), bool(stop))
