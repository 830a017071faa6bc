"""Labels put right in the index of finished shards: what a table of corrections changes, and the writing of it.

    plans = plan_corrections([load_index("shards/mine/train")], read_fixes(Path("fixes.csv")))
    write_corrections(plans)

The tars stay as they are. The .idx files hold the new labels, and beside them what the tars say.
"""

import contextlib
import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import google_crc32c
import numpy as np

from data.errors import BadArgument, DataError
from data.files import staged
from data.index import INDEX_NAME, Index, ShardIndex, idx_name, shard_index_to_bytes
from data.index.labels import MISSING, class_positions, missing_names
from data.names import as_text, class_name
from data.sealed_json import open_sealed, seal
from data.shards.build_plan import RECORDS_FOLDER, lock_folder
from data.shards.sample_names import Place, find_samples
from data.sources.cells import MISSING_WORDS

COLUMNS = ("image", "task", "label")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_SHOWN_CLASSES = 30


@dataclass(frozen=True)
class Fix:
    """One row of the table. label: "" for a missing one."""

    line: int
    image: str
    task: str
    label: str


@dataclass(frozen=True)
class CorrectedIndex(Index):
    """An index some of whose shards have other rows than their files: `corrected_rows`, by the shard's number."""

    corrected_rows: dict[int, ShardIndex] = field(default_factory=dict)

    def load_shard(self, number: int) -> ShardIndex:
        """The rows with their corrections; else as in Index."""
        return self.corrected_rows.get(number) or super().load_shard(number)


@dataclass(frozen=True)
class SplitPlan:
    """What changes in one split. index: with the new labels. changes: task -> how often which class becomes which (None
    is a missing label). num_equal: labels that were so already."""

    index: CorrectedIndex
    changes: dict[str, Counter[tuple[str | None, str | None]]]
    num_equal: int

    @property
    def num_changed(self) -> int:
        return sum(counts.total() for counts in self.changes.values())


def read_fixes(path: Path) -> tuple[list[Fix], list[str]]:
    """The rows of a table with the columns image, task and label, and notes for the user. DataError names the line of
    what is wrong, BadArgument a file that is not there."""
    header, rows = _read_table(path)
    columns = [column.strip().lower() for column in header]
    if lacking := missing_names(COLUMNS, columns):
        raise DataError(f"{path}: needs the columns {', '.join(COLUMNS)}; it lacks {lacking} (it has: {_list(header)})")
    if twice := [column for column in COLUMNS if columns.count(column) > 1]:
        raise DataError(f"{path}: has the column {twice[0]!r} more than once")
    others = [name for name, column in zip(header, columns, strict=True) if column not in COLUMNS]
    notes = [f"{path}: the columns {_list(others)} were not read"] if others else []
    places = [columns.index(column) for column in COLUMNS]
    fixes = []
    for line, cells in rows:
        if len(cells) != len(columns):
            raise DataError(f"{path}: line {line} has {len(cells)} cells, the header has {len(columns)}")
        image, task, label = (cells[place].strip() for place in places)
        if not image or not task:
            raise DataError(f"{path}: line {line} names no {'task' if image else 'image'}")
        fixes.append(Fix(line, image, class_name(task), class_name(label)))
    if not fixes:
        raise DataError(f"{path}: holds no rows")
    return fixes, notes


def plan_corrections(indices: Sequence[Index], fixes: Sequence[Fix]) -> tuple[list[SplitPlan], list[str]]:
    """What the rows change in each split, and notes for the user. DataError where one of them cannot be done: then none
    is."""
    found = find_samples([fix.image for fix in fixes], indices)
    labels: dict[tuple[Place, str], tuple[Fix, int]] = {}
    positions = [class_positions(index.tasks) for index in indices]
    for fix in fixes:
        place = found.places[fix.image]
        label = _class_number(fix, positions[place.split], indices[place.split])
        earlier, given = labels.setdefault((place, fix.task), (fix, label))
        if given != label:
            raise DataError(
                f"lines {earlier.line} and {fix.line} give {fix.image!r} two labels of {fix.task!r}: "
                f"{earlier.label or 'missing'!r} and {fix.label or 'missing'!r}; nothing was changed"
            )
    plans = []
    for split, index in enumerate(indices):
        mine = [(place, task, *given) for (place, task), given in labels.items() if place.split == split]
        plans.append(_plan_split(index, mine))
    return plans, [found.note] if found.note else []


