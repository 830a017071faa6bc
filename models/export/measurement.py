"""Exported files and the model that they came from, measured on the same photos.

photos = evenly_spaced(load_index("shards/val"), meta, count=256)
results = measure_files({"torch fp32": "runs/a/best", "onnx int8": "out/model.int8.onnx"}, photos, meta.tasks, ...)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from data.bad_samples import most_allowed
from data.errors import DataError
from data.index import Index
from data.index.labels import missing_names
from data.loading.eval_loader import eval_batches
from data.loading.image_sets import ImageSet, ImageSubset, ShardImages
from models.artifact import ArtifactMeta
from models.preprocessing import Normalise
from train.evaluation.comparison import Comparison, compare
from train.evaluation.ensemble import load_ensemble
from train.tracking.console import image_progress

_BATCH = 32


def shard_photos(index: Index, meta: ArtifactMeta, *, option: str) -> ShardImages:
    """The photos of a shard folder whose classes the model knows. DataError naming the option otherwise."""
    common = [task for task in meta.tasks if task in index.tasks]
    if not common:
        raise DataError(
            f"{option} {index.root}: its tasks are {', '.join(index.tasks)}, the model's are {', '.join(meta.tasks)}; "
            "take shards of the data that the model was trained for"
        )
    for task in common:
        if missing := missing_names(index.tasks[task], meta.tasks[task]):
            raise DataError(f"{option} {index.root}: the model does not know {missing}, classes of task {task!r} there")
    return ShardImages(index)


def calibration_batches(photos: ShardImages, meta: ArtifactMeta, *, image_size: int, count: int) -> list[np.ndarray]:
    """At most `count` photos, evenly spaced, as a network takes them: float32 [N, 3, S, S]."""
    normalise = Normalise(meta.preprocessing["mean"], meta.preprocessing["std"])
    batches = eval_batches(
        ImageSubset(photos, count=count),
        sizes=[image_size],
        num_views=1,
        batch_size=_BATCH,
        workers=0,
    )
    return [normalise(batch.image[image_size][0]).contiguous().numpy() for batch in batches if len(batch)]


def measure_files(
    files: Mapping[str, Path],
    photos: ImageSet,
    tasks: Mapping[str, Sequence[str]],
    *,
    image_size: int,
    workers: int,
    what: str,
) -> dict[str, Comparison]:
    """Every file on every photo; the first is the one that the others are compared with.

    tasks: those of the photos. what: for the progress bar. DataError where many photos cannot be used.
    """
    cpu = torch.device("cpu")
    total = int(photos.counts.sum())
    ensembles = {
        name: load_ensemble([str(path)], device=cpu, tasks=tasks, image_size=image_size, precision="fp32")[0]
        for name, path in files.items()
    }
    batches = eval_batches(photos, sizes=[image_size], num_views=1, batch_size=_BATCH, workers=workers)
    with image_progress(what, total=total) as advance:
        results, bad = compare(ensembles, batches, num_samples=total, progress=advance)
    if len(bad) > most_allowed(total) or len(bad) == total:
        named = "; ".join(f"{record.shard} {record.key}: {record.reason}" for record in bad[:3])
        raise DataError(f"{len(bad)} of {total} photos cannot be used ({named}); python -m data.verify lists them")
    return results
