"""What the launcher promises is what Horovod must report; sums and messages over real ranks."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from tests.conftest import rank_environment
from train.distributed.comm import SingleProcess, promised_size, start
from train.errors import CommError


@pytest.mark.parametrize(
    ("environment", "promise"),
    [
        ({}, (1, "")),
        ({"SLURM_NTASKS": "8"}, (1, "")),  # an allocation, not a step: `python train/main.py` inside is one process
        ({"SLURM_STEP_NUM_TASKS": "4"}, (4, "SLURM_STEP_NUM_TASKS")),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, (2, "OMPI_COMM_WORLD_SIZE")),
        ({"PMI_SIZE": "3"}, (3, "PMI_SIZE")),
        ({"WORLD_SIZE": "5"}, (5, "WORLD_SIZE")),
        ({"HOROVOD_SIZE": "2", "SLURM_STEP_NUM_TASKS": "1"}, (2, "HOROVOD_SIZE")),
    ],
)
def test_the_promise_of_each_launcher(environment: dict[str, str], promise: tuple[int, str]) -> None:
    assert promised_size(environment) == promise


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HOROVOD_SIZE", "HOROVOD_RANK", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return monkeypatch


def test_without_a_launcher_there_is_one_process(no_launcher: pytest.MonkeyPatch) -> None:
    comm = start()
    assert (comm.rank, comm.size, comm.local_rank, comm.local_size) == (0, 1, 0, 1)


def test_ranks_that_horovod_was_not_told_of_are_refused(no_launcher: pytest.MonkeyPatch) -> None:
    no_launcher.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(CommError, match=r"SLURM_STEP_NUM_TASKS=4 promises 4 ranks.*horovodrun -np 4"):
        start()


def test_alone_every_sum_is_the_value_itself() -> None:
    comm = SingleProcess()
    tensor = torch.tensor([1.0, 2.0])
    comm.wait(comm.allreduce_async(tensor, name="a"))
    assert comm.allreduce(tensor, name="b").tolist() == [1.0, 2.0]
    assert comm.allgather_object({"x": 1}, name="c") == [{"x": 1}]


REPORT = """
import json, torch
from train.distributed.comm import start
from train.errors import CommError
comm = start()
flat = torch.tensor([1.0, 10.0]) * (comm.rank + 1)
returned = comm.allreduce(flat, name="sum")
handle = comm.allreduce_async(torch.ones(3), name="later")
comm.wait(handle)
objects = comm.allgather_object({"rank": comm.rank, "text": "\u00fc" * comm.rank}, name="objects")
nothing = comm.allgather_object(None, name="nothing")
print("REPORT" + json.dumps([comm.rank, comm.size, flat.tolist(), returned is flat, objects, nothing]))
comm.close()
"""


def test_sums_and_objects_over_two_ranks(run_ranks: Callable) -> None:
    """Objects of different lengths, in rank order, the same on both."""
    result = run_ranks(2, code=REPORT)
    assert result.exit_code == 0, result.output
    objects = [{"rank": 0, "text": ""}, {"rank": 1, "text": "\u00fc"}]
    for rank, text in enumerate(result.stdout):
        assert json.loads(text.split("REPORT")[1]) == [rank, 2, [3.0, 30.0], True, objects, [None, None]]


def test_a_launcher_that_promises_more_than_horovod_finds_is_refused() -> None:
    """An MPI launch: a Horovod that was built without MPI sees one rank in each of its processes."""
    code = (
        "from train.distributed import comm\nfrom train.errors import CommError\n"
        "try: comm.start()\nexcept CommError as error: print(error)"
    )
    environment = rank_environment({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"})
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert "OMPI_COMM_WORLD_SIZE=4 promises 4 ranks, but Horovod reports 1" in result.stdout, result.stderr
