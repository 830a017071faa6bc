"""One rank of a pair that tests/benchmarks/two_ranks.py drives: makes steps when told to, and says how long they took.

Started as `python -m tests.benchmarks.rank KIND SOCKET`; KIND is one of KINDS.
"""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Client

import torch

from data.loading.batch import Batch
from tests.benchmarks.training import bare_optimizer, bare_steps, new_student, our_steps, random_batch
from train.distributed.comm import start
from train.distributed.device import keep_freed_memory

SIZE, BATCH = 64, 16  # pixels, samples a rank
Steps = Callable[[int], None]


def main() -> None:
    kind, address = sys.argv[1:]
    torch.set_num_threads(1)
    keep_freed_memory()  # as train.main does; all kinds have the benefit
    rank, ways = KINDS[kind]()
    for steps in ways.values():
        steps(3)  # warm-up; DDP also lays out its buckets anew after the first
    with Client(address) as parent:
        parent.send((kind, rank, os.getpid(), list(ways)))
        while (order := parent.recv()) is not None:
            way, count = order
            begin = time.perf_counter()
            ways[way](count)
            parent.send((time.perf_counter() - begin) / count)


def _slimheads() -> tuple[int, dict[str, Steps]]:
    comm = start()
    return comm.rank, {"ours": our_steps(new_student(), _batch_of(comm.rank), comm)}


def _one_bucket() -> tuple[int, dict[str, Steps]]:
    comm = start()  # in ranks of its own: the names of its messages are those of ours
    return comm.rank, {"one bucket": our_steps(new_student(), _batch_of(comm.rank), comm, num_buckets=1)}


def _horovod() -> tuple[int, dict[str, Steps]]:
    import horovod.torch as hvd

    hvd.init()
    model = new_student().to(memory_format=torch.contiguous_format)  # it refuses channels_last gradients
    optimizer = hvd.DistributedOptimizer(bare_optimizer(model), named_parameters=model.named_parameters())
    return hvd.rank(), {"DistributedOptimizer": bare_steps(model, _batch_of(hvd.rank()), optimizer)}


def _ddp() -> tuple[int, dict[str, Steps]]:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    ways = {}
    for name, broadcast_buffers in (("DDP", True), ("DDP without buffers", False)):
        model = torch.nn.parallel.DistributedDataParallel(
            new_student(), gradient_as_bucket_view=True, broadcast_buffers=broadcast_buffers
        )
        ways[name] = bare_steps(model, _batch_of(rank), bare_optimizer(model))
    return rank, ways


KINDS: dict[str, Callable[[], tuple[int, dict[str, Steps]]]] = {
    "slimheads": _slimheads,
    "one-bucket": _one_bucket,
    "horovod": _horovod,
    "ddp": _ddp,
}


def _batch_of(rank: int) -> Batch:
    return random_batch(BATCH, size=SIZE, seed=rank)


if __name__ == "__main__":
    main()
