"""Exported files and the model that they came from, measured on the same images, and whether they are one function.

images = shard_images(load_index("shards/val"), meta, option="--data")
results = measure_files({"torch fp32": path, "onnx int8": small}, images, images.index.tasks, ...)
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
from models.errors import ModelError
from models.formats.loading import load_model
from models.preprocessing import Normalise
from models.student import Student
from train.evaluation.comparison import Comparison, compare
from train.evaluation.ensemble import load_ensemble
from train.tracking.console import image_progress

_BATCH = 32
_PARITY_LIMIT = 1e-3  # of the largest number; float sums in another order stay below 1e-5


def shard_images(index: Index, meta: ArtifactMeta, *, option: str) -> ShardImages:
    """The images of a shard folder whose classes the model knows. DataError naming the option otherwise."""
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


def calibration_batches(images: ShardImages, meta: ArtifactMeta, *, image_size: int, count: int) -> list[np.ndarray]:
    """At most `count` images, evenly spaced, as a network takes them: float32 [N, 3, S, S]."""
    normalise = Normalise(meta.preprocessing["mean"], meta.preprocessing["std"])
    batches = eval_batches(
        ImageSubset(images, count=count),
        sizes=[image_size],
        num_views=1,
        batch_size=_BATCH,
        workers=0,
    )
    return [normalise(batch.image[image_size][0]).contiguous().numpy() for batch in batches if len(batch)]


def measure_files(
    files: Mapping[str, Path],
    images: ImageSet,
    tasks: Mapping[str, Sequence[str]],
    *,
    image_size: int,
    workers: int,
    what: str,
) -> dict[str, Comparison]:
    """Every file on every image; the first is the one that the others are compared with.

    tasks: those of the images. what: for the progress bar. DataError where many cannot be used.
    """
    cpu = torch.device("cpu")
    total = int(images.counts.sum())
    ensembles = {
        name: load_ensemble([str(path)], device=cpu, tasks=tasks, image_size=image_size, precision="fp32")[0]
        for name, path in files.items()
    }
    batches = eval_batches(images, sizes=[image_size], num_views=1, batch_size=_BATCH, workers=workers)
    with image_progress(what, total=total) as advance:
        results, bad = compare(ensembles, batches, num_samples=total, progress=advance)
    if len(bad) > most_allowed(total) or len(bad) == total:
        named = "; ".join(f"{record.shard} {record.key}: {record.reason}" for record in bad[:3])
        raise DataError(f"{len(bad)} of {total} photos cannot be used ({named}); python -m data.verify lists them")
    return results


def require_parity(name: str, difference: Mapping[str, float], largest: Mapping[str, float]) -> None:
    """difference: task -> largest |own - torch's| logit (or log-probability); largest: task -> largest of torch's.
    AssertionError naming file and task: a wrong graph is a mistake of the exporter, not of the user."""
    for task, value in difference.items():
        limit = _PARITY_LIMIT * max(1.0, largest[task])
        if not value <= limit:
            raise AssertionError(f"{name}: task {task!r} differs from torch by {value:.2g}, allowed are {limit:.2g}")


def require_same_logits(model: Student, path: str | Path, *, image_size: int) -> None:
    """On a few images of noise, for want of photos. path: a float file. AssertionError as above; ModelError where it
    is the model's own logits that are not finite."""
    path = Path(path)
    loaded = load_model(path)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, image_size, image_size, 3), dtype=torch.uint8, generator=draw)
    mean, std = (torch.tensor(loaded.meta.preprocessing[name]) for name in ("mean", "std"))
    images = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model(images)
        if not all(logits.isfinite().all() for logits in expected.values()):
            raise ModelError(f"{loaded.meta.path}: the model's answers to noise are not numbers (NaN or infinity)")
        given = loaded.model(pixels if loaded.takes_pixels else images)
    difference = {task: (given[task] - logits).abs().max().item() for task, logits in expected.items()}
    require_parity(path.name, difference, {task: logits.abs().max().item() for task, logits in expected.items()})
