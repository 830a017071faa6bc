"""Pairs of photos that show the same, found without comparing all with all.

    pairs, distances = find_pairs(hashes)                      # to keep the photos of one object together
    pairs, distances = find_pairs(hashes, side=number_of_split)  # only those that stand in different splits

Two photos are near-duplicates when their hashes, one of them after one of `CROPS`, differ in at most `MOST_BITS` bits
and the correlation of their thumbnails is at least `LEAST_CORRELATION`. The first is searched with several tables
(Norouzi et al. 2012, "Fast search in Hamming space with multi-index hashing"): of two hashes that differ in 8 bits one
of their thirds differs in at most 2, so that a look at the 232 buckets around each third of a hash finds every pair.

The bounds were chosen by looking at what they join. Groceries (2,936 photos): 53 pairs, 48 groups of 2 or 3, each of
one product, held the same way. CIFAR-10 (50,000): 2,454 photos in 983 groups, the largest two of 73 and 49; 0.98 of the
pairs are of one class, and from the third group on they are of one layout rather than of one object. Photos that lie
exactly alike are where it ends: of 2,624 solar cells 1,233 are linked, rightly where cells were sawn from one block of
silicon and show its grains, and wrongly in one chain of 644 plain cells.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

from data.images.photo_hash import CROPS, NUM_BITS, PhotoHashes, correlation, crop_hashes

MOST_BITS = 8
LEAST_CORRELATION = 0.85
_THIRDS = 3
_THIRD = NUM_BITS // _THIRDS  # bits
_BUCKETS = 1 << _THIRD
_FLIPS = MOST_BITS // _THIRDS  # in the third that differs least
# What bounds the work where thousands of photos look alike: so many of a bucket are looked at, and a photo that has so
# many partners looks for no more.
_LOOKED_AT = 128
_PARTNERS = 32
_CANDIDATES = 1 << 21  # at a time
_COMPARED = 1 << 15  # thumbnails at a time
_UNSORTED = 1 << 17  # pairs, before what was found twice is dropped
_COPIES = 8  # photos of equal hash that are searched for one by one
_STAR_ROUNDS = 8
_FEW = 4096  # photos that are compared all with all


def find_pairs(hashes: PhotoHashes, *, side: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [m, 2], ascending and without repetition; uint8 [m], bits in which the hashes of each pair differ).

    Of photos of equal hash (and side) all behind the eighth are linked to the first of them alone, a star, which is
    enough to group them.
    `side`: int [n]; only pairs of photos whose numbers differ. A photo is then in a pair with one photo of each other
    side that has any, though not with all copies of that one. Memory: about 1 KB a photo.
    """
    sides = np.zeros(len(hashes), np.int64) if side is None else np.asarray(side, np.int64)
    first = _firsts(hashes, sides)
    nodes = np.flatnonzero(first == np.arange(len(hashes)))  # those that are nobody's copy, or the first of the copies
    found = _Pairs(len(hashes))
    _search(hashes, nodes, sides if side is not None else None, found)
    copies = np.flatnonzero((first >= 0) & (first != np.arange(len(hashes))))
    if side is None:
        more, bits = np.stack([first[copies], copies], axis=1), np.zeros(len(copies), np.uint8)
    else:
        more, bits = _of_copies(found, copies, first, sides)
    return _sorted(np.concatenate([found.pairs, more]), np.concatenate([found.distances, bits]))


def equal_values(values: np.ndarray, side: np.ndarray | None = None) -> np.ndarray:
    """int64 [m, 2]: links between the numbers of equal values [n]; stars, as those of find_pairs, or with `side` each
    with the first of every other side."""
    order = np.lexsort((values,)) if side is None else np.lexsort((side, values))
    new = np.ones(len(order), bool)
    new[1:] = values[order][1:] != values[order][:-1]
    group = np.cumsum(new) - 1
    if side is None:
        return np.sort(np.stack([order[new][group[~new]], order[~new]], axis=1), axis=1)
    links = []
    for number in np.unique(side):
        here = np.flatnonzero(side[order] == number)
        groups, first = np.unique(group[here], return_index=True)
        of_group = np.full(len(order), -1)
        of_group[groups] = order[here[first]]
        linked = (side[order] != number) & (of_group[group] >= 0)
        links.append(np.stack([order[linked], of_group[group[linked]]], axis=1))
    return np.unique(np.sort(np.concatenate(links), axis=1), axis=0)


