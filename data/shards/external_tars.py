"""Indexing tars that other tools wrote: every image checked, every label parsed, what is odd told in words.

Use: `index_tars(find_tars([Path("shards/train")]), tasks=None, cls_task="class", workers=4)`
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from data.bad_samples import write_bad_samples
from data.errors import BadSample, DataError
from data.files import staged
from data.images import MAX_PIXELS
from data.index.class_counts import print_summary
from data.index.dataset import INDEX_NAME, Shard, load_index, write_index
from data.index.label_rule import LabelRule
from data.index.labels import check_names, class_positions, infer_classes, to_numbers
from data.index.shard import ShardIndex, idx_name, pack_keys, shard_index_to_bytes
from data.names import as_text, class_name
from data.shards.process_pool import map_in_processes
from data.shards.tar_samples import TarSamples, read_tar_samples
from data.shards.tar_scan import compressed_error, has_compressed_name
from data.walk import is_hidden


def find_tars(paths: Sequence[Path]) -> list[Path]:
    """The tars named or in the named folder; all must lie in one folder, which becomes the shard folder."""
    tars: list[Path] = []
    for path in paths:
        if path.is_dir():
            compressed = sorted(file for file in path.iterdir() if has_compressed_name(file))
            if compressed:
                raise compressed_error(str(compressed[0]), compressed[0].suffix.lstrip("."))
            inside = sorted(file for file in path.glob("*.tar") if not is_hidden(file.name))
            if hidden := [file for file in path.glob("*.tar") if is_hidden(file.name)]:
                print(f"note: {len(hidden)} hidden files are no shards (for example {hidden[0]})")
            if not inside:
                raise DataError(f"{path}: holds no .tar files")
            tars += inside
        elif not path.is_file():
            raise DataError(f"{path}: no such file or folder (tars are indexed where they lie: on a local disk)")
        elif has_compressed_name(path):
            raise compressed_error(str(path), path.suffix.lstrip("."))
        elif path.suffix != ".tar":
            raise DataError(f"{path}: is not a .tar file")
        else:
            tars.append(path)
    by_name: dict[str, Path] = {}
    for tar in tars:
        if as_text(tar.name) != tar.name:
            raise DataError(
                f"{as_text(str(tar))}: the name of a shard must be text, it is part of an address; rename it"
            )
        if tar.name in by_name:
            raise DataError(f"two shards are named {tar.name}: {by_name[tar.name]} and {tar}; give each its own name")
        by_name[tar.name] = tar
    folders = sorted({str(tar.parent) for tar in tars})
    if len(folders) > 1:
        raise DataError(f"the tars lie in several folders ({', '.join(folders)}); a split is one folder: move them")
    return sorted(tars, key=lambda tar: tar.name)


def read_classes(path: Path) -> dict[str, tuple[str, ...]]:
    """task -> class names from a JSON file; the index.json of another split will do, too."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"--classes {path}: cannot be read as JSON ({error})") from error
    if isinstance(content, dict) and "format" in content:
        content = content.get("tasks")
    lists = isinstance(content, dict) and content and all(isinstance(names, list) for names in content.values())
    if not lists or not all(isinstance(name, str) for names in content.values() for name in names):
        raise DataError(f'--classes {path}: must be an object of task -> list of class names, as {{"age": ["young"]}}')
    return {class_name(task): tuple(map(class_name, names)) for task, names in content.items()}


def remembered_rule(folder: Path) -> tuple[LabelRule, dict[str, tuple[str, ...]] | None]:
    """How the labels of an index that is there already were read, and its classes if they were given."""
    try:
        index = load_index(folder)
    except DataError:  # there is none, or it is to be made anew
        return LabelRule(), None
    return index.label_rule, (index.tasks or None) if index.label_rule.classes_given else None


