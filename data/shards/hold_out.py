"""Which samples are held out: a share of all, or one fold of several, never a whole class and never part of a unit.

Use: `held = hold_out(columns, num_labels, unit, fraction=0.2, name_of_unit=str)`

Samples are in the order of the shuffle; labels are numbers over all tasks, as in `data.shards.stratify`.
"""

from collections.abc import Callable

import numpy as np

from data.errors import BadArgument
from data.shards.groups import UNDECIDED, nearest_sums, pick_units, place_units, units_with_a_class
from data.shards.stratify import count_labels, draw

ALWAYS_TRAIN = UNDECIDED
_TOLERATED = 0.1  # of the asked number of samples
_PAYABLE = 0.01  # of the samples held out, which rare classes may take from the others


def hold_out(
    columns: np.ndarray, num_labels: int, unit: np.ndarray, *, fraction: float, name_of_unit: Callable[[int], str]
) -> np.ndarray:
    """bool [n]: the samples held out, `fraction` of all, rounded half up, and at least one.

    columns: int32 [T, n]. unit: int64 [n], numbered from 0 in the order of their first samples. Every class keeps a
    sample outside. Raises BadArgument where that, or the units, allow only another share: one that is off by more than
    one sample and by more than a tenth of what was asked; `name_of_unit` names the largest unit in it.
    """
    num_samples = len(unit)
    pinned = _pinned(columns, num_labels, unit)
    free = np.flatnonzero(~pinned)
    if not len(free):
        raise BadArgument(f"--holdout {fraction}: {_nothing_free(num_samples)}")
    wanted = num_samples * fraction
    most_held = len(free) - (len(free) == num_samples)  # train is never empty
    target = min(max(int(wanted + 0.5), 1), most_held)
    counts = count_labels(columns, num_labels)
    most = np.stack([np.maximum(counts - 1, 0), np.full(num_labels + 1, num_samples)], axis=1)
    most[-1, 0] = most_held
    inner_unit = _numbered(unit[free])
    held = _divide(columns[:, free], inner_unit, np.array([target, len(free) - target]), most, favour_rare=True) == 0
    tolerated = max(1.0, _TOLERATED * wanted)
    if abs(np.count_nonzero(held) - wanted) > tolerated:
        possible = np.count_nonzero(held)
        sizes = np.bincount(inner_unit)
        sums = [total for total in nearest_sums(sizes, wanted, most=most_held) if total is not None]
        nearest = min(sums, key=lambda total: abs(total - wanted))
        largest = np.bincount(unit)
        if abs(nearest - wanted) > tolerated and largest.max() > 1:
            shares = " and ".join(f"{total / num_samples:.3g}" for total in dict.fromkeys(sums))
            raise BadArgument(
                f"--holdout {fraction}: groups stay whole and every class keeps a photo in train, so that the nearest "
                f"that can be had is {shares}; the largest group ({name_of_unit(int(largest.argmax()))}) holds "
                f"{largest.max():,} of {num_samples:,} photos"
            )
        if abs(nearest - wanted) <= tolerated:
            held = pick_units(sizes, nearest)[inner_unit]
        if abs(nearest - wanted) > tolerated or _beyond(columns[:, free[held]], most[:, 0]):
            raise BadArgument(
                f"--holdout {fraction}: {possible:,} of {num_samples:,} photos can be held out when every class keeps "
                f"one in train; ask for {possible / num_samples:.3g}, or join rare classes"
            )
    chosen = np.zeros(num_samples, bool)
    chosen[free[held]] = True
    return chosen


def draw_folds(columns: np.ndarray, num_labels: int, unit: np.ndarray, *, folds: int) -> np.ndarray:
    """int64 [n]: the number of the fold of every sample, ALWAYS_TRAIN for those that no fold may hold, because they are
    the only ones, or in the only unit, of a class. The other arguments are those of `hold_out`.

    Folds are as equal as the units allow, and no fold holds a whole class. Raises BadArgument when one would be empty.
    """
    num_samples = len(unit)
    free = np.flatnonzero(~_pinned(columns, num_labels, unit))
    if not len(free):
        raise BadArgument(f"--folds {folds}: {_nothing_free(num_samples)}")
    targets = len(free) // folds + (np.arange(folds) < len(free) % folds)
    counts = count_labels(columns, num_labels)
    counts[-1] = num_samples + 1
    fold = np.full(num_samples, ALWAYS_TRAIN)
    most = np.tile(np.maximum(counts - 1, 0)[:, None], folds)
    fold[free] = _divide(columns[:, free], _numbered(unit[free]), targets, most, favour_rare=False)
    if (empty := folds - len(np.unique(fold[fold != ALWAYS_TRAIN]))) > 0:
        raise BadArgument(
            f"--folds {folds}: {empty} of them would be empty: {len(free):,} photos in "
            f"{len(np.unique(unit[free])):,} groups can be held out; ask for fewer folds"
        )
    return fold