def _firsts(hashes: PhotoHashes, sides: np.ndarray) -> np.ndarray:
    """int64 [n]: the photo itself, or for those behind the first _COPIES of a side and hash, the first of them if it
    looks the same. Those that do not share the next first; -1: no structure."""
    first = np.where(hashes.structured, np.arange(len(hashes)), -1)
    rest = np.flatnonzero(hashes.structured)
    for _ in range(_STAR_ROUNDS):
        order = rest[np.lexsort((rest, hashes.hash[rest], sides[rest]))]
        starts = np.ones(len(order), bool)
        starts[1:] = (np.diff(hashes.hash[order]) != 0) | (np.diff(sides[order]) != 0)
        begins = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
        behind = np.arange(len(order)) - begins >= _COPIES
        members, leaders = order[behind], order[begins[behind]]
        alike = _alike(hashes.thumbnail, leaders, members, 0)
        first[members[alike]] = leaders[alike]
        rest = members[~alike]
        if not len(rest):
            break
    return first


def _of_copies(
    found: "_Pairs", copies: np.ndarray, first: np.ndarray, sides: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the pairs of the firsts say of their copies: on each other side, each has the nearest partner of its
    first."""
    asked, partner = np.concatenate([found.pairs, found.pairs[:, ::-1]]).T
    bits = np.concatenate([found.distances, found.distances])
    order = np.lexsort((partner, bits, sides[partner], asked))
    asked, partner, bits = asked[order], partner[order], bits[order]
    nearest = np.ones(len(asked), bool)
    nearest[1:] = (np.diff(asked) != 0) | (np.diff(sides[partner]) != 0)
    asked, partner, bits = asked[nearest], partner[nearest], bits[nearest]
    begins, ends = np.searchsorted(asked, first[copies]), np.searchsorted(asked, first[copies], side="right")
    counts = ends - begins
    places = np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
    return np.stack([np.repeat(copies, counts), partner[places]], axis=1), bits[places]


def _sorted(pairs: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.sort(pairs, axis=1)
    order = np.lexsort((distances, pairs[:, 1], pairs[:, 0]))
    pairs, distances = pairs[order], distances[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (np.diff(pairs, axis=0) != 0).any(axis=1)
    return pairs[new], distances[new]


class _Pairs:
    """The pairs found so far, without repetition."""

    def __init__(self, num_photos: int) -> None:
        self.pairs = np.empty((0, 2), np.int64)
        self.distances = np.empty(0, np.uint8)
        self.num_partners = np.zeros(num_photos, np.int64)
        self._new: list[tuple[np.ndarray, np.ndarray]] = []
        self._num_new = 0

    def add(self, one: np.ndarray, other: np.ndarray, distances: np.ndarray) -> bool:
        """Photos int64 [m], [m]; uint8 [m]. True when partners were counted anew."""
        self._new.append((np.stack([one, other], axis=1), distances))
        self._num_new += len(one)
        if self._num_new <= max(_UNSORTED, len(self.pairs)):
            return False
        self.settle()
        return True

    def settle(self) -> None:
        """Drop what was found twice, and count partners."""
        pairs, distances = zip((self.pairs, self.distances), *self._new, strict=True)
        self.pairs, self.distances = _sorted(np.concatenate(pairs), np.concatenate(distances))
        self.num_partners = np.bincount(self.pairs.ravel(), minlength=len(self.num_partners))
        self._new, self._num_new = [], 0


def _search(hashes: PhotoHashes, nodes: np.ndarray, sides: np.ndarray | None, found: _Pairs) -> None:
    """Add the pairs among the photos `nodes`."""
    thumbnails, plain = hashes.thumbnail[nodes], hashes.hash[nodes]
    node_sides = None if sides is None else sides[nodes]
    is_large = len(nodes) > _FEW
    tables = [_Table(plain, third, node_sides) for third in range(_THIRDS if is_large else 0)]
    for crop in range(len(CROPS)):
        asked = crop_hashes(thumbnails, crop)
        saturated = np.zeros(len(nodes), bool)
        candidates = _looked_up(asked, tables, saturated) if is_large else _all_with_all(asked, plain, node_sides)
        for one, other in candidates:
            bits = np.bitwise_count(asked[one] ^ plain[other])
            near = (bits <= MOST_BITS) & (one != other)
            if node_sides is not None:
                near &= node_sides[one] != node_sides[other]
            one, other, bits = one[near], other[near], bits[near]
            alike = _alike(thumbnails, one, other, crop)
            if found.add(nodes[one[alike]], nodes[other[alike]], bits[alike]):
                saturated[:] = found.num_partners[nodes] >= _PARTNERS
    found.settle()


def _all_with_all(
    asked: np.ndarray, plain: np.ndarray, sides: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(numbers of `asked`, numbers of `plain`) of all that are close, which is quickest for some thousands."""
    everything = np.arange(len(asked))
    blocks = [(everything, everything)]
    if sides is not None:
        blocks = [(everything[sides == side], everything[sides != side]) for side in np.unique(sides)]
    for rows, columns in blocks:
        step = max(1, _CANDIDATES // max(1, len(columns)))
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            one, other = np.nonzero(np.bitwise_count(asked[part, None] ^ plain[columns]) <= MOST_BITS)
            yield part[one], columns[other]


def _looked_up(
    asked: np.ndarray, tables: "list[_Table]", saturated: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same of all that may be close, without those that become `saturated` between two looks."""
    for third, table in enumerate(tables):
        keys = _third_of(asked, third)
        by_key = np.argsort(keys, kind="stable")  # neighbours ask neighbouring buckets, which is quicker
        keys = keys[by_key]
        for flips in _flips():
            if (out := saturated[by_key]).any():
                by_key, keys = by_key[~out], keys[~out]
            for places, other in table.look_up(keys ^ flips):
                yield by_key[places], other


class _Table:
    """Hashes by one third of theirs."""

    def __init__(self, hashes: np.ndarray, third: int, sides: np.ndarray | None) -> None:
        keys = _third_of(hashes, third)
        counts = np.bincount(keys, minlength=_BUCKETS)
        self._starts = (np.cumsum(counts) - counts).astype(np.int32)
        self._counts = np.minimum(counts, _LOOKED_AT).astype(np.uint8)  # 2 MB, which stay in the processor's cache
        self._order = np.argsort(keys, kind="stable")
        if sides is not None:  # in turns, so that those which are looked at are of all sides
            by_side = np.lexsort((sides, keys))
            new = np.ones(len(keys), bool)
            new[1:] = (np.diff(keys[by_side]) != 0) | (np.diff(sides[by_side]) != 0)
            begins = np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))
            turn = np.arange(len(keys)) - begins
            self._order = by_side[np.lexsort((turn, keys[by_side]))]

    def look_up(self, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(places in `keys`, numbers of hashes that have that key), some at a time."""
        counts = self._counts[keys]
        hits = np.flatnonzero(counts)
        if not len(hits):
            return
        counts, starts = counts[hits].astype(np.int64), self._starts[keys[hits]]
        ends = np.cumsum(counts)
        cuts = np.searchsorted(ends, np.arange(_CANDIDATES, ends[-1], _CANDIDATES))
        for first, last in pairwise([0, *cuts.tolist(), len(hits)]):
            part = slice(first, last)
            shifts = starts[part] - (ends[part] - counts[part] - (ends[first - 1] if first else 0))
            repeated = np.repeat(np.arange(first, last), counts[part])
            yield hits[repeated], self._order[np.arange(len(repeated)) + shifts[repeated - first]]


def _flips() -> Iterator[int]:
    """What to flip in a third: nothing first, then every bit, then every two."""
    for number in range(_FLIPS + 1):
        for places in combinations(range(_THIRD), number):
            yield sum(1 << place for place in places)


def _third_of(hashes: np.ndarray, third: int) -> np.ndarray:
    return ((hashes >> np.uint64(third * _THIRD)) & np.uint64(_BUCKETS - 1)).astype(np.int32)


def _alike(thumbnails: np.ndarray, one: np.ndarray, other: np.ndarray, crop: int) -> np.ndarray:
    """bool [n]: whether the thumbnails of the pairs correlate, `one` being cropped."""
    alike = np.empty(len(one), bool)
    for first in range(0, len(one), _COMPARED):
        part = slice(first, first + _COMPARED)
        alike[part] = correlation(thumbnails[one[part]], thumbnails[other[part]], crop) >= LEAST_CORRELATION
    return alike
