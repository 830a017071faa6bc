"""Corrected labels of an index that is about to be made anew: kept where the tar still says what was corrected.

Use: `rows = carry_corrections(Path("shards/train"), ["000.tar"], rows, tasks)`
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.errors import DataError
from data.index.dataset import Index, load_index
from data.index.labels import MISSING
from data.index.shard import ShardIndex
from data.shards.build_plan import count_corrected

_SHOWN = 5


@dataclass(frozen=True)
class _Correction:
    """One corrected label by name; None is a missing one."""

    shard: str
    key: str
    task: str
    before: str | None
    label: str | None


def carry_corrections(
    folder: Path, names: Sequence[str], rows: Sequence[ShardIndex], tasks: dict[str, tuple[str, ...]]
) -> list[ShardIndex]:
    """`rows` of the shards `names`, with the corrections that the index in `folder` holds; prints how many were kept,
    and which were not and why."""
    try:
        earlier = load_index(folder)
    except DataError:  # there is no whole index to take them from
        if lost := count_corrected(folder):
            print(f"note: {lost} corrected labels were given up: the index that held them is not whole")
        return list(rows)
    corrections = _corrections(earlier, names)
    if not corrections:
        return list(rows)
    places = _places(rows, {correction.key for correction in corrections})
    new_labels = [one.labels.copy() for one in rows]
    corrected: list[dict[tuple[int, int], int]] = [{} for _ in rows]
    given_up = []
    for correction in corrections:
        found = places.get(correction.key, [])
        same = [place for place in found if names[place[0]] == correction.shard] or found
        reason = _why_not(correction, rows, same, tasks)
        if reason:
            given_up.append(f"{correction.key!r} ({reason})")
            continue
        (shard, sample), column = same[0], list(tasks).index(correction.task)
        corrected[shard][sample, column] = int(new_labels[shard][sample, column])
        new_labels[shard][sample, column] = _number(correction.label, tasks[correction.task])
    if kept := sum(map(len, corrected)):
        print(f"note: {kept} corrected labels of the index that was there are kept")
    if given_up:
        more = f" and {len(given_up) - _SHOWN} more" if len(given_up) > _SHOWN else ""
        print(f"note: {len(given_up)} corrected labels were given up: {', '.join(given_up[:_SHOWN])}{more}")
    return [
        replace(one, labels=labels, corrected=places)
        for one, labels, places in zip(rows, new_labels, corrected, strict=True)
    ]


def _corrections(index: Index, names: Sequence[str]) -> list[_Correction]:
    """Of all shards; says which of `names` has an .idx file that is not whole."""
    tasks = list(index.tasks.items())
    found = []
    for number, shard in enumerate(index.shards):
        try:
            rows = index.load_shard(number)
        except DataError as error:
            if shard.name in names:
                print(f"note: corrections of {shard.name} are given up, if it had any: {error}")
            continue
        for (sample, column), before in sorted(rows.corrected.items()):
            task, classes = tasks[column]
            label = int(rows.labels[sample, column])
            found.append(_Correction(shard.name, rows.key(sample), task, _name(before, classes), _name(label, classes)))
    return found


def _places(rows: Sequence[ShardIndex], keys: set[str]) -> dict[str, list[tuple[int, int]]]:
    """key -> (shard, sample) of those that have it."""
    places: dict[str, list[tuple[int, int]]] = {}
    for shard, one in enumerate(rows):
        for sample, key in enumerate(one.keys()):
            if key in keys:
                places.setdefault(key, []).append((shard, sample))
    return places


def _why_not(
    correction: _Correction,
    rows: Sequence[ShardIndex],
    places: Sequence[tuple[int, int]],
    tasks: dict[str, tuple[str, ...]],
) -> str:
    """Why a correction cannot be kept; "" where it can."""
    if len(places) != 1:
        return f"{len(places)} samples have this key" if places else "no sample has this key"
    if correction.task not in tasks:
        return f"there is no task {correction.task!r}"
    (shard, sample), names = places[0], tasks[correction.task]
    now = _name(int(rows[shard].labels[sample, list(tasks).index(correction.task)]), names)
    if sample in rows[shard].bad:
        return rows[shard].bad[sample]
    if now != correction.before:
        return f"the tar now says {now or 'missing'}, not {correction.before or 'missing'}"
    if correction.label is not None and correction.label not in names:
        return f"{correction.task!r} has no class {correction.label!r}"
    return ""


def _name(label: int, names: tuple[str, ...]) -> str | None:
    return names[label] if label != MISSING else None


def _number(label: str | None, names: tuple[str, ...]) -> int:
    return MISSING if label is None else names.index(label)
