"""Train a multi-head student.

    horovodrun -np 8 python train/main.py --config train/configs/solar/quickstart.yaml [key=value ...]

Started again with the same run folder, it continues where it was.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started as a file: train/ is first on the path, where our packages are not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from launch.exit_codes import ExitCode
from launch.horovod.compatibility import HorovodError, check_horovod_matches_torch
from train.cli.command import run_command
from train.config.loading import load_config, require_named_models
from train.config.schema import describe
from train.distributed.comm import Comm, CommError, promised_size
from train.distributed.consistency import check_consistency


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--dry-run", action="store_true", help="a few batches: memory, time to go; nothing is kept")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    options = parser.parse_args(arguments)
    return run_command(lambda comm: _train(options, comm), before=_check_horovod)


def _check_horovod() -> None:
    """A Horovod built for another torch fails in ways that nobody can read, so it is not even loaded."""
    if promised_size(os.environ)[0] > 1:
        try:
            check_horovod_matches_torch(torch_version=torch.__version__)
        except HorovodError as error:
            raise CommError(str(error)) from error


def _train(options: argparse.Namespace, comm: Comm) -> ExitCode:
    config = load_config(options.config, options.overrides)
    check_consistency(comm, config=describe(config))
    require_named_models(config)
    from train.dry_run import dry_run
    from train.run import train

    return (dry_run if options.dry_run else train)(config, comm)


if __name__ == "__main__":
    sys.exit(main())
