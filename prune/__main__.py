"""Prune a trained model: narrower layers, the same tasks, proved equal to the masked original.

    python -m prune --model runs/a/best --out runs/a/pruned --ratio 0.3
    python -m prune --model runs/a/best --out runs/a/pruned --max-macs 60M --max-bytes 1M --data shards/a/train

Writes model.safetensors and model.json (train/main.py fine-tunes them as `model.artifact`), prune.json (the plan) and
widths.svg. Nothing of the optimizer is carried over. Train with a `sparsity:` section before ranking by gamma.
"""

import sys
from collections.abc import Sequence

from models.model_path import exit_if_missing, given_as

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

from rich.console import Console

from launch.exit_codes import ExitCode
from prune.options import PruneOptions, parse_options
from prune.report import print_report
from prune.saved_model import prune_model
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.errors import CommError


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(sys.argv[1:] if arguments is None else arguments, description=__doc__)
    return run_command(lambda comm: _prune(options, comm))


def _prune(options: PruneOptions, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise CommError("python -m prune works in one process; start it without horovodrun or srun")
    with Console(stderr=True).status("reading") as status:
        pruned = prune_model(options, progress=status.update)
    print_report(pruned.record, pruned.files, folded=options.fold)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
