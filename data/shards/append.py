"""Adding to a set that data.build has written: its splits, its groups and its shards stay, new shards come behind them.

Use: `built = open_set(Path("shards/mine"), content=digest); new = find_new(built, source, workers=2)`

What was built remembers of every photo its name, the digest of its file, its thumbnail and its group
(`data.shards.photo_records`), so that a photo that is there already is known, and one that belongs to a photo that is
there goes to its side.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.errors import BadArgument, BadSample, DataError
from data.files import write_atomically
from data.images.near_pairs import equal_values, find_pairs
from data.images.photo_hash import PhotoHashes
from data.index import INDEX_NAME, Index, Shard, load_index
from data.index.labels import MISSING, missing_names
from data.shards.build_plan import BATCHES_NAME, RECORDS_FOLDER, Plan, read_plan, remove_shards
from data.shards.groups import join_units
from data.shards.photo_links import hash_photos
from data.shards.photo_records import ShardPhotos, digest_of, read_photos
from data.shards.splits import HELD_OUT, TRAIN, assign_splits
from data.sources import Record, Source


@dataclass(frozen=True)
class BuiltSplit:
    """A split as it was before this call: its shards, what is remembered of their photos, the labels of these, int32
    [n, tasks], and the number of the next shard."""

    folder: Path
    index: Index
    shards: tuple[Shard, ...]
    photos: tuple[ShardPhotos, ...]
    labels: np.ndarray
    first_new: int

    @property
    def keys(self) -> list[str]:
        return [key for shard in self.photos for key in shard.keys]

    @property
    def groups(self) -> list[str]:
        return [group for shard in self.photos for group in shard.groups]


@dataclass(frozen=True)
class BuiltSet:
    """A set that data.build has written: its splits by name, and what the build was asked for."""

    splits: dict[str, BuiltSplit]
    plan: Plan

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        return next(iter(self.splits.values())).index.tasks


def open_set(out: Path, *, content: str) -> BuiltSet:
    """The set in `out`. content: of what is to be added; where that was begun before, the set is as it was before that.
    DataError where there is no set, or one of which nothing is remembered."""
    folders = sorted(path.parent for path in out.glob(f"*/{INDEX_NAME}"))
    if not folders:
        raise BadArgument(f"--append: {out} holds no set yet; leave --append out to build one")
    splits = {folder.name: _open_split(folder, content) for folder in folders}
    plans = [read_plan(folder) for folder in folders]
    first = plans[0]
    if first is None:
        raise BadArgument(f"--append: {folders[0]} was not written by data.build; only what it wrote can grow")
    tasks = next(iter(splits.values())).index.tasks
    for split in splits.values():
        if split.index.tasks != tasks:
            raise DataError(f"{split.folder}: has other tasks than {folders[0]}; build the set anew")
    return BuiltSet(splits, first)


def _open_split(folder: Path, content: str) -> BuiltSplit:
    index = load_index(folder)
    numbers = [int(shard.name.removesuffix(".tar")) for shard in index.shards]
    batches = read_batches(folder)
    first_new = max([number + 1 for number in _written(folder)], default=0)
    if batches:
        last = batches[-1]
        if last["content"] == content:
            first_new = int(last["first shard"])
        elif not any(number >= int(last["first shard"]) for number in numbers) and not last.get("finished"):
            first_new = int(last["first shard"])  # was begun, and is given up for another
    shards, photos, labels = [], [], [np.empty((0, len(index.tasks)), np.int32)]
    for place, (number, shard) in enumerate(zip(numbers, index.shards, strict=True)):
        if number < first_new:
            found = read_photos(folder, number)
            if found is None:
                raise DataError(
                    f"{folder / shard.name}: nothing is remembered of its photos; run the data.build that made this "
                    "set once more, then --append"
                )
            shards.append(shard)
            photos.append(found)
            labels.append(index.load_shard(place).labels)
    return BuiltSplit(folder, index, tuple(shards), tuple(photos), np.concatenate(labels), first_new)


def _written(folder: Path) -> list[int]:
    """Numbers of the shards that were finished, those of bad photos alone among them."""
    return [int(path.stem) for path in (folder / RECORDS_FOLDER).glob("[0-9]*.json")]


def read_batches(folder: Path) -> list[dict[str, str | int | bool]]:
    """What was added to a split so far."""
    path = folder / RECORDS_FOLDER / BATCHES_NAME
    content: list[dict[str, str | int | bool]] = json.loads(path.read_bytes()) if path.is_file() else []
    return content


def begin_batch(split: BuiltSplit, content: str) -> None:
    """Remember, in the locked folder, what is about to be added; what another call began and did not finish goes."""
    batches = read_batches(split.folder)
    if batches and batches[-1]["content"] == content:
        return
    if batches and batches[-1]["first shard"] == split.first_new and not batches[-1].get("finished"):
        batches.pop()
        remove_shards(split.folder, first=split.first_new)
    _write_batches(split.folder, [*batches, {"content": content, "first shard": split.first_new, "finished": False}])


def finish_batch(folder: Path) -> None:
    """The index holds what was added."""
    *others, last = read_batches(folder)
    _write_batches(folder, [*others, {**last, "finished": True}])


def _write_batches(folder: Path, batches: Sequence[Mapping[str, str | int | bool]]) -> None:
    write_atomically(folder / RECORDS_FOLDER / BATCHES_NAME, json.dumps(batches, indent=1).encode())


def match_tasks(source: Source, tasks: Mapping[str, tuple[str, ...]]) -> Source:
    """The source with its labels numbered as in the set. BadArgument names a task or a class that the set lacks."""
    if unknown := missing_names(source.tasks, tasks):
        raise BadArgument(
            f"--append: the set has no task {unknown} (its tasks: {', '.join(tasks)}); choose with --tasks, or build "
            "the set anew"
        )
    if lacking := missing_names(tasks, source.tasks):
        raise BadArgument(
            f"--append: the source has no task {lacking}, the set has; add the column, with empty cells where labels "
            "are missing"
        )
    columns = list(source.tasks)
    moves = []
    for task, names in tasks.items():
        numbers = {name: number for number, name in enumerate(names)}
        if new := missing_names(source.tasks[task], names):
            raise BadArgument(
                f"--append: task {task!r} of the set has no class {new} (its classes: {', '.join(names[:10])}"
                f"{', ...' if len(names) > 10 else ''}); a network has one output a class, so build the set anew for it"
            )
        moves.append((columns.index(task), [*(numbers[name] for name in source.tasks[task]), MISSING]))
    records = [
        record._replace(labels=tuple(numbers[record.labels[column]] for column, numbers in moves))
        for record in source.records
    ]
    return replace(source, tasks=dict(tasks), records=records)


@dataclass(frozen=True)
class Additions:
    """Records that are new, by split, and notes."""

    parts: dict[str, list[Record]]
    notes: tuple[str, ...]


def find_new(built: BuiltSet, source: Source, *, workers: int) -> Additions:
    """What the source (with the set's tasks, see `match_tasks`) holds that the set does not, by the split it goes to.

    A photo goes where the photos of its unit are: of its group, of equal bytes, and, where the set was built so, near
    duplicates. Published splits of the source stay. The rest is drawn as the set was."""
    records, digests, notes = _leave_out_known(built, source)
    if not records:
        return Additions({}, (*notes, "nothing is new"))
    unit = _units(built, source, records, digests, workers=workers)
    names = list(built.splits)
    known_split = np.repeat(np.arange(len(names)), [len(split.keys) for split in built.splits.values()])
    num_known = len(known_split)
    side: dict[int, int] = {}
    for number, votes in _votes(unit[:num_known], known_split).items():
        side[number] = votes.most_common(1)[0][0]
    parts: dict[str, list[Record]] = {}
    rest, apart, joined = [], 0, 0
    for place, record in enumerate(records):
        there = side.get(int(unit[num_known + place]))
        if record.split:
            apart += there is not None and names[there] != record.split
            parts.setdefault(record.split, []).append(record)
        elif there is not None:
            joined += 1
            parts.setdefault(names[there], []).append(record)
        else:
            rest.append(place)
    if joined:
        notes.append(f"{joined:,} photos go where photos of their group, or their copies, are")
    if apart:
        notes.append(f"{apart:,} photos are published in another split than the photos of their group, or their copies")
    drawn, said = _draw(built, [records[place] for place in rest], unit[num_known + np.array(rest, np.int64)])
    for name, more in drawn.items():
        parts.setdefault(name, []).extend(more)
    if unknown := sorted(parts.keys() - built.splits.keys()):
        notes.append(f"the set had no split {', '.join(unknown)} so far")
    return Additions(parts, (*notes, *said))


def _leave_out_known(built: BuiltSet, source: Source) -> tuple[list[Record], list[int], list[str]]:
    """(new records under names of their own, digests of their files, notes)."""
    there: dict[str, tuple[int, tuple[int, ...]]] = {}
    for split in built.splits.values():
        digests = [int(digest) for shard in split.photos for digest in shard.digest]
        for key, digest, labels in zip(split.keys, digests, split.labels.tolist(), strict=True):
            there[key] = digest, tuple(labels)
    taken = there.keys() | {record.key for record in source.records}
    new, digests_of_new = [], []
    known = relabelled = renamed = 0
    for record in source.records:
        try:
            digest = digest_of(source.image_bytes(record))
        except BadSample:
            digest = 0  # the build that follows names it as bad
        if record.key in there:
            if there[record.key][0] == digest:
                known += 1
                relabelled += there[record.key][1] != record.labels
                continue
            number = 2
            while f"{record.key}_{number}" in taken:
                number += 1
            record = record._replace(key=f"{record.key}_{number}")
            taken.add(record.key)
            renamed += 1
        new.append(record)
        digests_of_new.append(digest)
    notes = [f"{known:,} of {len(source.records):,} photos are in the set already"] if known else []
    if relabelled:
        notes.append(f"{relabelled:,} of them have other labels there, which stay; data.correct changes labels")
    if renamed:
        notes.append(f"{renamed:,} photos have names that other photos of the set have; theirs end in _2 and so on")
    return new, digests_of_new, notes


def _units(
    built: BuiltSet, source: Source, records: Sequence[Record], digests: Sequence[int], *, workers: int
) -> np.ndarray:
    """int64 [known + new]: equal for photos that belong together."""
    photos = [shard for split in built.splits.values() for shard in split.photos]
    num_known = sum(len(shard.keys) for shard in photos)
    all_digests = np.concatenate([*(shard.digest for shard in photos), np.array(digests, np.uint64)])
    links = equal_values(all_digests)
    links = links[all_digests[links[:, 0]] != 0]
    if built.plan.get("group near-duplicates"):
        new = hash_photos(source, records, workers=workers, max_pixels=int(built.plan["max pixels"] or 0))
        if not all(shard.has_thumbnails for shard in photos):
            raise DataError(f"{next(iter(built.splits.values())).folder}: no thumbnails of its photos are kept")
        known = np.concatenate([shard.thumbnail for shard in photos])
        pairs, _ = find_pairs(PhotoHashes.of(np.concatenate([known, new.thumbnail])))
        links = np.concatenate([links, pairs])
    groups = [group for split in built.splits.values() for group in split.groups]
    return join_units(num_known + len(records), links, [*groups, *(record.group for record in records)])


def _votes(unit: np.ndarray, split: np.ndarray) -> dict[int, Counter[int]]:
    votes: dict[int, Counter[int]] = {}
    for number, side in zip(unit.tolist(), split.tolist(), strict=True):
        votes.setdefault(number, Counter())[side] += 1
    return votes


def _draw(built: BuiltSet, records: list[Record], unit: np.ndarray) -> tuple[dict[str, list[Record]], list[str]]:
    """Records that belong to nothing in the set: parted as the set was, as far as their number allows."""
    if not records:
        return {}, []
    pool = TRAIN if TRAIN in built.splits else next(name for name in built.splits if name != HELD_OUT)
    folds = built.plan.get("folds")
    share = 1 / int(folds) if folds else built.plan.get("holdout")
    if share is None or HELD_OUT not in built.splits:
        return {pool: records}, []
    try:
        seed = int(built.plan["seed"] or 0)
        splits = assign_splits(records, built.tasks, split=pool, fraction=float(share), seed=seed, unit=unit)
    except BadArgument as error:
        return {pool: records}, [f"{len(records):,} photos go to {pool}, none to {HELD_OUT} ({error})"]
    return splits.parts, list(splits.notes)
