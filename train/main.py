"""Train a multi-head student.

    horovodrun -np 8 python train/main.py --config train/configs/solar/quickstart.yaml [key=value ...]

Started again with the same run folder, it continues where it was.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

if not __package__:  # started as a file: train/ is first on the path, where our packages are not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from data.errors import DataError
from launch.horovod_fit import HorovodError, check_horovod_matches_torch
from models.errors import ModelError
from train import comm as communication
from train.checkpoint import CheckpointError
from train.config_file import ConfigError, load_config
from train.exit_codes import MEANING, ExitCode

BAD_CONFIG = (ConfigError, ModelError, HorovodError, communication.CommError, CheckpointError)


def main(arguments: list[str] | None = None) -> ExitCode:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--dry-run", action="store_true", help="one batch: memory, speed, hours to go; nothing is kept")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    options = parser.parse_args(arguments)
    comm: communication.Comm = communication.SingleProcess()
    try:
        config = load_config(options.config, options.overrides)
        if communication.promised_size(os.environ)[0] > 1:
            check_horovod_matches_torch(torch_version=torch.__version__)
        comm = communication.start()
        from train.run import dry_run, train  # timm and the rest only once the config is known to be good

        code = (dry_run if options.dry_run else train)(config, comm)
    except BAD_CONFIG as error:
        code = _report(ExitCode.BAD_CONFIG, error, comm)
    except DataError as error:
        code = _report(ExitCode.BAD_DATA, error, comm)
    except communication.RankLost as error:
        code = _report(ExitCode.RANK_LOST, error, comm)
    except OSError as error:
        code = _report(ExitCode.CANNOT_WRITE, error, comm)
    except Exception:
        if comm.size == 1:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    if code in (ExitCode.DONE, ExitCode.PREEMPTED):
        comm.close()
        if code and comm.rank == 0:
            print(f"exit {code.value}: {MEANING[code]}", flush=True)
    elif comm.size > 1:
        # Leaving at once ends the other ranks' collectives too; an orderly shutdown would wait for them.
        sys.stdout.flush()
        os._exit(code)
    return code


def _report(code: ExitCode, error: Exception, comm: communication.Comm) -> ExitCode:
    rank = f"rank {comm.rank}: " if comm.size > 1 else ""
    print(f"{rank}{error}\n{rank}exit {code.value}: {MEANING[code]}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
