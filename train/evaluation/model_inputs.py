"""Images as a saved model takes them, in batches with their labels; pruning looks at a few of them.

for images, labels in model_inputs(image_set, meta, size=224, batch_size=64, max_batches=8): ...
"""

import sys
from collections.abc import Iterator, Mapping

from torch import Tensor

from data.errors import DataError
from data.index import match_classes
from data.index.labels import MISSING, missing_names
from data.loading.eval_loader import eval_batches
from data.loading.image_sets import FileImages, ImageSet, ShardImages
from models.artifact import ArtifactMeta
from models.preprocessing import Normalise


def model_inputs(
    image_set: ImageSet,
    meta: ArtifactMeta,
    *,
    size: int,
    batch_size: int,
    max_batches: int,
    workers: int = 0,
) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
    """(images float [N, 3, size, size], {task: labels int64 [N], -1 where missing}) in the order of the set; no
    augmentation. Images that cannot be used are left out and named on stderr."""
    normalise = Normalise(meta.preprocessing["mean"], meta.preprocessing["std"])
    batches = eval_batches(image_set, sizes=[size], num_views=1, batch_size=batch_size, workers=workers)
    for number, batch in enumerate(batches):
        if number == max_batches:
            break
        for record in batch.bad:
            print(f"left out: {record.shard} {record.key}: {record.reason}", file=sys.stderr)
        if len(batch):
            yield (
                normalise(batch.image[size][0]),
                {task: batch.label[task] for task in meta.tasks if task in batch.label},
            )


def labelled_images(image_set: ShardImages | FileImages, meta: ArtifactMeta) -> ShardImages:
    """The images with classes numbered as the model's, matched by name. Raises DataError unless the set has all tasks
    of the model, no sample of another class, and a label."""
    if not isinstance(image_set, ShardImages):
        raise DataError(
            f"{image_set.folder}: photos without labels; name a shard folder (python -m data.build makes one)"
        )
    index = match_classes(image_set.index, meta.tasks, of="the model")
    if missing := missing_names(meta.tasks, index.tasks):
        raise DataError(f"{index.root}: has no labels of {missing}, tasks of the model")
    columns = [list(index.tasks).index(task) for task in meta.tasks]
    if not any((index.load_shard(number).labels[:, columns] != MISSING).any() for number in range(len(index.shards))):
        raise DataError(f"{index.root}: none of its {index.num_samples} samples has a label")
    return ShardImages(index)
