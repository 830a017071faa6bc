"""A stratified draw of single samples over all tasks at once, in numpy: seconds for a million.

Use: `drawn = draw(columns, want=counts * 0.2, room=counts - 1, target=2000)`

The order is that of iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label
Data", ECML PKDD 2011): the rarest label decides first. Instead of going label by label, samples are sorted by their
labels, rarest first, and every so-manieth is taken (systematic sampling, Madow 1949), so that each stratum gives its
share and what rounding leaves is carried on to the next one. Swaps then mend the tasks that came later in the order.

Labels are numbers over all tasks, 0 to L-1, and L stands for a missing one; samples are in the order of the shuffle.
"""

import numpy as np

_ONE = 1 << 32  # of the fixed point in which chances are added up
_EXACT = 1e-6  # less than that beside a whole number is the number
_POOL = 4096  # samples of each side that one round of swaps looks at
_ROUNDS = 12
_BATCHES = 64  # most batches of swaps in a round


def count_labels(columns: np.ndarray, num_labels: int) -> np.ndarray:
    """int64 [L + 1] from columns [T, n]: how often each label is there; 0 for the missing one, which is no class."""
    counts = np.zeros(num_labels + 1, np.int64)
    for column in columns:
        counts += np.bincount(column, minlength=num_labels + 1)
    counts[num_labels] = 0
    return counts


