"""Shuffling, the stratified hold-out and folds: pure functions of the keys, the labels, the units and the seed.

Use: `splits = assign_splits(source.records, source.tasks, split=None, fraction=0.2, seed=0)`
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress

import numpy as np

from data.errors import BadArgument
from data.shards.groups import number_units
from data.shards.hold_out import ALWAYS_TRAIN, draw_folds, hold_out
from data.shards.stratify import count_labels
from data.sources import Record

TRAIN = "train"
HELD_OUT = "val"
_NAMED = 20
_AT_ONCE = 65_536  # digests kept as objects


@dataclass(frozen=True)
class Splits:
    """Shuffled records by split; notes are sentences for the user."""

    parts: dict[str, list[Record]]
    notes: tuple[str, ...] = ()


def shuffle(records: Sequence[Record], *, seed: int) -> list[Record]:
    """Order by a hash of (seed, key): the same on every machine, whatever the order of `records`."""
    return [records[number] for number in shuffled_order(records, seed=seed).tolist()]


def shuffled_order(records: Sequence[Record], *, seed: int) -> np.ndarray:
    """int64 [n]: the numbers of the records in the order of `shuffle`."""
    digests = np.empty((len(records), 2), np.uint64)
    for start in range(0, len(records), _AT_ONCE):
        block = b"".join(_digest(seed, record.key) for record in records[start : start + _AT_ONCE])
        digests[start : start + _AT_ONCE] = np.frombuffer(block, ">u8").reshape(-1, 2)
    return np.lexsort((digests[:, 1], digests[:, 0]))


def _digest(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogateescape"), digest_size=16).digest()


def assign_splits(
    records: Sequence[Record],
    tasks: Mapping[str, Sequence[str]],
    *,
    split: str | None,
    fraction: float | None,
    seed: int,
    folds: int | None = None,
    fold: int | None = None,
    unit: np.ndarray | None = None,
) -> Splits:
    """Records by split, each in the order of `shuffle`.

    Published splits are kept unless `split` picks one of them, or val is drawn anew from what is published as train and
    val: `fraction` of it, or fold number `fold` (from 0) of `folds`. What is drawn is stratified over all tasks, and
    every class keeps a sample in train. Folds do not overlap; together they hold everything but the only samples of a
    class, which stay in train in all of them.

    unit: int64 [n], equal for records that may not be parted (see `data.shards.groups.join_units`).
    Raises BadArgument when the options do not fit the source, or the units allow no share near the asked one.
    """
    option = _option(fraction, folds, fold)
    published = sorted({record.split for record in records} - {""})
    _check_fit(published, split, option, grouped=unit is not None)
    order = shuffled_order(records, seed=seed)
    ordered = [records[number] for number in order.tolist()]
    pool = split or TRAIN
    pooled = () if split is not None else ("", TRAIN, HELD_OUT) if option else ("",)
    names = [pool if not published or record.split in pooled else record.split for record in ordered]
    wanted = dict.fromkeys(names) if split is None else [pool]
    parts = {name: list(compress(ordered, map(name.__eq__, names))) for name in wanted}
    if not option:
        return Splits(parts)
    if not parts.get(pool):
        raise BadArgument(f"{option}: the source publishes only {', '.join(published)}, nothing to train on")
    notes: list[str] = []
    units = None
    if unit is not None:
        inside = np.array([name == pool for name in names])
        units, outside = number_units(unit[order[inside]]), unit[order[~inside]]
        if (parted := np.isin(unit[order[inside]], outside)).any():
            number = len(np.unique(units[parted]))
            notes.append(
                f"{'1 group lies' if number == 1 else f'{number:,} groups lie'} in other published splits, too "
                f"({', '.join(sorted(set(names) - {pool}))}), which stay as they are; {np.count_nonzero(parted):,} "
                f"photos of {'it' if number == 1 else 'them'} are in {pool} or {HELD_OUT}"
            )
    held, said = _draw(parts[pool], tasks, units, fraction=fraction, folds=folds, fold=fold)
    kept, out = list(compress(parts[pool], (~held).tolist())), list(compress(parts[pool], held.tolist()))
    return Splits({**parts, pool: kept, HELD_OUT: out}, (*notes, *said))


def _draw(
    records: Sequence[Record],
    tasks: Mapping[str, Sequence[str]],
    units: np.ndarray | None,
    *,
    fraction: float | None,
    folds: int | None,
    fold: int | None,
) -> tuple[np.ndarray, list[str]]:
    """(bool [n]: which of the shuffled records are held out, notes)."""
    columns, num_labels = label_columns(records, tasks)
    numbers = np.arange(len(records)) if units is None else units
    notes = []
    if fraction is not None:
        name_of = partial(_name_of, records, numbers)
        held = hold_out(columns, num_labels, numbers, fraction=fraction, name_of_unit=name_of)
    else:
        assert folds is not None
        fold_of = draw_folds(columns, num_labels, numbers, folds=folds)
        held = fold_of == fold
        notes += _fold_notes(fold_of, folds)
    if units is not None:
        notes.append(_unit_note(units, held))
    notes += _class_notes(tasks, count_labels(columns, num_labels), count_labels(columns[:, held], num_labels))
    return held, notes


def label_columns(records: Sequence[Record], tasks: Mapping[str, Sequence[str]]) -> tuple[np.ndarray, int]:
    """(int32 [T, n], L): labels numbered over all tasks, from 0 to L-1; L is a missing one."""
    flat = chain.from_iterable(record.labels for record in records)
    rows = np.fromiter(flat, np.int32, len(records) * len(tasks)).reshape(len(records), len(tasks))
    columns = rows.T.copy()
    num_labels = sum(map(len, tasks.values()))
    first = 0
    for column, classes in zip(columns, tasks.values(), strict=True):
        column[:] = np.where(column < 0, num_labels, column + first)
        first += len(classes)
    return columns, num_labels


def _option(fraction: float | None, folds: int | None, fold: int | None) -> str:
    """The option that draws val, as the user wrote it; "" without one."""
    if fraction is not None and (folds is not None or fold is not None):
        raise BadArgument("--holdout with --folds: both say what val is; leave one out")
    if fraction is not None:
        if not 0 < fraction < 1:
            raise BadArgument(f"--holdout {fraction}: must lie between 0 and 1, as 0.2")
        return f"--holdout {fraction}"
    if folds is None and fold is None:
        return ""
    if folds is None or fold is None:
        raise BadArgument("--folds and --fold belong together, as --folds 5 --fold 0")
    if folds < 2:
        raise BadArgument(f"--folds {folds}: must be at least 2")
    if not 0 <= fold < folds:
        raise BadArgument(f"--fold {fold}: must lie between 0 and {folds - 1}, with --folds {folds}")
    return f"--folds {folds}"


def _check_fit(published: Sequence[str], split: str | None, option: str, *, grouped: bool) -> None:
    """BadArgument when the options do not fit the published splits."""
    listed = ", ".join(published)
    if split is not None and published and split not in published:
        raise BadArgument(f"--split {split}: the source publishes {listed}; pick one or leave --split out")
    if split == HELD_OUT and option:
        raise BadArgument(
            f"--split {HELD_OUT} with {option.split()[0]}: the held-out samples go to {HELD_OUT}; name another split"
        )
    if grouped and published and not option:
        raise BadArgument(
            f"--group with published splits ({listed}): splits stay as published; add --holdout to draw anew"
        )


def _name_of(records: Sequence[Record], units: np.ndarray, number: int) -> str:
    """The group, or the first photo, of a unit."""
    first = records[int(np.flatnonzero(units == number)[0])]
    return first.group or f"with {first.key}"


def _fold_notes(fold_of: np.ndarray, folds: int) -> list[str]:
    notes = []
    if always := np.count_nonzero(fold_of == ALWAYS_TRAIN):
        notes.append(f"{always:,} photos stay in train in every fold: a class would not be learnt without them")
    sizes = np.bincount(fold_of[fold_of != ALWAYS_TRAIN], minlength=folds)
    if sizes.max() - sizes.min() > 1:
        notes.append(f"folds hold from {sizes.min():,} to {sizes.max():,} photos")
    return notes


def _unit_note(units: np.ndarray, held: np.ndarray) -> str:
    sizes = np.bincount(units)
    several = sizes[sizes > 1]
    if not len(several):
        return "no group has two photos, so that each photo stands for itself"
    return f"{several.sum():,} photos in {len(several):,} groups; the share held out is {held.mean():.3f}"


def _class_notes(tasks: Mapping[str, Sequence[str]], counts: np.ndarray, held: np.ndarray) -> list[str]:
    """Tasks with classes that have samples, but none that is held out."""
    notes = []
    first = 0
    for task, classes in tasks.items():
        part = slice(first, first + len(classes))
        first += len(classes)
        absent = [classes[number] for number in np.flatnonzero((counts[part] > 0) & (held[part] == 0)).tolist()]
        if absent:
            more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
            number = "1 class has" if len(absent) == 1 else f"{len(absent):,} classes have"
            notes.append(f"task {task!r}: {number} no held-out sample: {', '.join(absent[:_NAMED])}{more}")
    return notes
