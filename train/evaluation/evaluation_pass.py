"""The one pass of models over a set of images, whatever is made of their outputs: measures, comparisons, predictions.

batches = rank_batches(images, comm, sizes=[224], batch_size=64, workers=None)
seen = run_evaluation({"a": ensemble}, batches, [accumulator], num_samples=500, what="measuring", device=device)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.loading.batch import BadRecord, require_all
from data.loading.eval_loader import EvalBatch, eval_batches
from data.loading.image_sets import ImageSet
from train.distributed.comm import Comm
from train.distributed.device import num_decoders

Predict = Callable[[EvalBatch], Mapping[str, Tensor]]  # a batch on the device -> task -> log-probabilities [N, C]
Outputs = Mapping[str, Mapping[str, Tensor]]  # model -> task -> log-probabilities [N, C]


class Accumulator(ABC):
    """What is kept of a pass, batch by batch."""

    @property
    def sums(self) -> Sequence[Tensor]:
        """float64 numbers that the ranks add up after the last batch, in place. None where one process sees it all."""
        return ()

    @abstractmethod
    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        """Every batch in turn, on the device; outputs is empty where no sample of the batch could be used."""


@dataclass(frozen=True)
class SeenSamples:
    """num_good, num_bad: of all ranks. bad: of this rank, the samples that could not be used."""

    num_good: int
    num_bad: int
    bad: list[BadRecord]


def rank_batches(
    images: ImageSet,
    comm: Comm,
    *,
    sizes: Sequence[int],
    num_views: int = 1,
    batch_size: int,
    workers: int | None,
    whole_batches: bool = False,
) -> Iterator[EvalBatch]:
    """This rank's part of the images. batch_size: per rank; workers: decoding processes, None for as many as the rank
    has cores for; whole_batches: see `eval_batches`. Raises DataError, LoaderLost."""
    return eval_batches(
        images,
        sizes=sizes,
        num_views=num_views,
        batch_size=batch_size,
        workers=num_decoders(comm) if workers is None else workers,
        rank=comm.rank,
        num_ranks=comm.size,
        sharers=comm.local_size,
        whole_batches=whole_batches,
    )


@torch.inference_mode()
def run_evaluation(
    models: Mapping[str, Predict],
    batches: Iterable[EvalBatch],
    accumulators: Sequence[Accumulator],
    *,
    num_samples: int,
    what: str,
    device: torch.device,
    comm: Comm | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> SeenSamples:
    """Every model on every batch of this rank, then one sum over the ranks. The accumulators keep what is of interest.

    num_samples: of all ranks, good and bad; LoaderLost, which says `what` was going on, when another number came.
    comm: of the ranks that share the samples; without it this process has them all. progress: called with the samples
    of a batch.
    """
    bad: list[BadRecord] = []
    num_good = 0
    for batch in batches:
        bad += batch.bad
        num_good += len(batch)
        outputs: Outputs = {}
        if len(batch):
            batch = batch.to(device)
            outputs = {name: predict(batch) for name, predict in models.items()}
        for accumulator in accumulators:
            accumulator.add(batch, outputs)
        progress(len(batch) + len(batch.bad))
    seen = torch.tensor([num_good, len(bad)], dtype=torch.float64)
    if comm is not None:
        _add_up([*(tensor for accumulator in accumulators for tensor in accumulator.sums), seen], comm)
    num_good, num_bad = (int(count) for count in seen)
    require_all(num_good + num_bad, num_samples, what=what)
    return SeenSamples(num_good, num_bad, bad)


def _add_up(tensors: Sequence[Tensor], comm: Comm) -> None:
    """Each becomes its sum over the ranks, all in one allreduce."""
    flat = torch.cat([tensor.flatten().cpu() for tensor in tensors])
    comm.allreduce(flat, name="evaluation")
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))
