"""Recomputes entries of a teacher cache and compares them with what is stored.

sampler = EntrySampler(draw_entries(index.counts, views=4, num=100, seed=0), batch_size=64)
batches = Loader(index, sampler, transform, view_schedule=sampler.views).batches()
check = check_entries(batches, sampler, ...); check.errors
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from data.loading.batch import Batch
from data.sampling.sampler import Rows, WorkerInfo
from data.sampling.view_schedule import ViewSchedule
from data.teacher_logits import LogitReader

# Allowed difference, as a share of the largest logit of a row. fp16 storage rounds to 0.05 %; the rest is the forward
# pass, whose last bits depend on the composition of the batch (and, in fp32 on a GPU, on TF32).
TOLERANCE = {"fp32": 0.005, "fp16": 0.02, "bf16": 0.05}

Entry = tuple[int, int, int]  # view, shard, sample


@dataclass
class Check:
    """largest: the largest difference, as a share of its row's largest logit; errors: one line per wrong entry."""

    largest: float = 0.0
    errors: list[str] = field(default_factory=list)


def draw_entries(counts: np.ndarray, *, views: int, num: int, seed: int) -> list[Entry]:
    """Different entries drawn by `seed` from all views and samples (all of them where there are no more), sorted."""
    ends = np.cumsum(counts)
    total = int(ends[-1])
    entries = []
    for place in random.Random(seed).sample(range(views * total), min(num, views * total)):
        view, at = divmod(place, total)
        shard = int(np.searchsorted(ends, at, side="right"))
        entries.append((view, shard, at - int(ends[shard] - counts[shard])))
    return sorted(entries)


@dataclass(frozen=True)
class _ViewOfStep(ViewSchedule):
    of_step: tuple[int, ...] = ()

    def at(self, epoch: int, step: int) -> tuple[int, bool]:
        return self.of_step[step], True


class EntrySampler:
    """Entries as a sampler of the loader, in batches of one view each; `views` tells the loader which."""

    def __init__(self, entries: Sequence[Entry], *, batch_size: int) -> None:
        of_view = [list(group) for _, group in groupby(sorted(entries), key=lambda entry: entry[0])]
        self._steps = [
            group[first : first + batch_size] for group in of_view for first in range(0, len(group), batch_size)
        ]
        self.steps_per_epoch = len(self._steps)
        self.views = _ViewOfStep(of_step=tuple(step[0][0] for step in self._steps))

    def view(self, step: int) -> int:
        """The view of all entries of a step."""
        return self.views.of_step[step]

    def rows(self, epoch: int, step: int, worker_info: WorkerInfo | None = None) -> Rows:
        """The entries of a step."""
        row = self.places(epoch, step, worker_info or WorkerInfo())
        _, shard, sample = np.array(self._steps[step], dtype=np.int64).T
        return Rows(row=row, shard=shard[row], sample=sample[row])

    def places(self, epoch: int, step: int, worker_info: WorkerInfo) -> np.ndarray:
        return worker_info.cut(len(self._steps[step]))

    def most_rows(self, num_ranks: int) -> int:
        return max(map(len, self._steps), default=0)


def check_entries(
    batches: Iterable[Batch],
    sampler: EntrySampler,
    *,
    shard_names: Sequence[str],
    logits: LogitReader,
    teacher: Callable[[Tensor], Tensor],
    tolerance: float,
    device: torch.device,
    progress: Callable[[int], None],
    stop_requested: Callable[[], bool],
) -> Check | None:
    """Compare stored with recomputed rows; None when it was stopped. DataError when a stored one is damaged.

    A photo that cannot be used must be stored without finite logits."""
    check = Check()
    for batch in batches:
        view = sampler.view(batch.step)
        if len(batch):
            computed = teacher(batch.to(device).image).half().cpu().numpy()
            for (shard, sample), key, row in zip(batch.index.tolist(), batch.key, computed, strict=True):
                where = f"{shard_names[shard]} {key}, view {view}"
                _compare(check, where, logits.read(shard, sample, view), row, tolerance)
        for record in batch.bad:
            if np.isfinite(logits.read(*record.index, view)).all():
                check.errors.append(f"{record.shard} {record.key}, view {view}: has logits, but {record.reason}")
        progress(len(batch) + len(batch.bad))
        if stop_requested():
            return None
    return check


def _compare(check: Check, where: str, stored: np.ndarray, computed: np.ndarray, tolerance: float) -> None:
    is_stored, is_computed = bool(np.isfinite(stored).all()), bool(np.isfinite(computed).all())
    if is_stored != is_computed:
        now = "now they are" if is_computed else "now they are not"
        check.errors.append(f"{where}: the stored logits are {'' if is_stored else 'not '}finite, {now}")
    if not (is_stored and is_computed):
        return
    stored, computed = stored.astype(np.float32), computed.astype(np.float32)
    scale = max(float(np.abs(computed).max()), float(np.finfo(np.float16).tiny))
    difference = float(np.abs(stored - computed).max()) / scale
    check.largest = max(check.largest, difference)
    if difference > tolerance:
        check.errors.append(f"{where}: differs by {100 * difference:.2f} % of its largest logit")
