"""Photos of one split that have a near-duplicate in another: how many, which, and a table of them.

Use: `found = across_splits([photos_of("train", ...), photos_of("val", ...)]); found.sentences(path)`

A score on a split is too kind by what its photos share with those that were trained on.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.files import write_result
from data.images.near_pairs import equal_values, find_pairs
from data.images.photo_hash import PhotoHashes
from data.index import Index
from data.shards.photo_records import ShardPhotos, read_photos
from data.shards.splits import HELD_OUT, TRAIN

TABLE_NAME = "near_duplicates.csv"
_COLUMNS = ("split_a", "image_a", "split_b", "image_b", "distance", "differing_labels")
_ORDER = (TRAIN, HELD_OUT, "test")


@dataclass(frozen=True, eq=False)
class SplitPhotos:
    """Photos of a split: their keys; thumbnails, uint8 [n, 16, 16]; digests of their bytes, uint64 [n]; labels, int
    [n, tasks], -1 where one is missing, as numbers of the classes in `tasks`."""

    name: str
    keys: Sequence[str]
    thumbnails: np.ndarray
    digests: np.ndarray
    labels: np.ndarray
    tasks: dict[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs across splits, int64 [m, 2]: numbers of photos over all `splits`, the one of the later split first; bits in
    which their hashes differ, uint8 [m]; whether their bytes are equal, bool [m]; differing: bool [m, tasks]."""

    splits: tuple[SplitPhotos, ...]
    pairs: np.ndarray
    distances: np.ndarray
    equal: np.ndarray
    differing: np.ndarray

    def sentences(self, table: Path | None) -> list[str]:
        """One for each two splits that share something, or one that none do; `table`: where the pairs are listed."""
        if not len(self.pairs):
            return [f"no photo has a near-duplicate in another split ({', '.join(s.name for s in self.splits)})"]
        split_of = np.repeat(np.arange(len(self.splits)), [len(split.keys) for split in self.splits])
        said = []
        for later, split in enumerate(self.splits):
            for earlier, other in enumerate(self.splits[:later]):
                here = (split_of[self.pairs] == (later, earlier)).all(axis=1)
                if not here.any():
                    continue
                photos, equal, relabelled = (
                    len(np.unique(self.pairs[here & which, 0]))
                    for which in (True, self.equal, self.differing.any(axis=1))
                )
                have = "has a near-duplicate" if photos == 1 else "have a near-duplicate"
                said.append(
                    f"{photos:,} of {len(split.keys):,} {split.name} photos {have} in {other.name} "
                    f"({equal:,} of them equal bytes, {relabelled:,} with other labels)"
                    + (f", listed in {table}" if table else "")
                )
        return said

    def write(self, path: Path) -> None:
        """A table of the pairs as CSV, or no file where there are none (an older one goes)."""
        if not len(self.pairs):
            path.unlink(missing_ok=True)
            return
        keys = [(split.name, key) for split in self.splits for key in split.keys]
        tasks = list(self.splits[0].tasks)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for (one, other), distance, differing in zip(
            self.pairs.tolist(), self.distances.tolist(), self.differing.tolist(), strict=True
        ):
            names = ";".join(task for task, differs in zip(tasks, differing, strict=True) if differs)
            writer.writerow((*keys[one], *keys[other], distance, names))
        write_result(path, text.getvalue().encode())


def across_splits(splits: Sequence[SplitPhotos]) -> NearDuplicates:
    """Near-duplicates, and photos of equal bytes even where they are blank, between any two splits."""
    rank = {name: number for number, name in enumerate(_ORDER)}
    ordered = tuple(sorted(splits, key=lambda split: (rank.get(split.name, len(rank)), split.name)))
    side = np.repeat(np.arange(len(ordered)), [len(split.keys) for split in ordered])
    digests = np.concatenate([split.digests for split in ordered])
    pairs, distances = find_pairs(PhotoHashes.of(np.concatenate([s.thumbnails for s in ordered])), side=side)
    copies = equal_values(digests, side)
    pairs = np.concatenate([copies, pairs])[:, ::-1]  # the later one has the larger number
    distances = np.concatenate([np.zeros(len(copies), np.uint8), distances])
    _, first = np.unique(pairs, axis=0, return_index=True)
    pairs, distances = pairs[first], distances[first]
    labels = _same_numbers(ordered)
    one, other = labels[pairs[:, 0]], labels[pairs[:, 1]]
    differing = (one != other) & (one >= 0) & (other >= 0)
    return NearDuplicates(ordered, pairs, distances, digests[pairs[:, 0]] == digests[pairs[:, 1]], differing)


def built_photos(name: str, index: Index) -> SplitPhotos:
    """Of a split that data.build has written, read from its records. DataError when those lack something."""
    photos, labels = [], []
    for number, shard in enumerate(index.shards):
        of_shard = read_photos(Path(index.root), int(shard.name.removesuffix(".tar")))
        rows = index.load_shard(number)
        if of_shard is None or not of_shard.has_thumbnails or len(of_shard.keys) != len(rows):
            raise DataError(f"{index.shard_url(number)}: no hashes of its photos are kept; run data.build again")
        photos.append(of_shard)
        labels.append(rows.labels)
    return split_photos(name, photos, labels, index.tasks)


def split_photos(
    name: str, photos: Sequence[ShardPhotos], labels: Sequence[np.ndarray], tasks: dict[str, tuple[str, ...]]
) -> SplitPhotos:
    """The photos of a split's shards, with their labels [n, tasks]."""
    return SplitPhotos(
        name,
        [key for shard in photos for key in shard.keys],
        np.concatenate([shard.thumbnail for shard in photos]),
        np.concatenate([shard.digest for shard in photos]),
        np.concatenate(labels),
        tasks,
    )


def _same_numbers(splits: Sequence[SplitPhotos]) -> np.ndarray:
    """int64 [n, tasks of the first split]: labels by the names of their classes, -1 where the split lacks the task."""
    numbers: dict[tuple[str, str], int] = {}
    columns = []
    for split in splits:
        column = np.full((len(split.keys), len(splits[0].tasks)), -1, np.int64)
        for place, task in enumerate(splits[0].tasks):
            if task in split.tasks:
                known = [numbers.setdefault((task, name), len(numbers)) for name in split.tasks[task]]
                column[:, place] = np.array([*known, -1])[split.labels[:, list(split.tasks).index(task)]]
        columns.append(column)
    return np.concatenate(columns)
