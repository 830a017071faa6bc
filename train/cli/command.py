"""How a command of this package ends: one clear line and its exit code, on one rank or many.

sys.exit(run_command(lambda comm: work(options, comm)))
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import BadArgument, DataError, LoaderLost
from data.names import print_any_name
from launch.exit_codes import MEANING, ExitCode
from models.errors import ModelError
from train.distributed.launcher import promised_rank, promised_size
from train.errors import CheckpointError, CommError, ConfigError, NumbersExploded, RankLost, RanksDiverged

if TYPE_CHECKING:
    from train.distributed.comm import Comm

BAD_CONFIG = (ConfigError, ModelError, CommError, CheckpointError, BadArgument)

# What is wrong for all ranks is said by rank 0; others wait this long for it, and for the launcher to end them.
_FIRST_WORD_SECONDS = 2.0


@dataclass
class _Ranks:
    """Who this process is among how many, also before the ranks have met."""

    rank: int
    size: int


def run_command(work: Callable[["Comm"], ExitCode], *, before: Callable[[], object] = lambda: None) -> ExitCode:
    """Join the ranks, do the work, say what went wrong. `before` runs first, while each process is still alone, and
    before torch is loaded: a mistake that it finds is told at once."""
    ranks = _Ranks(promised_rank(os.environ) or 0, promised_size(os.environ)[0])
    print_any_name()
    try:
        before()
        from train.distributed.comm import start

        ranks.rank, ranks.size = 0, 1  # a launch that fails is each process's own to tell
        comm = start()
        ranks.rank, ranks.size = comm.rank, comm.size
        code = work(comm)
        # Nobody leaves while another still writes: a launcher takes the first end for a failure.
        comm.allgather_object(None, name="end")
    except BAD_CONFIG as error:
        _let_rank_0_speak(ranks)
        code = _report(ExitCode.BAD_CONFIG, error, ranks)
    except DataError as error:
        _let_rank_0_speak(ranks)
        code = _report(ExitCode.BAD_DATA, error, ranks)
    except NumbersExploded as error:
        code = _report(ExitCode.EXPLODED, error, ranks)
    except (RankLost, LoaderLost) as error:
        code = _report(ExitCode.RANK_LOST, error, ranks)
    except RanksDiverged as error:
        code = _report(ExitCode.DIVERGED, error, ranks)
    except OSError as error:
        code = _report(ExitCode.CANNOT_WRITE, error, ranks)
    except Exception:
        if ranks.size == 1:
            raise
        traceback.print_exc()
        _leave_at_once(1)
    if code in (ExitCode.DONE, ExitCode.PREEMPTED):
        comm.close()
        if code is ExitCode.PREEMPTED and ranks.rank == 0:
            print(f"exit {code.value}: {MEANING[code]}", flush=True)
    elif ranks.size > 1:
        _leave_at_once(code)
    return code


def _leave_at_once(code: int) -> None:
    """This ends the other ranks' collectives too; an orderly shutdown would wait for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _let_rank_0_speak(ranks: _Ranks) -> None:
    """The same error on every rank is said once, because the launcher ends the others as soon as rank 0 has ended."""
    if ranks.rank == 0:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # for what Horovod's threads say when rank 0 goes
    time.sleep(_FIRST_WORD_SECONDS)
    os.dup2(stderr, 2)
    os.close(stderr)
    os.close(nowhere)


def _report(code: ExitCode, error: Exception, ranks: _Ranks) -> ExitCode:
    rank = f"rank {ranks.rank}: " if ranks.size > 1 else ""
    print(f"{rank}error: {error}\n{rank}exit {code.value}: {MEANING[code]}", file=sys.stderr, flush=True)
    return code
