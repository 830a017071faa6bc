"""What `python -m data.build` can be asked for: its options, and which of them fit together.

Use: `options = parse_options(["--source", "photos.csv", "--out", "shards/mine"], about="Build shards.")`
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.images import MAX_PIXELS
from data.shards.process_pool import default_workers
from data.sources import CASES, MISSING_WORDS, SOURCES, TableOptions

DEFAULT_QUALITY = 90
NEAR_DUPLICATES = "near-duplicates"  # as a --group


@dataclass(frozen=True)
class BuildOptions:
    """See --help. groups: what --group names, less near-duplicates; at most one."""

    source: str
    out: Path
    split: str | None
    holdout: float | None
    folds: int | None
    fold: int | None
    group_near_duplicates: bool
    near_duplicates: bool
    append: bool
    samples_per_shard: int
    resize: int | None
    encode: str | None
    quality: int | None
    workers: int
    seed: int
    task: str | None
    table: TableOptions
    max_pixels: int
    max_bad: float | None
    overwrite: bool


def parse_options(arguments: Sequence[str] | None, *, about: str) -> BuildOptions:
    """Exits with code 2 where one is wrong. about: the command in words."""
    parser = argparse.ArgumentParser(prog="python -m data.build", description=about)
    _add_source(parser)
    _add_splits(parser)
    _add_photos(parser)
    given = vars(parser.parse_args(arguments))
    missing = given.pop("missing")
    groups = given.pop("group")
    columns = [name for name in groups if name != NEAR_DUPLICATES]
    if len(columns) > 1:
        parser.error(f"--group {columns[1]}: one column or pattern is taken, and {NEAR_DUPLICATES} beside it")
    table = TableOptions(
        missing=MISSING_WORDS if missing is None else missing,
        group=columns[0] if columns else None,
        **{name: given.pop(name) for name in ("image", "images", "tasks", "encoding", "delimiter", "case")},
        tags=given.pop("tags") or (),
        drop_conflicts=given.pop("drop_conflicts"),
    )
    options = BuildOptions(**given, table=table, group_near_duplicates=NEAR_DUPLICATES in groups)
    if (wrong := _wrong_option(options)) is not None:
        parser.error(wrong)
    return options


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def _add_source(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("photos and labels").add_argument
    add(
        "--source",
        required=True,
        metavar="SOURCE",
        help=f"a table (.csv, .tsv, .jsonl, .json), a folder of class folders, or KIND:PATH, of {', '.join(SOURCES)}",
    )
    add("--task", metavar="NAME", help="task name for sources of one task (default: class)")
    add("--tasks", type=_words, metavar="COLUMNS", help="of a table: these are the tasks (default: all that can be)")
    add("--tags", type=_words, metavar="COLUMNS", help="of a table: cells as red|round become a yes/no task per tag")
    add("--image", metavar="COLUMN", help="of a table: it names the photos (default: found)")
    add("--images", type=Path, metavar="DIR", help="paths in a table start here (default: its folder)")
    add("--encoding", metavar="NAME", help="of a CSV, as cp1252 (default: found)")
    add("--delimiter", metavar="MARK", help="of a CSV: a character, or comma, semicolon, tab, pipe (default: found)")
    add(
        "--missing",
        type=_words,
        metavar="WORDS",
        help=f"cells of a table that are no label, as empty ones are: {','.join(MISSING_WORDS)} unless you say others, "
        "parted by commas ('' for none)",
    )
    add("--case", choices=CASES, help="classes that differ only in case or blanks: make them one, or leave them apart")
    add("--drop-conflicts", action="store_true", help="labels of one photo that contradict each other are missing")


def _add_splits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("splits").add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="each split becomes a folder in it")
    add("--split", metavar="NAME", help="build only this published split; without published ones, the folder's name")
    add("--holdout", type=float, metavar="SHARE", help="hold out a stratified share as DIR/val")
    add("--folds", type=int, metavar="K", help="part the photos in K stratified folds; one is held out as DIR/val")
    add("--fold", type=int, metavar="N", help="which one: 0 to K - 1 (default: 0)")
    add(
        "--group",
        action="append",
        default=[],
        metavar="WHAT",
        help="never part photos of one person, shop, product: a table's column, for other sources a regular expression "
        f"on their names; {NEAR_DUPLICATES} keeps those together that look alike (may be said beside the other)",
    )
    add("--no-near-duplicates", dest="near_duplicates", action="store_false", help="do not look for them across splits")
    add("--append", action="store_true", help="add what is new to the set in DIR, whose splits and groups stay")
    add("--seed", type=int, default=0, help="of the shuffle and the hold-out (default: %(default)s)")


def _add_photos(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("shards").add_argument
    add("--samples-per-shard", type=int, default=1000, metavar="N", help="default: %(default)s")
    add("--resize", type=int, metavar="N", help="shrink the short side to N pixels (never enlarges)")
    add(
        "--encode",
        choices=["jpeg"],
        help="store every picture as JPEG (4:2:0) instead of keeping its bytes (HEIC and AVIF become JPEG without it)",
    )
    add("--quality", type=int, metavar="N", help=f"of JPEGs written here, 1 to 100 (default: {DEFAULT_QUALITY})")
    add("--workers", type=int, default=default_workers(), metavar="N", help="processes (default: %(default)s)")
    add(
        "--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="larger pictures are bad (default: %(default)s)"
    )
    add("--max-bad", type=float, metavar="SHARE", help="tolerated bad pictures (default: 0.01, at least 10 pictures)")
    add("--overwrite", action="store_true", help="replace another build in the same place")


def _wrong_option(options: BuildOptions) -> str | None:
    if options.holdout is not None and not 0 < options.holdout < 1:
        return f"--holdout {options.holdout}: must lie between 0 and 1, as 0.2"
    if options.holdout is not None and options.folds is not None:
        return f"--folds {options.folds} with --holdout: both hold out DIR/val; say one of them"
    if options.folds is not None and options.folds < 2:
        return f"--folds {options.folds}: must be at least 2"
    if options.fold is not None and options.folds is None:
        return f"--fold {options.fold}: which fold of how many? Add --folds K"
    if options.fold is not None and options.folds is not None and not 0 <= options.fold < options.folds:
        return f"--fold {options.fold}: must lie between 0 and {options.folds - 1}"
    if options.append and (options.overwrite or options.split or options.folds is not None):
        other = "--overwrite" if options.overwrite else "--split" if options.split else "--folds"
        return f"--append with {other}: what is added is drawn as the set in --out was; leave {other} out"
    if options.max_bad is not None and not 0 <= options.max_bad <= 1:
        return f"--max-bad {options.max_bad}: must lie between 0 and 1, as 0.01"
    if options.quality is not None and not 1 <= options.quality <= 100:
        return f"--quality {options.quality}: must lie between 1 and 100"
    counts = {
        "samples-per-shard": options.samples_per_shard,
        "resize": options.resize,
        "workers": options.workers,
        "max-pixels": options.max_pixels,
    }
    for name, value in counts.items():
        if value is not None and value < 1:
            return f"--{name} {value}: must be at least 1"
    if options.split is not None and (not options.split or "/" in options.split or options.split.startswith(".")):
        return f"--split {options.split}: must be a plain folder name"
    return None
