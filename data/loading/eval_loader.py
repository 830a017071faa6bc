"""Batches of images, each rendered at one or more sizes and in one or more views, for evaluation and prediction.

    for batch in eval_batches(images, sizes=[224], num_views=8, batch_size=64, workers=1): batch.image[224]

An image is read once; the order is that of the index, and the batches do not depend on the number of workers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.images import MAX_PIXELS
from data.images.augment import evaluation_view
from data.images.decode import image_size
from data.images.transform import render_bytes
from data.loading.batch import BadRecord, JoinedStep, copy_to
from data.loading.image_sets import ImageSet
from data.loading.step_memory import Arrays, Layout
from data.loading.step_plan import RenderSample, Sample, StepPlan
from data.sampling.sampler import EvalSampler, Run


@dataclass(frozen=True)
class EvalBatch:
    """One rank's images of one step."""

    image: dict[int, Tensor]  # size -> uint8 [num_views, N, size, size, 3]
    label: dict[str, Tensor]  # task -> int64 [N], -1 where the label is missing
    key: list[str]
    row: list[int]  # place among all images of the step
    bad: list[BadRecord]

    def __len__(self) -> int:
        return len(self.key)

    def to(self, device: torch.device) -> "EvalBatch":
        """Images and labels on `device`; the copy overlaps with compute."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            image={size: copy_to(device, views) for size, views in self.image.items()},
            label={task: copy_to(device, label) for task, label in self.label.items()},
        )


@dataclass(frozen=True)
class _EvalPlan(StepPlan[EvalBatch]):
    """Arrays of a step: those of each size, by its name."""

    sizes: Sequence[int]
    num_views: int
    max_pixels: int

    @property
    def layout(self) -> Layout:
        return {str(size): ((self.num_views, self.num_rows, size, size, 3), np.uint8) for size in self.sizes}

    def renderer(self) -> "_EvalRenderer":
        return _EvalRenderer(self.max_pixels)

    def batch(self, joined: JoinedStep, arrays: Arrays) -> EvalBatch:
        return EvalBatch(
            image={int(size): torch.from_numpy(views[:, joined.kept]) for size, views in arrays.items()},
            label=joined.label,
            key=joined.key,
            row=joined.row.tolist(),
            bad=joined.bad,
        )


@dataclass(frozen=True)
class _EvalRenderer:
    """Every view at every size."""

    max_pixels: int

    def prefetch(self, epoch: int, runs: list[Run]) -> None:
        return None

    def of_step(self, at: tuple[int, int], arrays: Arrays) -> RenderSample:
        def render(data: bytes, sample: Sample) -> None:
            height, width = image_size(data)
            for views in arrays.values():
                for number, out in enumerate(views[:, sample.place]):
                    params = evaluation_view(number, height=height, width=width, shard=sample.shard, key=sample.key)
                    size, limit = len(out), self.max_pixels
                    render_bytes(data, params, height=height, width=width, size=size, max_pixels=limit, out=out)

        return render


def eval_batches(
    images: ImageSet,
    *,
    sizes: Sequence[int],
    num_views: int,
    batch_size: int,
    workers: int,
    rank: int = 0,
    num_ranks: int = 1,
    sharers: int = 1,
    max_pixels: int = MAX_PIXELS,
    whole_batches: bool = False,
) -> Iterator[EvalBatch]:
    """Every image once, over all ranks. batch_size: images per rank and step; workers=0 decodes in this process;
    sharers: ranks that share this machine's memory; max_pixels: larger images are bad; whole_batches: every rank's
    batches are those that one process would have. Raises DataError, LoaderLost."""
    plan = _EvalPlan(
        images=images,
        sampler=EvalSampler(images.counts, batch_size=batch_size, num_ranks=num_ranks, whole_batches=whole_batches),
        rank=rank,
        num_ranks=num_ranks,
        start_at=(0, 0),
        stop_epoch=1,
        sizes=sizes,
        num_views=num_views,
        max_pixels=max_pixels,
    )
    return plan.batches(workers=workers, sharers=sharers)
