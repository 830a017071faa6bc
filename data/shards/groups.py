"""Units: samples that no split may part, because they show one person or one scene, or are copies of each other.

Use: `unit = join_units(len(records), links, [record.group for record in records])`

A unit is a number; samples with the same number stay on one side.
"""

from collections.abc import Sequence

import numpy as np

from data.shards.stratify import count_labels

UNDECIDED = -1


def join_units(num_samples: int, links: np.ndarray | None = None, *names: Sequence[str]) -> np.ndarray:
    """int64 [n]: the number of the unit of every sample, which is its smallest sample number.

    links: int64 [m, 2], pairs of sample numbers that stay together. names: columns of n group names; equal names stay
    together, "" is no group. What hangs together by several links or columns becomes one unit.
    """
    unit = np.arange(num_samples)
    pairs = [np.zeros((0, 2), np.int64) if links is None else np.asarray(links, np.int64).reshape(-1, 2)]
    for column in names:
        assert len(column) == num_samples, "a group name, or '', for every sample"
        first: dict[str, int] = {}
        leader = [first.setdefault(name, number) if name else number for number, name in enumerate(column)]
        pairs.append(np.stack([unit, np.array(leader, np.int64)], axis=1))
    ends = np.concatenate(pairs)
    assert not len(ends) or (ends.min() >= 0 and ends.max() < num_samples), "links are between sample numbers"
    # Every root hooks onto the smallest root that it is linked to, until no link joins two roots.
    while len(ends := ends[ends[:, 0] != ends[:, 1]]):
        np.minimum.at(unit, ends.max(axis=1), ends.min(axis=1))
        while not np.array_equal(further := unit[unit], unit):
            unit = further
        ends = unit[ends]
    return unit


def number_units(unit: np.ndarray) -> np.ndarray:
    """int64 [n]: units numbered 0, 1, ... in the order in which they first appear."""
    _, first, inverse = np.unique(unit, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    numbered: np.ndarray = place[inverse]
    return numbered


def place_units(unit: np.ndarray, columns: np.ndarray, *, targets: np.ndarray, most: np.ndarray) -> np.ndarray:
    """int64 [n]: the side of every sample that is in a unit of two or more; UNDECIDED for the others, and for units
    that `most` keeps from every side.

    unit: [n], numbered from 0. columns: int32 [T, n], labels as in `data.shards.stratify`. targets: [S], samples that
    each side is to hold. most: [L + 1, S], the most that each side may hold of each label.

    The largest unit is placed first, each on the side that has the least of its labels, measured by the sum of squared
    distances from the labels' shares; but no side grows beyond its target while another has room.
    """
    sizes = np.bincount(unit)
    side = np.full(len(sizes), UNDECIDED)
    units = np.flatnonzero(sizes > 1)
    units = units[np.argsort(-sizes[units], kind="stable")]
    shares = np.maximum(targets, 1) / max(targets.sum(), 1)
    num_labels = len(most) - 1
    weight = 1.0 / np.maximum(count_labels(columns, num_labels), 1)
    weight[num_labels] = 1.0 / max(len(unit), 1)  # the last row counts all samples, as if they were a class
    filled = np.zeros((num_labels + 1, len(targets)))
    starts, labels, counts = _labels_of_units(unit, columns, num_labels, sizes)
    for number in units.tolist():
        part = slice(starts[number], starts[number + 1])
        rows, added = labels[part], counts[part, None]
        now = filled[rows]
        after = now + added
        allowed = (after <= most[rows]).all(axis=0)
        if not allowed.any():
            continue
        over = after[-1] - targets  # the last row of a unit is that of all samples
        price = ((now + after) * (added * weight[rows, None])).sum(axis=0) / shares
        price = np.where(over <= 0, price, np.inf) if (allowed & (over <= 0)).any() else over
        chosen = int(np.where(allowed, price, np.inf).argmin())
        filled[rows, chosen] = after[:, chosen]
        side[number] = chosen
    placed: np.ndarray = side[unit]
    return placed


def _labels_of_units(
    unit: np.ndarray, columns: np.ndarray, num_labels: int, sizes: np.ndarray
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """(start of each unit's part, labels, how many samples have them), in units of two or more. The last label of every
    unit is L, for all of its samples."""
    places = np.flatnonzero(sizes[unit] > 1)
    base = unit[places] * (num_labels + 1)
    keys = [base + num_labels]
    for column in columns[:, places]:
        keys.append((base + column)[column < num_labels])
    pairs, counts = np.unique(np.concatenate(keys), return_counts=True)
    starts = np.searchsorted(pairs, np.arange(len(sizes) + 1) * (num_labels + 1))
    return starts.tolist(), pairs % (num_labels + 1), counts


def units_with_a_class(unit: np.ndarray, columns: np.ndarray, num_labels: int) -> np.ndarray:
    """bool [n]: samples in a unit that holds all samples of some class."""
    pinned = np.zeros(int(unit.max(initial=-1)) + 1, bool)
    for column in columns:
        smallest, largest = np.full(num_labels + 1, len(pinned)), np.full(num_labels + 1, -1)
        np.minimum.at(smallest, column, unit)
        np.maximum.at(largest, column, unit)
        whole = smallest == largest
        whole[num_labels] = False
        pinned[smallest[whole]] = True
    alone: np.ndarray = pinned[unit]
    return alone


def nearest_sums(sizes: np.ndarray, wanted: float, *, most: int) -> tuple[int | None, int | None]:
    """The largest number of samples up to `wanted` and the smallest from it on that whole units add up to, of those
    between 1 and `most`; None where there is none. sizes: [U], samples of each unit."""
    sums = np.flatnonzero(_first_steps(sizes)[0] >= 0)
    sums = sums[(sums > 0) & (sums <= most)]
    below, above = sums[sums <= wanted], sums[sums >= wanted]
    return (int(below[-1]) if len(below) else None, int(above[0]) if len(above) else None)


def pick_units(sizes: np.ndarray, total: int) -> np.ndarray:
    """bool [U]: units that add up to `total`, one of the sums that there are; of equal sizes the first ones."""
    step_of, steps = _first_steps(sizes)
    picked = np.zeros(len(sizes), bool)
    while total:
        size, times = steps[step_of[total]]
        picked[np.flatnonzero((sizes == size) & ~picked)[:times]] = True
        total -= size * times
    return picked


def _first_steps(sizes: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(for every sum 0 to n the step that first reached it, -1 for none; steps as (size, how many units of it)).

    Equal sizes are taken 1, 2, 4, ... at a time, so that a million single samples are twenty steps.
    """
    steps = []
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        left, times = int(count), 1
        while left:
            steps.append((int(size), min(times, left)))
            left -= min(times, left)
            times *= 2
    first = np.full(int(sizes.sum()) + 1, -1, np.int32)
    first[0] = len(steps)
    for number, (size, times) in enumerate(steps):
        jump = size * times
        reached = first >= 0
        fresh = reached[:-jump] & ~reached[jump:]
        first[jump:][fresh] = number
    return first, steps
