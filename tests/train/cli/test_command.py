"""How commands end on several ranks: together, and with one code for each kind of error."""

from collections.abc import Callable

ENDS = """
import sys, time
from train.cli.command import run_command
from launch.exit_codes import ExitCode
def work(comm):
    if comm.rank == 0:
        time.sleep(2)  # it still writes
        print("AT", time.time(), flush=True)
    return ExitCode.PREEMPTED
code = run_command(work)
print("AT", time.time(), flush=True)
sys.exit(code)
"""


def test_no_rank_leaves_while_another_still_writes(run_ranks: Callable) -> None:
    """A launcher takes the first end for a failure and may kill the rest."""
    result = run_ranks(2, code=ENDS, timeout=60)
    written = float(result.stdout[0].split("AT")[1].split()[0])
    left = float(result.stdout[1].split("AT")[1].split()[0])
    assert left > written


FAILS = """
import sys
from data.errors import DataError
from train.cli.command import run_command
from launch.exit_codes import ExitCode
def work(comm):
    if comm.rank == 1:
        raise DataError("a shard of rank 1")
    return ExitCode.DONE
sys.exit(run_command(work))
"""


def test_an_error_of_one_rank_has_its_own_code_and_the_others_say_that_they_lost_it(run_ranks: Callable) -> None:
    result = run_ranks(2, code=FAILS, timeout=60)
    assert "rank 1: error: a shard of rank 1\nrank 1: exit 65: the data cannot be used" in result.stderr[1]
    assert "rank 0: exit 77: another rank or a loader process was lost" in result.stderr[0]
