"""The ranks and how they talk: the only module that imports Horovod. Alone, every answer is the one-process answer.

    comm = start()
    handle = comm.allreduce_async(flat, name="bucket0"); comm.wait(handle)

Every collective has a name: unnamed ones are numbered per process, and ranks that count differently hang.
"""

import json
import os
import time
from typing import Any, Protocol

import torch

from launch.horovod.compatibility import HorovodError, check_horovod_matches_torch
from train.distributed.flight_recorder import FlightRecorder
from train.distributed.launcher import promised_rank, promised_size
from train.errors import CommError, RankLost, RanksDiverged

_POLL_SECONDS = 1e-4


class Comm(Protocol):
    rank: int
    size: int
    local_rank: int
    local_size: int
    flight_recorder: FlightRecorder  # of the collectives that this rank started

    def allreduce_async(self, tensor: torch.Tensor, *, name: str) -> Any:
        """Start summing a tensor over the ranks, in place."""
        ...

    def wait(self, handle: Any) -> None:
        """Until an asynchronous collective is done. Raises RankLost or RanksDiverged."""
        ...

    def allreduce(self, tensor: torch.Tensor, *, name: str) -> torch.Tensor:
        """The sum over the ranks, in place."""
        ...

    def allgather_object(self, value: Any, *, name: str) -> list[Any]:
        """JSON-able values of all ranks, in rank order."""
        ...

    def close(self) -> None: ...


class SingleProcess:
    """One rank: sums are the values themselves."""

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def __init__(self) -> None:
        self.flight_recorder = FlightRecorder()

    def allreduce_async(self, tensor: torch.Tensor, *, name: str) -> Any:
        return None

    def wait(self, handle: Any) -> None:
        return None

    def allreduce(self, tensor: torch.Tensor, *, name: str) -> torch.Tensor:
        return tensor

    def allgather_object(self, value: Any, *, name: str) -> list[Any]:
        return [value]

    def close(self) -> None:
        return None


class HorovodComm:
    """Horovod 0.28 with Gloo or NCCL."""

    def __init__(self) -> None:
        # Horovod's fusion packs whatever happens to be ready, so sums would follow timing; our buckets are the fusion.
        os.environ["HOROVOD_FUSION_THRESHOLD"] = "0"
        # At the default 1 ms the idle background loop eats a core.
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "5")
        try:
            # One that was built for another torch fails in ways that nobody can read, so it is not even loaded.
            check_horovod_matches_torch(torch_version=torch.__version__)
            import horovod.torch as hvd
        except HorovodError as error:
            raise CommError(str(error)) from error
        except ImportError as error:
            raise CommError(f"a launcher started this process, but Horovod cannot be loaded: {error}") from error
        self._hvd = hvd
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self.flight_recorder = FlightRecorder()

    def allreduce_async(self, tensor: torch.Tensor, *, name: str) -> Any:
        self.flight_recorder.record(name, tensor)
        try:
            return self._hvd.allreduce_async_(tensor, op=self._hvd.Sum, name=name)
        except self._lost() as error:
            raise RankLost(str(error)) from error

    def wait(self, handle: Any) -> None:
        # Horovod's own wait spins, and so takes the core from the thread that moves the bytes: on two cores, an
        # allreduce of four numbers then takes 5 ms and more instead of one cycle.
        try:
            with self.flight_recorder.wait():
                while not self._hvd.poll(handle):
                    time.sleep(_POLL_SECONDS)
                self._hvd.synchronize(handle)
        except self._lost() as error:
            # Horovod compares what the ranks ask for under one name, and tells a difference in this way.
            kind = RanksDiverged if "Mismatched" in str(error) else RankLost
            raise kind(str(error)) from error

    def allreduce(self, tensor: torch.Tensor, *, name: str) -> torch.Tensor:
        self.wait(self.allreduce_async(tensor, name=name))
        return tensor

    def allgather_object(self, value: Any, *, name: str) -> list[Any]:
        # JSON instead of Horovod's own object gather, which unpickles what it receives.
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        self.flight_recorder.record(name, torch.empty(0))
        try:
            with self.flight_recorder.wait():
                sizes = self._hvd.allgather(torch.tensor([len(data)]), name=f"{name}.size")
                joined = self._hvd.allgather(data, name=f"{name}.data")
        except self._lost() as error:
            raise RankLost(str(error)) from error
        return [json.loads(bytes(part.numpy())) for part in joined.split(sizes.tolist())]

    def close(self) -> None:
        self._hvd.shutdown()

    @staticmethod
    def _lost() -> type[Exception]:
        from horovod.common.exceptions import HorovodInternalError

        return HorovodInternalError


def start() -> Comm:
    """Join the ranks that the launcher promised. Raises CommError when what Horovod finds is something else."""
    size, variable = promised_size(os.environ)
    if size == 1 and variable != "HOROVOD_SIZE":
        return SingleProcess()
    if promised_rank(os.environ) is None:
        raise CommError(
            f"{variable}={size} promises {size} ranks, but Horovod was not told of them: each process would train "
            f"on its own into one folder. Start with `horovodrun -np {size} python train/main.py ...` or, under a "
            f"scheduler, with `python -m launch.worker -- python train/main.py ...`"
        )
    comm = HorovodComm()
    if comm.size != size:
        raise CommError(f"{variable}={size} promises {size} ranks, but Horovod reports {comm.size}")
    return comm
