"""Build shards from photos: DIR/<split>/NAME.tar, NAME.idx and index.json.

Use: `python -m data.build --source photos.csv --out shards/mine --holdout 0.2`

The same input gives the same bytes, whatever the number of workers, and a call that was stopped is continued by the
same call. Images that do not decode are left out and listed in DIR/<split>/bad_samples.jsonl, photos that look alike in
two splits in DIR/near_duplicates.csv.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data.bad_samples import write_bad_samples
from data.build_options import DEFAULT_QUALITY, BuildOptions, parse_options
from data.errors import BadArgument, DataError, LoaderLost
from data.index import INDEX_NAME, LabelRule, Shard, load_index, write_index
from data.index.class_counts import print_summary
from data.index.labels import check_names
from data.names import print_any_name
from data.shards.build_plan import CONTENT, Plan, count_corrected, lock_folder, make_plan, open_folder, shard_name
from data.shards.groups import join_units
from data.shards.process_pool import map_in_processes
from data.shards.splits import assign_splits, shuffle
from data.sources import Record, Source, open_source
from data.walk import JPEG_IN_SHARDS, PNG_IN_SHARDS
from launch.exit_codes import ExitCode

DEFAULT_MAX_BAD = 0.01
ALWAYS_TOLERATED = 10
_DRAWN_BY = 2  # version of the rule that draws what is held out


@dataclass(frozen=True)
class NewShards:
    """What is to be written into a split: records, the number of their first shard, and the shards before it."""

    records: list[Record]
    first: int = 0
    before: tuple[Shard, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments, about=(__doc__ or "").split("\n\nUse")[0])
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
    source = open_source(options.source, task=options.task, options=options.table)
    check_names(source.tasks)
    _print_notes(source.notes)
    _print_notes(_stored_anew(source, options))
    plan = _plan(source, options)
    if options.append:
        _append(source, plan, options)
    else:
        splits = assign_splits(
            source.records,
            source.tasks,
            split=options.split,
            fraction=options.holdout,
            seed=options.seed,
            folds=options.folds,
            fold=options.fold,
            unit=_units(source, options),
        )
        _print_notes(splits.notes)
        _print_splits(splits.parts, _origin(source, options))
        for name, records in splits.parts.items():
            folder = options.out / name
            with lock_folder(folder):
                open_folder(folder, plan, overwrite=options.overwrite)
                _write_split(source, NewShards(records), folder=folder, options=options)
    if options.near_duplicates:
        _report_near_duplicates(options.out)


def _units(source: Source, options: BuildOptions) -> np.ndarray | None:
    """int64 [n]: equal for photos that no split may part; None where nothing is drawn and no groups are asked for."""
    grouped = options.group_near_duplicates or options.table.group is not None
    if options.holdout is None and options.folds is None and not grouped:
        return None
    from data.shards.photo_links import equal_files, near_duplicate_links  # OpenCV

    if options.group_near_duplicates:
        links = near_duplicate_links(source, source.records, workers=options.workers, max_pixels=options.max_pixels)
    else:
        links = equal_files(source, source.records)
    return join_units(len(source.records), links, [record.group for record in source.records])


def _append(source: Source, plan: Plan, options: BuildOptions) -> None:
    from data.shards.append import begin_batch, find_new, finish_batch, match_tasks, open_set  # OpenCV

    built = open_set(options.out, content=str(plan[CONTENT]))
    options = _as_built(options, built.plan)
    new = find_new(built, match_tasks(source, built.tasks), workers=options.workers)
    _print_notes(new.notes)
    _print_splits(new.parts, "appended")
    source = replace(source, tasks=built.tasks)
    for name in sorted(built.splits.keys() | new.parts.keys()):
        folder = options.out / name
        records = shuffle(new.parts.get(name, []), seed=options.seed)
        if name not in built.splits:
            with lock_folder(folder):
                open_folder(folder, built.plan, overwrite=False)
                _write_split(source, NewShards(records), folder=folder, options=options)
        else:
            split = built.splits[name]
            with lock_folder(folder):
                begin_batch(split, str(plan[CONTENT]))
                _write_split(source, NewShards(records, split.first_new, split.shards), folder=folder, options=options)
                finish_batch(folder)


def _as_built(options: BuildOptions, plan: Plan) -> BuildOptions:
    """The options with those of the set's own build. BadArgument names one that was given otherwise."""
    defaults = parse_options(["--source", ".", "--out", "."], about="")
    names = {
        "samples per shard": ("samples_per_shard", options.samples_per_shard, defaults.samples_per_shard),
        "resize": ("resize", options.resize, None),
        "encode": ("encode", options.encode, None),
        "quality": ("quality", options.quality, None),
        "max pixels": ("max_pixels", options.max_pixels, defaults.max_pixels),
        "holdout": ("holdout", options.holdout, None),
        "seed": ("seed", options.seed, 0),
    }
    for setting, (name, given, default) in names.items():
        if given not in (default, plan.get(setting)):
            raise BadArgument(
                f"--{name.replace('_', '-')} {given}: the set in {options.out} was built with {plan.get(setting)}, and "
                "what is added is made like it; leave this out"
            )
    built: dict[str, Any] = {name: plan.get(setting) for setting, (name, *_) in names.items()}
    return replace(options, **built)


