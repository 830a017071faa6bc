"""Check a shard folder down to every byte: shards, hashes, images, and labels against the index.

Use: `python -m data.verify shards/birds/train [--jobs N]`, or the folder above, to check all its splits

Prints each thing that is wrong and exits 65; exits 0 when nothing is. What training would refuse is refused here, too.
Of several splits it also says, as a note, how many photos of one have a near-duplicate in another.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.bad_samples import ALLOWED_SHARE, most_allowed
from data.errors import BadArgument, DataError, LoaderLost
from data.images import MAX_PIXELS
from data.index import INDEX_NAME, Index, find_splits, idx_name, load_index
from data.names import print_any_name
from data.shards.process_pool import default_workers, map_in_processes
from data.storage import local_root
from launch.exit_codes import ExitCode

if TYPE_CHECKING:  # OpenCV, which --help need not wait for
    from data.shards.near_duplicates import SplitPhotos
    from data.shards.photo_records import ShardPhotos

SHOWN_PER_SHARD = 10


@dataclass(frozen=True)
class VerifyOptions:
    """What the command was asked for; see its --help."""

    folder: str
    task: str | None
    max_pixels: int | None
    max_bad: float
    jobs: int
    near_duplicates: bool


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    print_any_name()
    try:
        folders = find_splits(options.folder)
        photos: list[SplitPhotos] | None = [] if options.near_duplicates and len(folders) > 1 else None
        errors = [line for folder in folders for line in _verify(folder, options, photos)]
        errors += _print(_differing_tasks(folders))
        if photos:
            _report_near_duplicates(photos, Path(local_root(options.folder)))
    except LoaderLost as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.RANK_LOST
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_CONFIG if isinstance(error, BadArgument) else ExitCode.BAD_DATA
    if errors:
        print(f"error: {len(errors)} problems in {options.folder}", file=sys.stderr)
        return ExitCode.BAD_DATA
    return ExitCode.DONE


def _verify(folder: Path, options: VerifyOptions, photos: "list[SplitPhotos] | None") -> list[str]:
    """Print and return what is wrong with one split. Its photos go to `photos` where that is a list."""
    from data.shards.near_duplicates import split_photos
    from data.shards.verify_shard import VerifySettings, verify_shard  # OpenCV, which --help need not wait for

    index = load_index(folder)
    rule = index.label_rule
    most_pixels = options.max_pixels or rule.max_pixels or MAX_PIXELS
    settings = VerifySettings(index, options.task or rule.cls_task, most_pixels, near_duplicates=photos is not None)
    numbers = range(len(index.shards))
    errors, known_bad, corrected = _strays(index) + _copies(index), 0, 0
    found: list[ShardPhotos] = []
    labels: list[np.ndarray] = []
    for shard, report in zip(
        index.shards,
        map_in_processes(verify_shard, numbers, shared=settings, workers=options.jobs, what=f"Verifying {folder}"),
        strict=True,
    ):
        errors += report.errors[:SHOWN_PER_SHARD]
        known_bad += report.known_bad
        if report.photos is not None and report.labels is not None:
            found.append(report.photos)
            labels.append(report.labels)
        corrected += report.corrected
        if len(report.errors) > SHOWN_PER_SHARD:
            errors.append(f"{folder / shard.name}: and {len(report.errors) - SHOWN_PER_SHARD} more")
    allowed = most_allowed(index.num_samples, options.max_bad)
    said = f"{folder}: {known_bad} of {index.num_samples} samples cannot be used, as {INDEX_NAME} says itself"
    if known_bad > allowed:
        errors.append(f"{said}; training stops at more than {allowed} (data.max_bad_share)")
    elif known_bad:
        print(f"note: {said}; training leaves them out")
    _print(errors)
    verdict = f"{len(errors)} problems" if errors else "all good"
    relabelled = f", {corrected} labels corrected" if corrected else ""
    print(f"{folder}: {len(index.shards)} shards, {index.num_samples} samples{relabelled}: {verdict}")
    if photos is not None and found:
        photos.append(split_photos(folder.name, found, labels, index.tasks))
    return errors


def _report_near_duplicates(photos: "list[SplitPhotos]", folder: Path) -> None:
    """Say how many there are across splits, and list them in the folder, where that can be written."""
    from data.shards.near_duplicates import TABLE_NAME, across_splits

    found = across_splits(photos)
    table: Path | None = folder / TABLE_NAME
    try:
        found.write(folder / TABLE_NAME)
    except OSError as error:
        print(f"note: {folder / TABLE_NAME}: {error.strerror}; near-duplicates are counted, but not listed")
        table = None
    for sentence in found.sentences(table):
        print(f"note: {sentence}")


def _print(errors: list[str]) -> list[str]:
    for line in errors:
        print(line)
    return errors


def _differing_tasks(folders: Sequence[Path]) -> list[str]:
    """What val/ lacks of the tasks of train/, or has beyond their classes: training learns those of train/."""
    indices = {folder.name: load_index(folder) for folder in folders if folder.name in ("train", "val")}
    if len(indices) < 2:
        return []
    train, val = indices["train"], indices["val"]
    errors = []
    for task, names in train.tasks.items():
        if task not in val.tasks:
            errors.append(f"{val.root}: has no task {task!r}, {train.root} has")
        elif unknown := sorted(set(val.tasks[task]) - set(names)):
            some = ", ".join(unknown[:5])
            errors.append(f"{val.root}: task {task!r} has classes that {train.root} lacks: {some}")
    return errors


def _strays(index: Index) -> list[str]:
    """Shard files that the index does not know."""
    folder = Path(index.root)
    known = {name for shard in index.shards for name in (shard.name, idx_name(shard.name))}
    present = [path for pattern in ("*.tar", "*.idx", "*.tar.*", "*.tgz") for path in folder.glob(pattern)]
    strays = sorted({path for path in present if path.name not in known and not path.name.startswith(".")})
    return [f"{path}: is not in {INDEX_NAME}; delete it or run data.index again" for path in strays]


def _copies(index: Index) -> list[str]:
    """Shards with the same content under two names."""
    first: dict[str, str] = {}
    errors = []
    for number, shard in enumerate(index.shards):
        if shard.sha256 in first:
            errors.append(f"{index.shard_url(number)}: has the same content as {first[shard.sha256]}")
        first.setdefault(shard.sha256, shard.name)
    return errors


def parse_options(arguments: Sequence[str] | None) -> VerifyOptions:
    parser = argparse.ArgumentParser(prog="python -m data.verify", description=(__doc__ or "").split("\n\nUse")[0])
    parser.add_argument("folder", metavar="DIR", help="a shard folder, or the folder of several splits")
    parser.add_argument("--task", help="the task that .cls members label (default: the one of data.index)")
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help=f"as data.max_pixels (default: that of data.index, or {MAX_PIXELS})",
    )
    parser.add_argument(
        "--max-bad",
        type=float,
        default=ALLOWED_SHARE,
        metavar="SHARE",
        help="of samples that the index knows to be bad, as data.max_bad_share (default: %(default)s, at least 10)",
    )
    parser.add_argument(
        "--no-near-duplicates",
        dest="near_duplicates",
        action="store_false",
        help="do not look for photos that stand in two splits, more or less changed",
    )
    parser.add_argument("--jobs", type=int, default=default_workers(), help="processes (default: %(default)s)")
    return VerifyOptions(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
