"""A table of a million photos with three tasks, from the file to train and val, before a photo is opened.

It is what `data.build --source manifest:photos.csv --holdout 0.2` does first. Each try runs in a fresh process, and its
memory is the peak of that whole process, interpreter and NumPy included. Of the photos, every hundredth is there (an
empty file), because the reader looks for some at even distances and goes on when it finds them.
"""

import time
from pathlib import Path

import numpy as np

from data.shards.splits import assign_splits
from data.sources import open_source
from tests.benchmarks.figure import Figure
from tests.benchmarks.fresh_process import in_fresh_process, peak_megabytes

_FRACTION = 0.2
_EVERY = 100  # photos, of which one is there
# Classes and their shares: few are frequent, as in photos of people.
_TASKS = {
    "gender": (("f", "m"), np.array([0.6, 0.4])),
    "age": (tuple(f"{10 * decade}s" for decade in range(1, 9)), 0.7 ** np.arange(8)),
    "beauty": (tuple(map(str, range(1, 101))), 1 / np.arange(1, 101)),
}


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    num_rows, tries = (20_000, 1) if quick else (1_000_000, 3)
    table = _write_table(folder / "photos.csv", num_rows)
    runs = [in_fresh_process(read_and_divide, table) for _ in range(tries)]
    # The least: what else runs can only slow it down.
    seconds = min(read + divide for read, divide, _ in runs)
    read, divide = min(read for read, _, _ in runs), min(divide for _, divide, _ in runs)
    size = f"{num_rows:,} rows, best of {tries}"
    return [
        Figure("table_rows_per_second", num_rows / seconds, target=100_000, at_least=True, note=size),
        Figure("table_read_seconds", read, note=size),
        Figure("table_split_seconds", divide, note=f"{size}, a stratified {_FRACTION}"),
        Figure("table_peak_gb", max(megabytes for _, _, megabytes in runs) / 1e3, target=1.0, note=size),
    ]


def read_and_divide(table: Path) -> tuple[float, float, float]:
    """(seconds to read the table, seconds to divide it, peak MB)."""
    begin = time.perf_counter()
    source = open_source(f"manifest:{table}")
    between = time.perf_counter()
    splits = assign_splits(source.records, source.tasks, split=None, fraction=_FRACTION, seed=0)
    end = time.perf_counter()
    assert len(splits.parts["val"]) == round(_FRACTION * len(source.records))
    return between - begin, end - between, peak_megabytes()


def _write_table(path: Path, num_rows: int) -> Path:
    chance = np.random.default_rng(0)
    columns = [
        np.array(names)[chance.choice(len(names), num_rows, p=weights / weights.sum())].tolist()
        for names, weights in _TASKS.values()
    ]
    with path.open("w") as file:
        file.write(",".join(["image", *_TASKS]) + "\n")
        for number, cells in enumerate(zip(*columns, strict=True)):
            photo = f"photos/{number // 1000:04d}/{number:08d}.jpg"
            file.write(f"{photo},{','.join(cells)}\n")
            if number % _EVERY == 0:
                (path.parent / photo).parent.mkdir(parents=True, exist_ok=True)
                (path.parent / photo).touch()
    return path
