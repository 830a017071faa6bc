"""Indexing tars that other tools wrote: every image checked, every label parsed, what is odd told in words.

Use: `index_tars([Path("shards/train/000.tar")], tasks=None, cls_task="class", workers=4)`
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from data.index.labels import MINUS_PLUS, check_names, class_positions, infer_classes, to_numbers
from data.index.shard import ShardIndex, idx_name, pack_keys, shard_index_to_bytes
from data.names import class_name
from data.shards.carried_corrections import carry_corrections
from data.shards.index_limits import NO_LIMITS, Limits, image_suffixes, refuse_no_samples, refuse_unusable
from data.shards.process_pool import map_in_processes
from data.shards.tar_groups import SPLIT_AT_LAST_DOT
from data.shards.tar_samples import TarSamples, read_tar_samples


@dataclass(frozen=True)
class Members:
    """image, label: as in LabelRule; "" where they are found by themselves."""

    image: str = ""
    label: str = ""


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
    members: Members = Members(),
    limits: Limits = NO_LIMITS,
    workers: int = 1,
) -> Path:
    """Index `tars` (all of one folder) and print what was found; returns the path of index.json. Labels that were
    corrected in an index that is there already are kept. DataError where the samples are outside `limits`."""
    folder = tars[0].parent
    asked = LabelRule(cls_task, tasks is not None, max_pixels, members.image, members.label, first_dot=True)
    found = list(map_in_processes(_read_tar, tars, shared=asked, workers=workers, what="Reading tars"))
    samples = [samples for samples, _ in found]
    refuse_no_samples(tars, samples, asked)
    tasks = tasks or infer_classes(labels for one in samples for labels in one.labels)
    check_names(tasks)
    _print_notes(tars, samples, tasks)
    rows = [to_rows(one, tasks) for one in samples]
    refuse_unusable(tars, samples, rows, limits=limits, rule=asked)
    rows = carry_corrections(folder, [tar.name for tar in tars], rows, tasks)
    # Where nothing hangs on it, the rule is that of indexes of before.
    rule = replace(asked, first_dot=any(one.needs_first_dot for one in samples))
    shards, bad = [], []
    with staged(folder) as stage:
        for tar, one, (_, sha256) in zip(tars, rows, found, strict=True):
            data = shard_index_to_bytes(one)
            (stage / idx_name(tar.name)).write_bytes(data)
            shards.append(Shard(tar.name, len(one), tar.stat().st_size, sha256, google_crc32c.value(data)))
            bad += [(tar.name, one.key(number), reason) for number, reason in sorted(one.bad.items())]
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


def _read_tar(rule: LabelRule, tar: Path) -> tuple[TarSamples, str]:
    samples = read_tar_samples(tar, rule=rule)
    with tar.open("rb") as file:
        return samples, hashlib.file_digest(file, "sha256").hexdigest()


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
        way_out = (
            f"; --image SUFFIX takes one of each key: {image_suffixes(found)}" if text == SPLIT_AT_LAST_DOT else ""
        )
        print(f"note: {count} {text} (for example {example}){way_out}")
    total = sum(len(samples.keys) for samples in found)
    for task, names in tasks.items():
        if names == MINUS_PLUS:
            print(f"note: task {task!r} is labelled -1 and 1: these are its two classes")
        if len(names) > 20 and len(names) > total / 2:
            print(
                f"note: task {task!r} has {len(names)} classes for {total} samples; is it a label? "
                "Choose the tasks with --classes"
            )
