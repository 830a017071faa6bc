"""Recomputes entries of a teacher cache and compares them with what is stored.

check = check_entries(draw_entries(index, views=4, num=100, seed=0), ...); check.problems, check.largest
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data.errors import BadSample
from data.index import Index
from data.pixels import Pixels
from data.reader import ShardReader
from data.teacher_logits import LogitReader

# Allowed difference, as a share of the largest logit of a row. fp16 storage rounds to 0.05 %; the rest is the forward
# pass, whose last bits depend on the composition of the batch (and, in fp32 on a GPU, on TF32).
TOLERANCE = {"fp32": 0.005, "fp16": 0.02, "bf16": 0.05}

Entry = tuple[int, int, int]  # shard, sample, view


@dataclass
class Check:
    """largest: the largest difference, as a share of its row's largest logit; problems: one line per wrong entry."""

    largest: float = 0.0
    problems: list[str] = field(default_factory=list)


def draw_entries(index: Index, *, views: int, num: int, seed: int) -> list[Entry]:
    """Different entries drawn by `seed` from all views and samples (all of them where there are no more), in the order
    of the shards."""
    ends = np.cumsum(index.counts)
    total = int(ends[-1])
    places = random.Random(seed).sample(range(views * total), min(num, views * total))
    entries = []
    for place in places:
        view, at = divmod(place, total)
        shard = int(np.searchsorted(ends, at, side="right"))
        entries.append((shard, at - int(ends[shard] - index.counts[shard]), view))
    return sorted(entries)


def check_entries(
    entries: Sequence[Entry],
    *,
    samples: ShardReader,
    logits: LogitReader,
    pixels: Pixels,
    teacher: Callable[[Tensor], Tensor],
    tolerance: float,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int], None],
    stop_wanted: Callable[[], bool],
) -> Check | None:
    """Compare stored with recomputed rows; None when it was stopped. DataError when a stored one is damaged."""
    check = Check()
    for first in range(0, len(entries), batch_size):
        part = entries[first : first + batch_size]
        for entry, computed in zip(part, _compute(part, samples, pixels, teacher, device), strict=True):
            _compare(check, entry, logits.read(*entry), computed, samples, tolerance)
        progress(len(part))
        if stop_wanted():
            return None
    return check


def _compute(
    entries: Sequence[Entry],
    samples: ShardReader,
    pixels: Pixels,
    teacher: Callable[[Tensor], Tensor],
    device: torch.device,
) -> list[np.ndarray | None]:
    """float16 [num_classes] per entry; None where the photo cannot be used."""
    image = np.empty((len(entries), pixels.size, pixels.size, 3), dtype=np.uint8)
    usable: list[int] = []
    for at, (shard, sample, view) in enumerate(entries):
        name, key = samples.index.shards[shard].name, samples.info(shard).key(sample)
        try:
            pixels.make(samples.read(shard, sample), shard=name, key=key, view=view, out=image[len(usable)])
        except BadSample:
            continue
        usable.append(at)
    rows: list[np.ndarray | None] = [None] * len(entries)
    if usable:
        answers = teacher(torch.from_numpy(image[: len(usable)]).to(device)).half().cpu().numpy()
        for at, answer in zip(usable, answers, strict=True):
            rows[at] = answer
    return rows


def _compare(
    check: Check, entry: Entry, stored: np.ndarray, computed: np.ndarray | None, samples: ShardReader, tolerance: float
) -> None:
    shard, sample, view = entry
    where = f"{samples.index.shards[shard].name} {samples.info(shard).key(sample)}, view {view}"
    if computed is None or not np.isfinite(computed).all():
        if np.isfinite(stored).all():
            check.problems.append(f"{where}: finite logits are stored, but now there are none")
        return
    if not np.isfinite(stored).all():
        check.problems.append(f"{where}: no finite logits are stored, but now there are some")
        return
    stored, computed = stored.astype(np.float32), computed.astype(np.float32)
    scale = max(float(np.abs(computed).max()), float(np.finfo(np.float16).tiny))
    difference = float(np.abs(stored - computed).max()) / scale
    check.largest = max(check.largest, difference)
    if difference > tolerance:
        check.problems.append(f"{where}: differs by {100 * difference:.2f} % of its largest logit")
