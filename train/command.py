"""How a command of this package ends: one clear line and its exit code, on one rank or many.

sys.exit(run_command(lambda comm: work(options, comm)))
"""

import os
import sys
from collections.abc import Callable

from data.errors import BadArgument, DataError
from models.errors import ModelError
from train import comm as communication
from train.config_file import ConfigError
from train.exit_codes import MEANING, ExitCode


def run_command(work: Callable[[communication.Comm], ExitCode]) -> ExitCode:
    """Join the ranks, do the work, say what went wrong."""
    comm: communication.Comm = communication.SingleProcess()
    try:
        comm = communication.start()
        code = work(comm)
    except (ConfigError, ModelError, communication.CommError, BadArgument) as error:
        code = _report(ExitCode.BAD_CONFIG, error, comm)
    except DataError as error:
        code = _report(ExitCode.BAD_DATA, error, comm)
    except communication.RankLost as error:
        code = _report(ExitCode.RANK_LOST, error, comm)
    except OSError as error:
        code = _report(ExitCode.CANNOT_WRITE, error, comm)
    if code is ExitCode.DONE:
        comm.close()
    elif comm.size > 1:
        # Leaving at once ends the other ranks' collectives too; an orderly shutdown would wait for them.
        sys.stdout.flush()
        os._exit(code)
    return code


def _report(code: ExitCode, error: Exception, comm: communication.Comm) -> ExitCode:
    rank = f"rank {comm.rank}: " if comm.size > 1 else ""
    print(f"{rank}error: {error}\n{rank}exit {code.value}: {MEANING[code]}", file=sys.stderr, flush=True)
    return code
