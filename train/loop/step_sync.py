"""The one small message per step: what all ranks must know before a step starts, summed a batch ahead.

    control.start(next_batch, stop=False); message = control.finish()

It carries the weight sum of every loss term, the number of samples, the number of bad ones, the wish to stop, and a
fingerprint of the collectives so far, so that ranks that no longer do the same are named.
"""

import contextlib
from dataclasses import dataclass

import torch

from data.loading.batch import Batch
from train.distributed.comm import Comm
from train.distributed.flight_recorder import describe_divergence
from train.errors import RankLost, RanksDiverged
from train.losses.objective import Objective


@dataclass(frozen=True)
class StepTotals:
    """Sums over all ranks for one step, the same on every rank."""

    weight_sums: list[float]  # per loss term
    num_samples: int
    num_bad: int
    stop: bool


class StepSync:
    """At most one message is under way at a time."""

    def __init__(self, objective: Objective, comm: Comm) -> None:
        self._objective, self._comm = objective, comm
        self._message = torch.zeros(0)
        self._handle: object | None = None
        self._under_way = False

    def start(self, batch: Batch, *, stop: bool) -> None:
        mark = self._comm.flight_recorder.fingerprint
        values = [*self._objective.weight_sums(batch), len(batch), len(batch.bad), stop, mark, mark * mark]
        self._message = torch.tensor(values, dtype=torch.float64)
        self._handle = self._comm.allreduce_async(self._message, name="control")
        self._under_way = True

    def finish(self) -> StepTotals:
        """Raises RankLost, or RanksDiverged naming the ranks."""
        self._under_way = False
        self._comm.wait(self._handle)
        *weight_sums, num_samples, num_bad, stop, marks, squares = self._message.tolist()
        # Equal numbers, and only they, have a mean of squares that is the square of their mean.
        if int(marks) ** 2 != self._comm.size * int(squares):
            flight_recorder = self._comm.flight_recorder
            ranks = self._comm.allgather_object(
                [flight_recorder.fingerprint, flight_recorder.recent()], name="divergence"
            )
            raise RanksDiverged(describe_divergence([mark for mark, _ in ranks], [recent for _, recent in ranks]))
        return StepTotals(weight_sums, int(num_samples), int(num_bad), bool(stop))

    def drain(self) -> None:
        """Take in a message that nobody will read, if one is under way. Whoever is lost is told elsewhere."""
        if self._under_way:
            self._under_way = False
            with contextlib.suppress(RankLost):
                self._comm.wait(self._handle)