def write_corrections(plans: Sequence[SplitPlan]) -> None:
    """The new .idx files and index.json of each split that changes, as one set: a kill leaves the old or the new one.
    It may leave one split new and another old; the same corrections again finish that. DataError when a split is
    written by another process meanwhile."""
    with contextlib.ExitStack() as stack:
        for plan in plans:
            folder, rows = Path(plan.index.root), plan.index.corrected_rows
            if not rows:
                continue
            if (folder / RECORDS_FOLDER).is_dir():
                stack.enter_context(lock_folder(folder))
            stage = stack.enter_context(staged(folder))
            hashes = {}
            for number in sorted(rows):
                name, data = plan.index.shards[number].name, shard_index_to_bytes(rows[number])
                (stage / idx_name(name)).write_bytes(data)
                hashes[name] = google_crc32c.value(data)
            (stage / INDEX_NAME).write_bytes(_with_hashes(plan.index, hashes))


def _with_hashes(index: Index, hashes: dict[str, int]) -> bytes:
    """The split's index.json, in which only the hashes of .idx files are new."""
    path = Path(index.root) / INDEX_NAME
    content = open_sealed(path.read_bytes(), name=str(path))
    shards = content["shards"]
    known = {shard.name: shard.idx_crc32c for shard in index.shards}
    if dict(zip(shards["name"], shards["idx_crc32c"], strict=True)) != known:
        raise DataError(f"{path}: was written anew meanwhile; nothing was changed, call again")
    shards["idx_crc32c"] = [hashes.get(name, known[name]) for name in shards["name"]]
    return seal(content)


def _plan_split(index: Index, labels: Sequence[tuple[Place, str, Fix, int]]) -> SplitPlan:
    tasks = list(index.tasks)
    changes: dict[str, Counter[tuple[str | None, str | None]]] = {}
    num_equal = 0
    new_rows: dict[int, ShardIndex] = {}
    for place, task, fix, label in sorted(labels, key=lambda one: one[0]):
        rows = new_rows.get(place.shard) or index.load_shard(place.shard)
        if place.sample in rows.bad:
            raise DataError(
                f"line {fix.line}: {fix.image!r} cannot be used ({rows.bad[place.sample]}), which a label does not "
                "change: take the row out; nothing was changed"
            )
        column = tasks.index(task)
        before = int(rows.labels[place.sample, column])
        if before == label:
            num_equal += 1
            continue
        if place.shard not in new_rows:
            rows = new_rows[place.shard] = replace(rows, labels=rows.labels.copy(), corrected=dict(rows.corrected))
        in_tar = rows.corrected.pop((place.sample, column), before)
        if in_tar != label:
            rows.corrected[place.sample, column] = in_tar
        rows.labels[place.sample, column] = np.int32(label)
        names = index.tasks[task]
        changes.setdefault(task, Counter())[_name(before, names), _name(label, names)] += 1
    corrected = CorrectedIndex(
        index.root, index.tasks, index.shards, label_rule=index.label_rule, corrected_rows=new_rows
    )
    return SplitPlan(corrected, changes, num_equal)


def _class_number(fix: Fix, positions: dict[str, dict[str, int]], index: Index) -> int:
    if fix.task not in positions:
        raise DataError(
            f"line {fix.line}: {index.root} has no task {fix.task!r}; it has {_list(index.tasks) or 'none'}"
            f"{_nearest(fix.task, list(positions))}; nothing was changed"
        )
    numbers = positions[fix.task]
    if fix.label in numbers:
        return numbers[fix.label]
    if not fix.label or fix.label.lower() in {word.lower() for word in MISSING_WORDS}:
        return MISSING
    # Tools turn a column of numbers with gaps into decimals.
    if (whole := _WHOLE.fullmatch(fix.label)) and whole[1] in numbers:
        return numbers[whole[1]]
    classes = _list(list(numbers)[:_SHOWN_CLASSES]) + (", ..." if len(numbers) > _SHOWN_CLASSES else "")
    raise DataError(
        f"line {fix.line}: {fix.task!r} has no class {fix.label!r}{_nearest(fix.label, list(numbers))}; its classes "
        f"are {classes}. A new class needs a new build; nothing was changed"
    )


def _nearest(name: str, names: Sequence[str]) -> str:
    by_letters = {other.casefold(): other for other in names}
    near = difflib.get_close_matches(name.casefold(), list(by_letters), n=1)
    return f" (did you mean {by_letters[near[0]]!r}?)" if near else ""


def _read_table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and line number and cells of each further row; cells are parted by commas, semicolons or tabs."""
    if not path.is_file():
        raise BadArgument(f"{path}: no such file (expected a table with the columns {', '.join(COLUMNS)})")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    header = next(reader, [])
    return header, ((reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))


def _list(names: Sequence[str] | dict[str, tuple[str, ...]]) -> str:
    return ", ".join(map(as_text, names))


def _name(label: int, names: tuple[str, ...]) -> str | None:
    return names[label] if label != MISSING else None
