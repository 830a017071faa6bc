"""Ranks that no longer do the same are named with what they did, and not waited for."""

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from train.distributed.flight_recorder import FlightRecorder, describe_divergence


def recorder_of(*names: str) -> FlightRecorder:
    flight_recorder = FlightRecorder()
    for name in names:
        flight_recorder.record(name, torch.zeros(3))
    return flight_recorder


@given(st.permutations(["bucket0", "bucket1", "bucket2", "control"]))
def test_the_order_in_which_gradients_were_ready_does_not_count(names: list[str]) -> None:
    assert recorder_of(*names).fingerprint == recorder_of("bucket0", "bucket1", "bucket2", "control").fingerprint


def test_names_shapes_types_and_numbers_count() -> None:
    usual = recorder_of("bucket0", "control").fingerprint
    others = [recorder_of("bucket0"), recorder_of("bucket1", "control"), recorder_of("bucket0", "control", "control")]
    shape, kind = recorder_of("bucket0"), recorder_of("bucket0")
    shape.record("control", torch.zeros(4))
    kind.record("control", torch.zeros(3, dtype=torch.float64))
    assert usual not in [other.fingerprint for other in [*others, shape, kind]]


def test_the_last_collective_is_known() -> None:
    assert FlightRecorder().last() == "none"
    assert recorder_of("bucket0", "control").last() == "control (3,) float32"


def test_the_ranks_that_differ_from_most_are_named_with_what_they_did() -> None:
    told = describe_divergence([5, 5, 7], [["a", "b"], ["a", "b"], ["a", "c", "c"]])
    assert told == "rank 2 started ['c', 'c'] where rank 0 started ['b']"


DIVERGING = """
import sys, torch
from train.distributed.comm import start
from train.cli.command import run_command
from train.loop.step_sync import StepSync
from launch.exit_codes import ExitCode

class Terms:
    def weight_sums(self, batch):
        return [1.0]

class OneBatch(list):
    bad = []

def work(comm):
    control = StepSync(Terms(), comm)
    for step in range(4):
        control.start(OneBatch([0]), stop=False)
        if comm.rank == 1 and step == 2:
            comm.allreduce_async(torch.ones(5), name="only here")
        print("sum", control.finish().num_samples, flush=True)
    return ExitCode.DONE

sys.exit(run_command(work))
"""


def test_a_rank_that_starts_another_collective_is_named_within_a_step(run_ranks: Callable) -> None:
    result = run_ranks(3, code=DIVERGING, timeout=60)
    for rank, text in enumerate(result.stderr):
        assert f"rank {rank}: exit 78: the ranks no longer do the same work" in text
        assert "rank 1 started ['only here (5,) float32'] where rank 0 started " in text
    assert all(text.count("sum 3") == 3 for text in result.stdout)  # the steps before


MISMATCHED = """
import sys, torch
from train.cli.command import run_command
from launch.exit_codes import ExitCode
def work(comm):
    comm.allreduce(torch.ones(3 + comm.rank), name="sum")
    return ExitCode.DONE
sys.exit(run_command(work))
"""


def test_ranks_that_sum_tensors_of_different_shapes_are_told_so(run_ranks: Callable) -> None:
    result = run_ranks(2, code=MISMATCHED, timeout=60)
    assert "exit 78" in result.output
    assert "Mismatched ALLREDUCE tensor shapes" in result.output
