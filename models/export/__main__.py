"""Export a trained model for phones and servers, with its accuracy, size and speed beside it.

    python -m models.export --model runs/a/best --out exported --int8 --calibrate shards/train \\
        --data shards/val --gate 0.01

writes model.onnx, model.int8.onnx, model.json, export.json and predict.py, which needs onnxruntime, numpy and Pillow.
Ends with 1 where a task loses more than the gate allows, and names the layers that hurt most.
"""

import sys
from collections.abc import Sequence

from models.model_path import exit_if_missing, given_as

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

from launch.exit_codes import ExitCode
from models.export.exporter import export_model
from models.export.options import ExportOptions, parse_options
from models.export.report import export_table, prediction_lines
from models.terminal import print_table
from train.cli.command import run_command
from train.distributed.comm import Comm


class _GateMissed(Exception):
    """A task lost more than --gate; the message says which, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(sys.argv[1:] if arguments is None else arguments, description=__doc__)
    try:
        return run_command(lambda comm: _export(options, comm))
    except _GateMissed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _export(options: ExportOptions, comm: Comm) -> ExitCode:
    exported = export_model(options, comm=comm)
    print_table(export_table(exported.record))
    for line in prediction_lines(exported.record):
        print(line)
    print(f"wrote {options.out}: {', '.join(exported.files)}")
    if exported.gate_error:
        raise _GateMissed(exported.gate_error)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
