"""Shuffling and the stratified hold-out: pure functions of the keys, the labels and the seed.

Use: `train, val = hold_out(shuffle(source.records, seed=0), fraction=0.2, seed=0)`
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

from data.errors import BadArgument
from data.sources import Record

TRAIN = "train"
HELD_OUT = "val"


def shuffle(records: Sequence[Record], *, seed: int) -> list[Record]:
    """Order by a hash of (seed, key): the same on every machine, whatever the order of `records`."""
    return sorted(records, key=lambda record: _draw(seed, record.key))


def hold_out(records: Sequence[Record], *, fraction: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Split into (kept, held out), both in the order of `records`.

    Every stratum gives `fraction` of its samples, at least one if it has two. Strata are the combinations of all
    labels where each has at least two samples, else the classes of the task that has the rarest class.
    """
    strata: dict[tuple[int, ...], list[Record]] = {}
    tasks = _stratified_tasks(records)
    for record in sorted(records, key=lambda record: _draw(seed, "hold out " + record.key)):
        strata.setdefault(tuple(record.labels[task] for task in tasks), []).append(record)
    held: set[str] = set()
    seen = 0
    for _, members in sorted(strata.items()):
        seen += len(members)
        # The running total is what is rounded, so that many small strata still give `fraction` of all.
        wanted = math.floor(seen * fraction + 0.5) - len(held)
        wanted = min(max(wanted, 1), len(members) - 1)
        held.update(record.key for record in members[:wanted])
    kept = [record for record in records if record.key not in held]
    return kept, [record for record in records if record.key in held]


def assign_splits(
    records: Sequence[Record], *, split: str | None, fraction: float | None, seed: int
) -> dict[str, list[Record]]:
    """Shuffled records by split. Published splits are kept unless `split` picks one of them, or `fraction` asks for a
    new hold-out (val) of what is published as train and val. Raises BadArgument when the two do not fit the source."""
    published = sorted({record.split for record in records} - {""})
    if split is not None and published and split not in published:
        raise BadArgument(
            f"--split {split}: the source publishes {', '.join(published)}; pick one or leave --split out"
        )
    if split == HELD_OUT and fraction is not None:
        raise BadArgument(
            f"--split {HELD_OUT} with --holdout: the held-out samples go to {HELD_OUT}; name another split"
        )
    chosen = [record for record in shuffle(records, seed=seed) if split in (None, record.split) or not published]
    parts: dict[str, list[Record]] = {}
    for record in chosen:
        pooled = record.split in ("", TRAIN, HELD_OUT) and fraction is not None
        name = split or (TRAIN if pooled else record.split or TRAIN)
        parts.setdefault(name, []).append(record)
    if fraction is None:
        return parts
    name = split or TRAIN
    if name not in parts:
        raise BadArgument(
            f"--holdout {fraction}: the source publishes only {', '.join(published)}, nothing to train on"
        )
    kept, held = hold_out(parts[name], fraction=fraction, seed=seed)
    if not kept or not held:
        raise BadArgument(f"--holdout {fraction}: {len(parts[name])} samples cannot be split like that")
    return {**parts, name: kept, HELD_OUT: held}


def _stratified_tasks(records: Sequence[Record]) -> list[int]:
    """Numbers of the tasks whose labels form the strata."""
    every_task = list(range(len(records[0].labels)))
    if min(Counter(record.labels for record in records).values()) >= 2:
        return every_task
    rarest = [min(Counter(record.labels[task] for record in records).values()) for task in every_task]
    return [rarest.index(min(rarest))]


def _draw(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
