"""Train a multi-head student.

    horovodrun -np 8 python train/main.py --config train/configs/solar/quickstart.yaml [key=value ...]

Started again with the same run folder, it continues where it was.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started as a file: train/ is first on the path, where our packages are not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from launch.exit_codes import ExitCode
from train.cli.command import run_command
from train.config.loading import load_config, require_named_models, require_packages
from train.config.schema import Config, describe

if TYPE_CHECKING:
    from train.distributed.comm import Comm


@dataclass(frozen=True)
class MainOptions:
    config: str
    overrides: Sequence[str]
    dry_run: bool


def parse_options(arguments: Sequence[str] | None) -> MainOptions:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--dry-run", action="store_true", help="a few batches: memory, time to go; nothing is kept")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    options = parser.parse_args(arguments)
    return MainOptions(config=options.config, overrides=tuple(options.overrides), dry_run=options.dry_run)


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments)
    config = functools.cache(lambda: _load(options))
    # A mistake in the config is told before torch is loaded and the ranks meet.
    return run_command(lambda comm: _run(options, config(), comm), before=config)


def _load(options: MainOptions) -> Config:
    config = load_config(options.config, options.overrides)
    require_named_models(config)
    require_packages(config)
    return config


def _run(options: MainOptions, config: Config, comm: "Comm") -> ExitCode:
    from train.distributed.consistency import check_consistency
    from train.dry_run import dry_run
    from train.run import train
    from train.setup.experiment import build_experiment
    from train.setup.precision import choose_precision
    from train.setup.run_settings import run_settings

    config = choose_precision(config)
    check_consistency(comm, config=describe(config))
    if options.dry_run:
        return dry_run(build_experiment(config, comm), comm)
    return train(run_settings(config), lambda: build_experiment(config, comm), comm)


if __name__ == "__main__":
    sys.exit(main())