def index_tars(
    tars: Sequence[Path],
    *,
    tasks: dict[str, tuple[str, ...]] | None,
    cls_task: str,
    max_pixels: int = MAX_PIXELS,
    workers: int = 1,
) -> Path:
    """Index `tars` (all of one folder) and print what was found; returns the path of index.json."""
    settings = (cls_task, max_pixels)
    found = list(map_in_processes(_read_tar, tars, shared=settings, workers=workers, what="Reading tars"))
    for tar, (samples, _) in zip(tars, found, strict=True):
        if not samples.keys:
            raise DataError(f"{tar}: holds no samples (images of .jpg, .jpeg, .png or .webp)")
    given = tasks
    tasks = given or infer_classes(labels for samples, _ in found for labels in samples.labels)
    check_names(tasks)
    _print_notes(tars, [samples for samples, _ in found], tasks)
    shards, bad = [], []
    folder = tars[0].parent
    rule = LabelRule(cls_task, classes_given=given is not None, max_pixels=max_pixels)
    with staged(folder) as stage:
        for tar, (samples, sha256) in zip(tars, found, strict=True):
            rows = to_rows(samples, tasks)
            data = shard_index_to_bytes(rows)
            (stage / idx_name(tar.name)).write_bytes(data)
            shards.append(Shard(tar.name, len(rows), tar.stat().st_size, sha256, google_crc32c.value(data)))
            bad += [(tar.name, rows.key(number), reason) for number, reason in sorted(rows.bad.items())]
        _refuse_if_all_bad(bad, sum(shard.count for shard in shards))
        write_index(stage, tasks=tasks, shards=shards, label_rule=rule)
    path, listed = folder / INDEX_NAME, write_bad_samples(folder, bad)
    print_summary(load_index(folder))
    if listed:
        print(f"{len(bad)} of {sum(shard.count for shard in shards)} samples cannot be used, listed in {listed}")
    print(f"wrote {path}")
    return path


def to_rows(samples: TarSamples, tasks: dict[str, tuple[str, ...]]) -> ShardIndex:
    """The shard's rows; samples whose labels do not fit `tasks` join the bad ones."""
    positions = class_positions(tasks)
    labels = np.full((len(samples.keys), len(tasks)), -1, np.int32)
    bad = dict(samples.bad)
    for number, raw in enumerate(samples.labels):
        try:
            labels[number] = to_numbers(raw, positions)
        except BadSample as error:
            bad[number] = "; ".join(filter(None, [bad.get(number), error.reason]))
    return ShardIndex(
        np.array(samples.offsets, np.int64),
        np.array(samples.sizes, np.int32),
        np.array(samples.crc32c, np.uint32),
        labels,
        *pack_keys(samples.keys),
        bad=bad,
    )


def _read_tar(settings: tuple[str, int], tar: Path) -> tuple[TarSamples, str]:
    cls_task, max_pixels = settings
    samples = read_tar_samples(tar, cls_task=cls_task, max_pixels=max_pixels)
    with tar.open("rb") as file:
        return samples, hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_if_all_bad(bad: Sequence[tuple[str, str, str]], num_samples: int) -> None:
    if len(bad) == num_samples:
        shard, key, reason = bad[0]
        raise DataError(f"none of the {num_samples} samples can be used; the first, {key!r} in {shard}: {reason}")


def _print_notes(tars: Sequence[Path], found: Sequence[TarSamples], tasks: dict[str, tuple[str, ...]]) -> None:
    """Say what was passed over or read in an unusual way, with a count and an example."""
    notes: dict[str, tuple[int, str]] = {}
    for tar, samples in zip(tars, found, strict=True):
        for key, labels in zip(samples.keys, samples.labels, strict=True):
            for task in sorted(labels.keys() - tasks.keys()):
                samples.note(f"label field {task!r} is not a task and was ignored", key)
        for text, about in samples.notes.items():
            count, example = notes.get(text, (0, f"{about[0]} in {tar.name}"))
            notes[text] = (count + len(about), example)
    for text, (count, example) in notes.items():
        print(f"note: {count} {text} (for example {example})")
    total = sum(len(samples.keys) for samples in found)
    for task, names in tasks.items():
        if len(names) > 20 and len(names) > total / 2:
            print(
                f"note: task {task!r} has {len(names)} classes for {total} samples; is it a label? "
                "Choose the tasks with --classes"
            )