def _beyond(columns: np.ndarray, most: np.ndarray) -> bool:
    """Whether samples [n] have more of some label than `most`."""
    return bool((count_labels(columns, len(most) - 1) > most)[:-1].any())


def _pinned(columns: np.ndarray, num_labels: int, unit: np.ndarray) -> np.ndarray:
    """bool [n]: samples that stay in train, because some class, or everything, lies in their unit alone."""
    if not unit.any():  # one unit, or none
        return np.ones(len(unit), bool)
    return units_with_a_class(unit, columns, num_labels)


def _nothing_free(num_samples: int) -> str:
    return (
        f"none of {num_samples:,} photos can be held out, because each is the only one of a class, or in the only "
        "group of one; leave the hold-out away, or give classes more photos in other groups"
    )


def _numbered(unit: np.ndarray) -> np.ndarray:
    """Numbers without gaps, in the order that they have."""
    there = np.zeros(int(unit.max()) + 1, bool)
    there[unit] = True
    numbers: np.ndarray = (np.cumsum(there) - 1)[unit]
    return numbers


def _divide(
    columns: np.ndarray, unit: np.ndarray, targets: np.ndarray, most: np.ndarray, *, favour_rare: bool
) -> np.ndarray:
    """int64 [n]: the side of every sample, UNDECIDED where `most` keeps it from all. Units of two or more are placed
    first; single samples then fill the sides one after another. Arguments as in `data.shards.groups.place_units`.

    favour_rare: classes due half a sample or more get one where the others hardly feel it. Not for folds, of which
    the first ones would take what the last ones need.
    """
    num_labels, num_sides = len(most) - 1, len(targets)
    single = np.bincount(unit)[unit] == 1
    side = np.full(len(unit), UNDECIDED)
    if not single.all():
        side = place_units(unit, columns, targets=targets, most=most)
    given = np.stack([count_labels(columns[:, side == number], num_labels) for number in range(num_sides)])
    sizes = np.bincount(side[side != UNDECIDED], minlength=num_sides)
    needs = np.maximum(targets[:, None] / targets.sum() * count_labels(columns, num_labels) - given, 0)
    left = np.flatnonzero(single)
    for number in range(num_sides):
        quota = _quotas(targets[number:] - sizes[number:], len(left))
        counts = count_labels(columns[:, left], num_labels)
        room = most[:, number] - given[number]
        drawn = np.ones(len(left), bool)
        if quota[0] < len(left) or (counts > room)[:-1].any():
            open_needs = needs[number:].sum(axis=0)
            even = np.full(num_labels + 1, quota[0] / max(len(left), 1))
            part = np.divide(needs[number], open_needs, out=even, where=open_needs > 0)
            want = counts * part
            if favour_rare:
                want = _favour_rare(want, payable=_PAYABLE * quota[0])
            drawn = draw(columns[:, left], want=want, room=room, target=int(quota[0]))
        side[left[drawn]] = number
        left = left[~drawn]
    return side


def _favour_rare(want: np.ndarray, *, payable: float) -> np.ndarray:
    """`want` [L + 1] with the classes from a half to one rounded up to one, nearest first, for `payable` in all."""
    rare = np.flatnonzero((want >= 0.5) & (want < 1))
    rare = rare[np.argsort(-want[rare], kind="stable")]
    raised = want.copy()
    raised[rare[np.cumsum(1 - want[rare]) <= payable]] = 1
    return raised


def _quotas(needs: np.ndarray, total: int) -> np.ndarray:
    """int64 [S]: `total` samples shared so that what stays open of the `needs` is as equal as can be."""
    order = np.sort(needs)[::-1]
    levels = (np.cumsum(order) - total) / np.arange(1, len(needs) + 1)
    # The level of the k largest needs holds for all where the next need is not above it.
    last = np.flatnonzero(levels >= np.append(order[1:], -np.inf))[0]
    shares = np.maximum(needs - levels[last], 0)
    rounded: np.ndarray = np.diff(np.floor(np.cumsum(shares) + 0.5), prepend=0).astype(np.int64)
    return rounded
