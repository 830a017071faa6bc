"""Batches of one rank for training: each sample in one augmented view, in the promised order, with a teacher's data.

transform = ImageTransform(size=224, operations=POLICIES["standard"])
loader = Loader(index, sampler, transform, rank=0, num_ranks=2, workers=4)
for batch in loader.batches(start=(3, 17), stop_epoch=60): ...
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data.images.transform import ImageTransform
from data.index import Index
from data.loading.batch import Batch, JoinedStep
from data.loading.image_sets import ShardImages
from data.loading.step_memory import Arrays, Layout, step_bytes
from data.loading.step_plan import RenderSample, Sample, StepPlan
from data.sampling.sampler import Run, Sampler
from data.sampling.view_schedule import ViewSchedule
from data.teacher_logits import LogitReader, load_manifest


@dataclass(frozen=True)
class TeacherData:
    """What a batch brings for a teacher. cache: folder or URL of its logits. transform: how it sees the same views,
    where that is not how the student does."""

    cache: str | None = None
    transform: ImageTransform | None = None


_NEW_VIEWS, _NO_TEACHER = ViewSchedule(), TeacherData()


@dataclass(frozen=True)
class TrainPlan(StepPlan[Batch]):
    """Arrays of a step: image and, where it has them, teacher_image and teacher (logits from the cache)."""

    images: ShardImages
    transform: ImageTransform
    view_schedule: ViewSchedule
    teacher: TeacherData
    num_logits: int | None  # columns of the teacher's cache

    @property
    def layout(self) -> Layout:
        rows = self.num_rows
        layout: dict[str, tuple[tuple[int, ...], type]] = {"image": (_image_shape(rows, self.transform), np.uint8)}
        if self.teacher.transform is not None:
            layout["teacher_image"] = (_image_shape(rows, self.teacher.transform), np.uint8)
        if self.num_logits is not None:
            layout["teacher"] = ((rows, self.num_logits), np.float16)
        return layout

    def used(self, at: tuple[int, int]) -> set[str]:
        """The arrays that a step fills. Logits from the cache need no image for the teacher."""
        _, is_fresh = self.view_schedule.at(*at)
        if self.num_logits is not None and not is_fresh:
            return {"image", "teacher"}
        return {"image", "teacher_image"} if self.teacher.transform is not None else {"image"}

    def renderer(self) -> "_ViewRenderer":
        return _ViewRenderer(self)

    def batch(self, joined: JoinedStep, arrays: Arrays) -> Batch:
        rows = {name: torch.from_numpy(arrays[name][joined.kept]) for name in self.used((joined.epoch, joined.step))}
        return Batch(
            epoch=joined.epoch,
            step=joined.step,
            image=rows["image"],
            label=joined.label,
            valid={task: label >= 0 for task, label in joined.label.items()},
            key=joined.key,
            index=torch.from_numpy(joined.index),
            row=torch.from_numpy(joined.row),
            bad=joined.bad,
            teacher_image=rows.get("teacher_image"),
            teacher=rows.get("teacher"),
        )


class _ViewRenderer:
    """One view of a sample, for the student and for the teacher, or the teacher's logits of it."""

    def __init__(self, plan: TrainPlan) -> None:
        self._plan = plan
        self._logits: LogitReader | None = None
        if plan.teacher.cache is not None:
            self._logits = LogitReader(
                plan.teacher.cache,
                plan.images.index,
                num_views=plan.view_schedule.num_views,
                cache=plan.images.range_cache,
            )

    def prefetch(self, epoch: int, runs: list[Run]) -> None:
        if self._logits is not None:
            self._logits.prefetch(runs, view=epoch % self._plan.view_schedule.num_views)

    def of_step(self, at: tuple[int, int], arrays: Arrays) -> RenderSample:
        plan, used, logits = self._plan, self._plan.used(at), self._logits
        view, _ = plan.view_schedule.at(*at)
        images = [(plan.transform, arrays["image"])]
        if "teacher_image" in used and plan.teacher.transform is not None:
            images.append((plan.teacher.transform, arrays["teacher_image"]))

        def render(data: bytes, sample: Sample) -> None:
            for transform, out in images:
                transform.make(data, shard=sample.shard, key=sample.key, view=view, out=out[sample.place])
            if "teacher" in used and logits is not None:
                arrays["teacher"][sample.place] = logits.read(*sample.index, view)

        return render


def _image_shape(rows: int, transform: ImageTransform) -> tuple[int, ...]:
    return rows, transform.size, transform.size, 3


class Loader:
    """A rank's batches; see the module's docstring.

    Args:
        workers: processes that decode, 0 for this one.
        sharers: how many ranks of this machine do the same.
        cache: folder and bytes of the cache for what is read from elsewhere.
        view_schedule: which view a step sees; by default every epoch has its own.
    """

    def __init__(
        self,
        index: Index,
        sampler: Sampler,
        transform: ImageTransform,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        workers: int = 0,
        sharers: int = 1,
        cache: tuple[str, int] | None = None,
        view_schedule: ViewSchedule = _NEW_VIEWS,
        teacher: TeacherData = _NO_TEACHER,
    ) -> None:
        self.index, self.sampler, self.transform = index, sampler, transform
        self.rank, self.num_ranks, self.cache = rank, num_ranks, cache
        self.workers, self.sharers = workers, sharers
        self.view_schedule, self.teacher = view_schedule, teacher
        # Read here, before there are processes: what reads remote files must not be shared with them.
        self._num_logits = None if teacher.cache is None else load_manifest(teacher.cache).num_classes

    def batches(self, *, start: tuple[int, int] = (0, 0), stop_epoch: int = 1) -> Iterator[Batch]:
        """Batches from (epoch, step) to the end of epoch `stop_epoch - 1`, without a pause between epochs. DataError
        when the data as a whole cannot be read on, LoaderLost when a worker process is gone or a batch is not whole.
        Who keeps batches gets copies of their images in the end: their memory goes round."""
        return self.plan(start=start, stop_epoch=stop_epoch).batches(workers=self.workers, sharers=self.sharers)

    def batch_bytes(self) -> int:
        """Memory of the arrays of one batch, which loader processes share with this one."""
        return step_bytes(self.plan().layout)

    def plan(self, *, start: tuple[int, int] = (0, 0), stop_epoch: int = 1) -> TrainPlan:
        """What `batches` does, for whoever takes it apart."""
        return TrainPlan(
            images=ShardImages(self.index, cache=self.cache),
            sampler=self.sampler,
            rank=self.rank,
            num_ranks=self.num_ranks,
            start_at=start,
            stop_epoch=stop_epoch,
            transform=self.transform,
            view_schedule=self.view_schedule,
            teacher=self.teacher,
            num_logits=self._num_logits,
        )
