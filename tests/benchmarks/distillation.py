"""What a teacher costs: from the cache, computed in the step, and while it is cached.

The student is MobileNetV2 x0.5 with three embedding heads, the teacher ResNeSt50 with the same heads, both in bf16 on
one thread. A step with the cache reads its logits from memory-mapped sidecars in the same thread, although a run's
loader processes do that beside the training.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import Index, Shard, load_index
from data.loading.batch import Batch
from data.loading.loader import Loader
from data.teacher_logits import LogitManifest, LogitReader, SidecarWriter, TeacherSource, write_manifest
from data.teacher_logits.manifest import MANIFEST_NAME, cached_shards
from data.teacher_logits.record import sidecar_name
from models.student import build_student
from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import median_ratio, timed_in_turn
from tests.benchmarks.photos import photo_shards
from tests.benchmarks.training import TASKS, new_student, our_steps, random_batch
from train.distillation.cache.compute import Stage, teacher_blocks
from train.distillation.loss_terms import TeacherHook, distillation_term, teacher_columns
from train.distillation.teacher import Teacher, TeacherModel
from train.distributed.comm import SingleProcess
from train.distributed.device import keep_freed_memory
from train.losses.objective import LossTerm

_BATCH = 16
_SAMPLES, _VIEWS = 1000, 4  # of the cache
_CLASSES = {task: tuple(f"{task} {number}" for number in range(count)) for task, count in TASKS.items()}
_NUM_CLASSES = sum(TASKS.values())
_CPU = torch.device("cpu")


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    """Changes this process's number of threads: for a process of its own."""
    torch.set_num_threads(1)
    keep_freed_memory()
    index, root = _write_cache(folder / "logits")
    teacher = _new_teacher()
    reader = LogitReader(str(root), index, num_views=_VIEWS, cache=None)
    figures = [*_steps(teacher, reader, size=128, rounds=3 if quick else 40, is_first=True)]
    figures += _steps(teacher, reader, size=224, rounds=3 if quick else 30, is_first=False)
    figures.append(_caching(teacher, folder, rounds=3 if quick else 40))
    size = sum((root / name).stat().st_size for name in (sidecar_name(index.shards[0].name), MANIFEST_NAME))
    overhead = size / (_SAMPLES * _VIEWS) - 2 * _NUM_CLASSES
    note = f"{_SAMPLES:,} samples, {_VIEWS} views, {_NUM_CLASSES} classes, manifest included"
    return [*figures, Figure("cache_overhead_bytes", overhead, target=16, note=note)]


def _steps(teacher: Teacher, reader: LogitReader, *, size: int, rounds: int, is_first: bool) -> list[Figure]:
    batch = random_batch(_BATCH, size=size)
    columns = teacher_columns(tasks=_CLASSES, teacher=_CLASSES)
    terms = [
        distillation_term(task, columns=chosen, loss="kl", temperature=5.0, weight=1.0)
        for task, chosen in columns.items()
    ]
    ways: list[Callable[[], object]] = [
        partial(_our_steps(batch, terms, lambda part: replace(part, teacher=_read(reader))), 1),
        partial(_our_steps(batch, terms, TeacherHook(teacher, ["0"])), 1),
        partial(_our_steps(batch, [], None), 1),
        partial(_bare_forward, teacher, batch),
    ]
    for way in ways:
        way()
    cached, online, plain, forward = timed_in_turn(ways, rounds=rounds).T
    note = f"{size} px, batch {_BATCH}, {rounds} pairs; cached {np.median(cached) * 1e3:.0f} ms a step"
    ratio, interval = median_ratio(online, cached)
    figures = [Figure(f"kd_online_vs_cached_{size}", ratio, target=2.5, at_least=True, interval=interval, note=note)]
    if is_first:
        for name, one, other in (("kd_cached_vs_plain", cached, plain), ("kd_online_vs_sum", online, plain + forward)):
            ratio, interval = median_ratio(one, other)
            figures.append(Figure(name, ratio, target=1.05, interval=interval, note=note))
    return figures


def _our_steps(batch: Batch, terms: list[LossTerm], stage: Callable[[Batch], Batch] | None) -> Callable[[int], None]:
    return our_steps(
        new_student(),
        batch,
        SingleProcess(),
        precision="bf16",
        more_terms=terms,
        batch_hooks=[stage] if stage is not None else [],
    )


def _read(reader: LogitReader) -> torch.Tensor:
    rows = np.random.default_rng(0).integers(0, _SAMPLES, _BATCH)
    return torch.from_numpy(np.stack([reader.read(0, int(row), 1) for row in rows]))


def _bare_forward(teacher: Teacher, batch: Batch) -> None:
    """The network alone: no copying of logits, no search for what is not finite."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        teacher.models[0](teacher.normalise[0](batch.image))


def _caching(teacher: Teacher, folder: Path, *, rounds: int) -> Figure:
    """Photos from disk through a loader process, against the network alone on one batch; wall-clock seconds."""
    index = load_index(photo_shards(folder / "photos", samples_per_shard=_BATCH))
    pixels = ImageTransform(size=128, operations=POLICIES["standard"])
    blocks: Iterator[object] = teacher_blocks(
        index,
        [Stage(0, 10, tuple(number for number in range(len(index.shards)) if index.shards[number].count == _BATCH))],
        loader=lambda walk: Loader(index, walk, pixels, workers=1),
        teacher=teacher,
        num_classes=_NUM_CLASSES,
        batch_size=_BATCH,
        device=_CPU,
        progress=lambda count: None,
        stop_requested=lambda: False,
    )
    batch = random_batch(_BATCH, size=128)
    next(blocks)
    seconds = np.empty((rounds, 2))
    for number in range(rounds):
        for way, work in enumerate((partial(_bare_forward, teacher, batch), partial(next, blocks))):
            begin = time.perf_counter()
            work()
            seconds[number, way] = time.perf_counter() - begin
    ratio, interval = median_ratio(seconds[:, 0], seconds[:, 1])
    rate = _BATCH / np.median(seconds[:, 1])
    note = f"128 px, batch {_BATCH}, {rounds} pairs; {rate:.0f} photos/s, decoded by one loader process"
    return Figure("cache_vs_forward", ratio, target=0.9, at_least=True, interval=interval, note=note)


def _write_cache(root: Path) -> tuple[Index, Path]:
    index = Index("nowhere", _CLASSES, (Shard("000000.tar", _SAMPLES, 1, "0", 0),))
    root.mkdir()
    writer = SidecarWriter(root, shard_name="000000.tar", num_samples=_SAMPLES, num_classes=_NUM_CLASSES)
    for view in range(_VIEWS):
        writer.append(np.random.default_rng(view).normal(size=(_SAMPLES, _NUM_CLASSES)).astype(np.float16))
    manifest = LogitManifest(
        tasks=_CLASSES,
        teachers=dict.fromkeys(TASKS, TeacherSource("teacher", "0", (0.5,) * 3, (0.2,) * 3)),
        precision="bf16",
        image_size=128,
        operations=POLICIES["standard"],
        augment_seed=0,
        max_pixels=1,
        shards=cached_shards(index),
        views=_VIEWS,
    )
    write_manifest(root, manifest)
    return index, root


def _new_teacher() -> Teacher:
    torch.manual_seed(0)
    model = build_student(backbone="resnest50d", head={"kind": "multi-embedding", "width": 512}, tasks=TASKS)
    return Teacher([TeacherModel(model, tuple(TASKS), (0.5,) * 3, (0.2,) * 3)], _CLASSES, device=_CPU, precision="bf16")