def draw(columns: np.ndarray, *, want: np.ndarray, room: np.ndarray, target: int) -> np.ndarray:
    """bool [n]: the samples drawn, `target` of them where `room` allows as many.

    columns: int32 [T, n], labels of each task. want: float [L + 1], how many of each label to draw. room: [L + 1], the
    most that may be drawn of each. Every label gets what it wants, rounded up or down, if the tasks allow that
    together.
    """
    num_samples = columns.shape[1]
    counts = count_labels(columns, len(want) - 1)
    shares = np.divide(want, counts, out=np.full(len(want), target / max(num_samples, 1)), where=counts > 0)
    limits = np.divide(room, counts, out=np.ones(len(want)), where=counts > 0).clip(0, 1)
    chance, order = np.full(num_samples, shares[-1]), np.arange(num_samples)
    upper = np.ones(num_samples)
    if len(columns):
        rarest_first = _rarest_first(columns, counts)
        rarity = np.empty(len(counts), columns.dtype)
        rarity[rarest_first] = np.arange(len(counts))
        by_rarity = np.sort(rarity[columns], axis=0)
        chance = shares[rarest_first[by_rarity[0]]]
        order = np.argsort(_sort_key(by_rarity, len(counts)), kind="stable")
        for column in columns:
            np.minimum(upper, limits[column], out=upper)
    crossed = (np.cumsum(_spread(chance, upper, target)[order]) + _ONE // 2) // _ONE
    drawn = np.zeros(num_samples, bool)
    drawn[order] = np.diff(crossed, prepend=0) > 0
    given = count_labels(columns[:, drawn], len(want) - 1)
    _release(columns, drawn, given, room)
    _fill(columns, drawn, given, room, target)
    _swap(columns, drawn, given, want=want, room=room, counts=counts)
    return drawn


def _rarest_first(columns: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Labels by how rare they are, those of equal number by the shuffle: [L + 1], the missing one last."""
    first = np.zeros(len(counts), np.int64)
    backwards = np.arange(columns.shape[1])[::-1]
    for column in columns:
        first[column[::-1]] = backwards  # of a label that is there more than once, the last assignment stays
    return np.append(np.lexsort((first[:-1], counts[:-1])), len(counts) - 1)


def _sort_key(by_rarity: np.ndarray, num_values: int) -> np.ndarray:
    """As many of the labels, rarest first, as an int64 holds: [n]."""
    bits = int(num_values).bit_length()
    key = np.zeros(by_rarity.shape[1], np.int64)
    for row in by_rarity[: 63 // bits]:
        key <<= bits
        key |= row
    return key


def _spread(chance: np.ndarray, upper: np.ndarray, target: int) -> np.ndarray:
    """`chance` [n], raised or lowered by one and the same amount within [0, upper], so that the sum is `target`: int64
    in parts of 1 / _ONE, because sums of floats may differ between machines."""
    parts, most = np.rint(chance * _ONE).astype(np.int64), (upper * _ONE).astype(np.int64)
    shift, low, high = 0, -_ONE, _ONE
    for _ in range(64):
        moved = np.clip(parts + shift, 0, most)
        missing = target * _ONE - int(moved.sum())
        if abs(missing) <= len(parts):  # less than a sample in all, which the rounding takes
            break
        low, high = (shift, high) if missing > 0 else (low, shift)
        free = int(np.count_nonzero((moved < most) if missing > 0 else (moved > 0)))
        shift += missing // max(free, 1)
        if not low < shift < high:
            shift = (low + high) // 2
    return moved


def _release(columns: np.ndarray, drawn: np.ndarray, given: np.ndarray, room: np.ndarray) -> None:
    """Give back samples of labels that were drawn beyond `room`."""
    for column in columns:
        over = np.maximum(given - room, 0)
        over[-1] = 0
        if not over.any():
            continue
        places = np.flatnonzero(drawn & (over[column] > 0))
        places = places[np.argsort(column[places], kind="stable")]
        labels = column[places]
        starts = np.flatnonzero(np.diff(labels, prepend=-1))
        number = np.arange(len(labels)) - np.repeat(starts, np.diff(starts, append=len(labels)))
        back = places[number < over[labels]]
        drawn[back] = False
        given -= count_labels(columns[:, back], len(given) - 1)


def _fill(columns: np.ndarray, drawn: np.ndarray, given: np.ndarray, room: np.ndarray, target: int) -> None:
    """Draw what is missing to `target` from wherever there is room."""
    missing = target - np.count_nonzero(drawn)
    if missing <= 0:
        return
    fits = ~drawn
    free = given < room
    free[-1] = True
    for column in columns:
        fits &= free[column]
    for place in np.flatnonzero(fits).tolist():
        labels = columns[:, place]
        labels = labels[labels < len(given) - 1]
        if (given[labels] < room[labels]).all():
            drawn[place] = True
            given[labels] += 1
            missing -= 1
            if not missing:
                return


def _swap(
    columns: np.ndarray,
    drawn: np.ndarray,
    given: np.ndarray,
    *,
    want: np.ndarray,
    room: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Exchange drawn samples for others while that brings labels closer to what they want. Rounding costs nothing in
    either direction: up for some rare classes and down for others is how all of them together keep their share."""
    balance = _Balance(given, want=want, room=room, counts=counts)
    for _ in range(_ROUNDS):
        before = balance.cost(given)
        if not len(columns) or before == 0:
            return
        taking, giving = balance.prices(columns)
        inside = _cheapest(np.flatnonzero(drawn), giving, _POOL)
        outside = _cheapest(np.flatnonzero(~drawn), taking, _POOL)
        for _ in range(_BATCHES):
            taking, giving = balance.prices(columns[:, outside])[0], balance.prices(columns[:, inside])[1]
            out, into = np.argsort(giving, kind="stable"), np.argsort(taking, kind="stable")
            # With many rare classes a batch is best when no two samples in it share one; with few classes they must.
            apart = out[_sharing_none(columns[:, inside[out]])], into[_sharing_none(columns[:, outside[into]])]
            tried = [(*balance.best_batch(columns, inside[a], outside[b]), a, b) for a, b in ((out, into), apart)]
            _, size, after, out, into = min(tried, key=lambda batch: batch[0])
            if not size:
                break
            leaving, coming = inside[out[:size]], outside[into[:size]]
            drawn[leaving], drawn[coming] = False, True
            inside[out[:size]], outside[into[:size]] = coming, leaving
            given[:] = after
        if balance.cost(given) > 0.99 * before:
            return


def _cheapest(places: np.ndarray, prices: np.ndarray, number: int) -> np.ndarray:
    """The `number` places with the lowest prices, of equal prices the first ones, in the order that they have."""
    if len(places) <= number:
        return places
    prices = prices[places]
    limit = np.partition(prices, number - 1)[number - 1]
    below = np.count_nonzero(prices < limit)
    level = np.flatnonzero(prices == limit)[: number - below]
    chosen: np.ndarray = places[np.sort(np.append(np.flatnonzero(prices < limit), level))]
    return chosen


def _sharing_none(columns: np.ndarray) -> np.ndarray:
    """The places of the samples [n] that are the first one with each of their labels."""
    first = np.ones(columns.shape[1], bool)
    for column in columns:
        alone = np.zeros(len(first), bool)
        alone[np.unique(column, return_index=True)[1]] = True
        first &= alone
    return np.flatnonzero(first)


class _Balance:
    """How far labels are from what they want, rounded down or up: the sum of distance^2 / count."""

    def __init__(self, given: np.ndarray, *, want: np.ndarray, room: np.ndarray, counts: np.ndarray) -> None:
        self.given, self.room = given, room
        self.least, self.most = np.floor(want + _EXACT), np.ceil(want - _EXACT)
        self.weight = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0)

    def costs(self, given: np.ndarray) -> np.ndarray:
        distance: np.ndarray = np.maximum(np.maximum(self.least - given, given - self.most), 0)
        return distance**2 * self.weight

    def cost(self, given: np.ndarray) -> float:
        total = float(self.costs(given).cumsum()[-1])  # in one order on every machine
        return total if total > 1e-12 else 0.0

    def prices(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(cost of drawing, cost of giving back) each of the samples [n], the others staying as they are."""
        now = self.costs(self.given)
        more = np.where(self.given < self.room, self.costs(self.given + 1) - now, np.inf)
        more[-1] = 0
        less = self.costs(self.given - 1) - now
        taking, giving = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
        for column in columns:
            taking += more[column]
            giving += less[column]
        return taking, giving

    def best_batch(self, columns: np.ndarray, out: np.ndarray, into: np.ndarray) -> tuple[float, int, np.ndarray]:
        """(cost, how many swaps at once are best: 0, 1, 2, 4, ...; what is given after them)."""
        lowest, best, chosen = self.cost(self.given) * (1 - 1e-9), 0, self.given
        num_labels = len(self.given) - 1
        size = 1
        while size <= min(len(out), len(into)):
            after = self.given + count_labels(columns[:, into[:size]], num_labels)
            after -= count_labels(columns[:, out[:size]], num_labels)
            if (after <= self.room)[:-1].all() and (cost := self.cost(after)) < lowest:
                lowest, best, chosen = cost, size, after
            size *= 2
        return lowest, best, chosen