def _write_split(source: Source, new: NewShards, *, folder: Path, options: BuildOptions) -> None:
    """Write, or continue, the shards of one split in its locked folder. DataError when too many images are bad."""
    # Takes seconds, because webdataset brings torch in: not before there is something to write.
    from data.shards.writer import ShardJob, WriterSettings, write_shard

    corrected = count_corrected(folder)
    step, records = options.samples_per_shard, new.records
    jobs = [ShardJob(new.first + at // step, records[at : at + step]) for at in range(0, len(records), step)]
    settings = WriterSettings(
        folder,
        Source(source.tasks, [], arrays=source.arrays),  # the records travel with the jobs
        options.resize,
        options.encode,
        options.quality or DEFAULT_QUALITY,
        options.max_pixels,
        near_duplicates=options.near_duplicates,
    )
    allowed = _allowed_bad(options.max_bad, len(records))
    shards = []
    bad: list[tuple[str, str, str]] = []
    finished = map_in_processes(write_shard, jobs, shared=settings, workers=options.workers, what=f"Writing {folder}")
    for job, done in zip(jobs, finished, strict=True):
        bad += [(shard_name(job.number), key, reason) for key, reason in done.bad]
        shards += [done.shard] if done.shard else []
        if len(bad) > allowed:
            break
    listed = write_bad_samples(folder, bad)
    if bad and (len(bad) > allowed or not (shards or new.before)):
        raise DataError(
            f"{folder}: more than {allowed} of {len(records)} pictures are bad, the first ({bad[0][1]}): "
            f"{bad[0][2]}. See {listed}; --max-bad SHARE tolerates more"
        )
    rule = LabelRule(classes_given=True, max_pixels=options.max_pixels)
    write_index(folder, tasks=source.tasks, shards=[*new.before, *shards], label_rule=rule)
    if lost := corrected - count_corrected(folder):
        print(f"note: {folder}: {lost} corrected labels were lost with files that were damaged; correct them again")
    if not records:
        return
    print_summary(load_index(folder))
    left_out = f", {len(bad)} bad pictures left out, listed in {listed}" if bad else ", no bad pictures"
    print(f"wrote {folder}: {len(records) - len(bad)} samples in {len(shards)} shards{left_out}")


def _report_near_duplicates(out: Path) -> None:
    """Say how many photos of a split look like one of another, and list them."""
    folders = sorted(path.parent for path in out.glob(f"*/{INDEX_NAME}"))
    if len(folders) < 2:
        return
    from data.shards.near_duplicates import TABLE_NAME, across_splits, built_photos  # OpenCV

    try:
        found = across_splits([built_photos(folder.name, load_index(folder)) for folder in folders])
    except DataError as error:  # a split beside this one that was built without them
        _print_notes([f"near-duplicates across splits are not counted: {error}"])
        return
    found.write(out / TABLE_NAME)
    _print_notes(found.sentences(out / TABLE_NAME))


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}")


def _stored_anew(source: Source, options: BuildOptions) -> list[str]:
    """What becomes of files whose bytes are not kept even if nobody asks for it, by their names. BadArgument for a
    --quality that nothing is stored with."""
    files = [record.image.lower() for record in source.records if isinstance(record.image, str)]
    to_jpeg = sum(file.endswith(JPEG_IN_SHARDS) for file in files)
    to_png = sum(file.endswith(PNG_IN_SHARDS) for file in files)
    if options.quality is not None and not (options.encode or options.resize or to_jpeg):
        raise BadArgument(
            "--quality needs --encode jpeg, --resize or HEIC or AVIF photos: without them, pictures keep their bytes"
        )
    notes = []
    if to_jpeg and not options.encode:
        quality = options.quality or DEFAULT_QUALITY
        notes.append(f"photos in HEIC or AVIF ({to_jpeg:,}) are stored as JPEG of quality {quality} (--quality)")
    if to_png and not options.encode:
        notes.append(f"pictures in TIFF, BMP or GIF ({to_png:,}) are stored as PNG (--encode jpeg: as JPEG)")
    return notes


def _print_splits(parts: dict[str, list[Record]], origin: str) -> None:
    print(f"splits ({origin}): {', '.join(f'{name} {len(records):,}' for name, records in parts.items()) or 'nothing'}")


def _origin(source: Source, options: BuildOptions) -> str:
    if options.folds is not None:
        return f"fold {options.fold or 0} of {options.folds}"
    if options.holdout is not None:
        return "held out here"
    return "as published" if any(record.split for record in source.records) else "no published splits"


def _plan(source: Source, options: BuildOptions) -> Plan:
    drawn = options.holdout is not None or options.folds is not None
    settings: Plan = {
        "source kind": options.source.partition(":")[0] if ":" in options.source else "path",
        "samples per shard": options.samples_per_shard,
        "resize": options.resize,
        "encode": options.encode,
        "quality": options.quality,
        "max pixels": options.max_pixels,
        "holdout": options.holdout,
        "split held out from": options.split if options.holdout is not None else None,
        "seed": options.seed,
    }
    if drawn:
        settings["drawn by rule"] = _DRAWN_BY
    if options.folds is not None:
        settings |= {"folds": options.folds, "fold": options.fold or 0}
    if options.table.group is not None:
        settings["group"] = options.table.group
    if options.group_near_duplicates:
        settings["group near-duplicates"] = True
    return make_plan(source, settings)


def _allowed_bad(share: float | None, num_samples: int) -> int:
    if share is None:
        return max(ALWAYS_TOLERATED, int(DEFAULT_MAX_BAD * num_samples))
    return int(share * num_samples)


if __name__ == "__main__":
    sys.exit(main())
