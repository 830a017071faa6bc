"""How a command of this package ends: one clear line and its exit code, on one rank or many.

sys.exit(run_command(lambda comm: work(options, comm)))
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from data.errors import BadArgument, DataError, LoaderLost
from data.names import print_any_name
from launch.exit_codes import MEANING, ExitCode
from models.errors import ModelError
from train.checkpoint.store import CheckpointError
from train.config.loading import ConfigError
from train.distributed import comm as communication
from train.loop.skipped_updates import NumbersExploded

BAD_CONFIG = (ConfigError, ModelError, communication.CommError, CheckpointError, BadArgument)

# What is wrong for all ranks is said by rank 0; others wait this long for it, and for the launcher to end them.
_FIRST_WORD_SECONDS = 2.0


def run_command(
    work: Callable[[communication.Comm], ExitCode], *, before: Callable[[], None] = lambda: None
) -> ExitCode:
    """Join the ranks, do the work, say what went wrong. `before` runs first, while each process is still alone."""
    comm: communication.Comm = communication.SingleProcess()
    print_any_name()
    try:
        before()
        comm = communication.start()
        code = work(comm)
        # Nobody leaves while another still writes: a launcher takes the first end for a failure.
        comm.allgather_object(None, name="end")
    except BAD_CONFIG as error:
        _let_rank_0_speak(comm)
        code = _report(ExitCode.BAD_CONFIG, error, comm)
    except DataError as error:
        _let_rank_0_speak(comm)
        code = _report(ExitCode.BAD_DATA, error, comm)
    except NumbersExploded as error:
        code = _report(ExitCode.EXPLODED, error, comm)
    except (communication.RankLost, LoaderLost) as error:
        code = _report(ExitCode.RANK_LOST, error, comm)
    except communication.RanksDiverged as error:
        code = _report(ExitCode.DIVERGED, error, comm)
    except OSError as error:
        code = _report(ExitCode.CANNOT_WRITE, error, comm)
    except Exception:
        if comm.size == 1:
            raise
        traceback.print_exc()
        _leave_at_once(1)
    if code in (ExitCode.DONE, ExitCode.PREEMPTED):
        comm.close()
        if code is ExitCode.PREEMPTED and comm.rank == 0:
            print(f"exit {code.value}: {MEANING[code]}", flush=True)
    elif comm.size > 1:
        _leave_at_once(code)
    return code


def _leave_at_once(code: int) -> None:
    """This ends the other ranks' collectives too; an orderly shutdown would wait for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _let_rank_0_speak(comm: communication.Comm) -> None:
    """The same error on every rank is said once, because the launcher ends the others as soon as rank 0 has ended."""
    if comm.rank == 0:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # for what Horovod's threads say when rank 0 goes
    time.sleep(_FIRST_WORD_SECONDS)
    os.dup2(stderr, 2)
    os.close(stderr)
    os.close(nowhere)


def _report(code: ExitCode, error: Exception, comm: communication.Comm) -> ExitCode:
    rank = f"rank {comm.rank}: " if comm.size > 1 else ""
    print(f"{rank}error: {error}\n{rank}exit {code.value}: {MEANING[code]}", file=sys.stderr, flush=True)
    return code
