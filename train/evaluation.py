"""Measures a model on a shard set, exact over any number of ranks.

result = measure(predict, batches, comm, num_samples=500, num_classes={"age": 5}, device=device)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from data.batch import BadRecord, require_all
from train.comm import Comm
from train.metrics import TaskCounts


class Labelled(Protocol):
    """What is asked of a batch; only `predict` looks at its images."""

    @property
    def label(self) -> dict[str, Tensor]: ...

    @property
    def bad(self) -> list[BadRecord]: ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Self: ...


AnyBatch = TypeVar("AnyBatch", bound=Labelled)


@dataclass(frozen=True)
class Evaluation:
    """What was measured, the same on every rank."""

    tasks: dict[str, dict[str, float]]  # task -> measure -> value
    confusion: dict[str, Tensor]  # task -> float64 [C, C], rows are the true classes
    num_bad: int  # over all ranks
    bad: list[BadRecord]  # of this rank

    @property
    def mean_top1(self) -> float:
        """Over the tasks that have a labelled sample."""
        values = [report["top1"] for report in self.tasks.values() if report["count"]]
        return sum(values) / len(values) if values else float("nan")

    def flat(self) -> dict[str, float]:
        """`task.measure` -> value, and `mean_top1`."""
        flat = {f"{task}.{name}": value for task, report in self.tasks.items() for name, value in report.items()}
        return {**flat, "mean_top1": self.mean_top1}


@torch.inference_mode()
def measure(
    predict: Callable[[AnyBatch], dict[str, Tensor]],
    batches: Iterable[AnyBatch],
    comm: Comm,
    *,
    num_samples: int,
    num_classes: dict[str, int],
    device: torch.device,
    progress: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Every rank measures its part of the samples; one sum over the ranks at the end.

    predict: a batch on the device -> {task: logits [N, C]}. num_samples: of all ranks, good and bad; LoaderLost when
    another number came.
    """
    counts = {task: TaskCounts(classes, device) for task, classes in num_classes.items()}
    bad: list[BadRecord] = []
    num_good = 0
    for batch in batches:
        bad += batch.bad
        num_good += len(batch)
        if len(batch):
            on_device = batch.to(device)
            logits = predict(on_device)
            for task, count in counts.items():
                count.add(logits[task], on_device.label[task])
        progress(len(batch))
    seen = torch.tensor([num_good, len(bad)], dtype=torch.float64)
    flat = torch.cat([*(count.flat.cpu() for count in counts.values()), seen])
    comm.allreduce(flat, name="evaluation")
    require_all(int(flat[-2:].sum()), num_samples, what="measuring")
    parts = flat[:-2].split([len(count.flat) for count in counts.values()])
    for count, part in zip(counts.values(), parts, strict=True):
        count.flat = part
    return Evaluation(
        tasks={task: count.report() for task, count in counts.items()},
        confusion={task: count.confusion for task, count in counts.items()},
        num_bad=int(flat[-1]),
        bad=bad,
    )
