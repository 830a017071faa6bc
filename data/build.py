"""Build shards from photos: DIR/<split>/NAME.tar, NAME.idx and index.json.

Use: `python -m data.build --source folder:photos --out shards/birds --holdout 0.2`

The same input gives the same bytes, whatever the number of workers, and a call that was stopped is continued by the
same call. Images that do not decode are left out and listed in DIR/<split>/bad_samples.jsonl.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.bad_samples import write_bad_samples
from data.errors import BadArgument, DataError, LoaderLost
from data.images import MAX_PIXELS
from data.index import LabelRule, load_index, write_index
from data.index.class_counts import print_summary
from data.index.labels import check_names
from data.names import print_any_name
from data.shards.build_plan import Plan, count_corrected, lock_folder, make_plan, open_folder, shard_name
from data.shards.process_pool import default_workers, map_in_processes
from data.shards.splits import assign_splits
from data.sources import MISSING_WORDS, SOURCES, Record, Source, TableOptions, open_source
from launch.exit_codes import ExitCode

DEFAULT_MAX_BAD = 0.01
DEFAULT_QUALITY = 90
ALWAYS_TOLERATED = 10


@dataclass(frozen=True)
class BuildOptions:
    """What the command was asked for; see its --help."""

    source: str
    out: Path
    split: str | None
    holdout: float | None
    samples_per_shard: int
    resize: int | None
    encode: str | None
    quality: int | None
    workers: int
    seed: int
    task: str | None
    missing: tuple[str, ...] | None
    max_pixels: int
    max_bad: float | None
    overwrite: bool


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    print_any_name()
    try:
        _build(options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_CONFIG if isinstance(error, BadArgument) else ExitCode.BAD_DATA
    except OSError as error:
        place = error.filename or options.out
        print(f"error: {place}: {error.strerror}; put it right, and the same command continues", file=sys.stderr)
        return ExitCode.BAD_CONFIG
    except LoaderLost as error:
        print(f"error: {error}; the same command continues", file=sys.stderr)
        return ExitCode.RANK_LOST
    return ExitCode.DONE


def _build(options: BuildOptions) -> None:
    source = open_source(
        options.source,
        task=options.task,
        options=TableOptions(missing=options.missing or MISSING_WORDS) if options.missing is not None else None,
    )
    check_names(source.tasks)
    for note in source.notes:
        print(f"note: {note}")
    parts = assign_splits(source.records, split=options.split, fraction=options.holdout, seed=options.seed)
    published = any(record.split for record in source.records)
    origin = "held out here" if options.holdout is not None else "as published" if published else "no published splits"
    print(f"splits ({origin}): {', '.join(f'{name} {len(records):,}' for name, records in parts.items())}")
    plan = _plan(source, options)
    for name, records in parts.items():
        _build_split(source, records, folder=options.out / name, plan=plan, options=options)


def _build_split(source: Source, records: list[Record], *, folder: Path, plan: Plan, options: BuildOptions) -> None:
    """Write, or continue, one split. DataError when too many images are bad."""
    # Takes seconds, because webdataset brings torch in: not before there is something to write.
    from data.shards.writer import ShardJob, WriterSettings, write_shard

    with lock_folder(folder):
        open_folder(folder, plan, overwrite=options.overwrite)
        corrected = count_corrected(folder)
        step = options.samples_per_shard
        jobs = [ShardJob(first // step, records[first : first + step]) for first in range(0, len(records), step)]
        settings = WriterSettings(
            folder,
            Source(source.tasks, [], arrays=source.arrays),  # the records travel with the jobs
            options.resize,
            options.encode,
            options.quality or DEFAULT_QUALITY,
            options.max_pixels,
        )
        allowed = _allowed_bad(options.max_bad, len(records))
        shards = []
        bad: list[tuple[str, str, str]] = []
        finished = map_in_processes(
            write_shard, jobs, shared=settings, workers=options.workers, what=f"Writing {folder}"
        )
        for job, done in zip(jobs, finished, strict=True):
            bad += [(shard_name(job.number), key, reason) for key, reason in done.bad]
            shards += [done.shard] if done.shard else []
            if len(bad) > allowed:
                break
        listed = write_bad_samples(folder, bad)
        if bad and (len(bad) > allowed or not shards):
            raise DataError(
                f"{folder}: more than {allowed} of {len(records)} pictures are bad, the first ({bad[0][1]}): "
                f"{bad[0][2]}. See {listed}; --max-bad SHARE tolerates more"
            )
        rule = LabelRule(classes_given=True, max_pixels=options.max_pixels)
        write_index(folder, tasks=source.tasks, shards=shards, label_rule=rule)
    if lost := corrected - count_corrected(folder):
        print(f"note: {folder}: {lost} corrected labels were lost with files that were damaged; correct them again")
    print_summary(load_index(folder))
    left_out = f", {len(bad)} bad pictures left out, listed in {listed}" if bad else ", no bad pictures"
    print(f"wrote {folder}: {len(records) - len(bad)} samples in {len(shards)} shards{left_out}")


def _plan(source: Source, options: BuildOptions) -> Plan:
    settings: dict[str, str | int | float | None] = {
        "source kind": options.source.partition(":")[0],
        "samples per shard": options.samples_per_shard,
        "resize": options.resize,
        "encode": options.encode,
        "quality": options.quality,
        "max pixels": options.max_pixels,
        "holdout": options.holdout,
        "split held out from": options.split if options.holdout is not None else None,
        "seed": options.seed,
    }
    return make_plan(source, settings)


def _allowed_bad(share: float | None, num_samples: int) -> int:
    if share is None:
        return max(ALWAYS_TOLERATED, int(DEFAULT_MAX_BAD * num_samples))
    return int(share * num_samples)


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def parse_options(arguments: Sequence[str] | None) -> BuildOptions:
    """Exits with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m data.build", description=(__doc__ or "").split("\n\nUse")[0])
    add = parser.add_argument
    add("--source", required=True, metavar="KIND:PATH", help=f"KIND is one of {', '.join(SOURCES)}")
    add("--out", required=True, type=Path, metavar="DIR", help="each split becomes a folder in it")
    add("--split", metavar="NAME", help="build only this published split; without published ones, the folder's name")
    add("--holdout", type=float, metavar="SHARE", help="hold out a stratified share as DIR/val")
    add("--samples-per-shard", type=int, default=1000, metavar="N", help="default: %(default)s")
    add("--resize", type=int, metavar="N", help="shrink the short side to N pixels (never enlarges)")
    add("--encode", choices=["jpeg"], help="store every picture as JPEG (4:2:0) instead of keeping its bytes")
    add("--quality", type=int, metavar="N", help=f"of JPEGs written here, 1 to 100 (default: {DEFAULT_QUALITY})")
    add("--workers", type=int, default=default_workers(), metavar="N", help="processes (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the shuffle and the hold-out (default: %(default)s)")
    add("--task", metavar="NAME", help="task name for single-task sources (default: class)")
    add(
        "--missing",
        type=_words,
        metavar="WORDS",
        help=f"cells of a manifest that are no label, as empty ones are: {','.join(MISSING_WORDS)} unless you say "
        "others, parted by commas ('' for none)",
    )
    add(
        "--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="larger pictures are bad (default: %(default)s)"
    )
    add("--max-bad", type=float, metavar="SHARE", help="tolerated bad pictures (default: 0.01, at least 10 pictures)")
    add("--overwrite", action="store_true", help="replace another build in the same place")
    options = BuildOptions(**vars(parser.parse_args(arguments)))
    if (wrong := _wrong_option(options)) is not None:
        parser.error(wrong)
    return options


def _wrong_option(options: BuildOptions) -> str | None:
    if options.holdout is not None and not 0 < options.holdout < 1:
        return f"--holdout {options.holdout}: must lie between 0 and 1, as 0.2"
    if options.max_bad is not None and not 0 <= options.max_bad <= 1:
        return f"--max-bad {options.max_bad}: must lie between 0 and 1, as 0.01"
    if options.quality is not None and not 1 <= options.quality <= 100:
        return f"--quality {options.quality}: must lie between 1 and 100"
    if options.quality is not None and options.encode is None and options.resize is None:
        return "--quality needs --encode jpeg or --resize: without them, pictures keep their bytes"
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


if __name__ == "__main__":
    sys.exit(main())
