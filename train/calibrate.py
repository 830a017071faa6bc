"""Fit a temperature for each task of a saved model, so that its probabilities are as often right as they say.

    python -m train.calibrate --model runs/a/best --data shards/val [--out calibrated] [--check-halves]
    python -m train.calibrate --model runs/a/best --data shards/val --threshold age=precision:0.95

One temperature a task (Guo et al. 2017): no answer changes, only how sure each one is. Temperatures and thresholds are
kept in model.json, where commands and exports find them; the weights stay as they are. Below its threshold an answer is
withheld, as "unsure". Take photos that the model was not trained on.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launch.exit_codes import ExitCode
from train.cli.calibrate_options import CalibrateOptions, check_options, parse_options
from train.cli.command import run_command

if TYPE_CHECKING:
    from train.distributed.comm import Comm


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments, about=__doc__)
    return run_command(lambda comm: _calibrate(options, comm), before=lambda: check_options(options))


def _calibrate(options: CalibrateOptions, comm: "Comm") -> ExitCode:
    from train.calibration import calibrate_model  # loads torch

    calibrate_model(options, comm)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
