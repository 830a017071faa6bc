"""Predict photos with saved models: a shard folder, a folder of photos or one photo in, a CSV file out.

    python -m train.predict --model runs/a/best --data holiday/ --out predictions.csv [--probabilities] [--tta 8]

The rows are in the order of the photos (files by path). A photo that cannot be used has a row, too, which says why.
Where the model has a threshold for a task (see train.calibrate), answers below it are left empty and marked "unsure".
Keys and errors that a spreadsheet would compute (they begin with = + - @ or a tab), or that begin with ', have a '
before them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.model_path import exit_if_missing, given_as, require_models

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

from data.loading.image_sets import open_images
from launch.arguments import output_file
from launch.exit_codes import ExitCode
from train.cli.arguments import EvaluationOptions, add_evaluation_arguments, command_parser, parse_as
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import choose_device
from train.errors import CommError
from train.evaluation.ensemble import load_ensemble
from train.evaluation.evaluation_pass import rank_batches, run_evaluation
from train.evaluation.prediction import NOT_A_NUMBER, Prediction, PredictionRows, PredictionTable
from train.tracking.console import image_progress

SHOWN = 20


@dataclass(frozen=True)
class PredictOptions(EvaluationOptions):
    """out: the table to write. probabilities: with a column for each class."""

    out: Path
    probabilities: bool


def parse_options(arguments: Sequence[str] | None = None) -> PredictOptions:
    parser = command_parser("train.predict", __doc__)
    add_evaluation_arguments(
        parser, data_help="shard folder (path, http(s):// or s3://), folder of photos, or one photo"
    )
    parser.add_argument("--out", required=True, type=output_file, metavar="CSV", help="file to write")
    parser.add_argument("--probabilities", action="store_true", help="a column for each class, too")
    return parse_as(PredictOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments)
    return run_command(lambda comm: _predict(options, comm))


def _predict(options: PredictOptions, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise CommError("train.predict writes one file from one process; start it without horovodrun or srun")
    require_models(*options.model)
    device = choose_device(options.device, comm, deterministic=True)
    images, image_notes = open_images(options.data)
    ensemble, model_notes = load_ensemble(
        options.model, device=device, image_size=options.image_size, precision=options.precision
    )
    for note in [*image_notes, *model_notes]:
        print(f"note: {note}", flush=True)
    num_images = int(images.counts.sum())
    batches = rank_batches(
        images,
        comm,
        sizes=ensemble.sizes,
        num_views=options.tta,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    with (
        image_progress("Predicting", total=num_images) as advance,
        PredictionTable(
            options.out,
            tasks=ensemble.tasks,
            all_probabilities=options.probabilities,
            thresholds=ensemble.thresholds,
        ) as table,
    ):
        rows = PredictionRows(table)
        # Inside, because the table takes its name only when it is whole.
        run_evaluation(
            {"ensemble": ensemble},
            batches,
            [rows],
            num_samples=num_images,
            what="predicting",
            device=device,
            progress=advance,
        )
    for task, count in table.num_unsure.items():
        print(f"task {task}: {count} answers are unsure, below a probability of {table.thresholds[task]:.4f}")
    return _report(rows.failed, num_images, options.out)


def _report(failed: Sequence[Prediction], num_images: int, out: Path) -> ExitCode:
    for prediction in failed[:SHOWN]:
        print(f"no prediction for {prediction.key}: {prediction.error}")
    if len(failed) > SHOWN:
        print(f"... and for {len(failed) - SHOWN} more, see the error column")
    print(f"wrote {out}: {num_images - len(failed)} photos predicted, {len(failed)} could not be used")
    if len(failed) < num_images:
        return ExitCode.DONE
    is_model = any(prediction.error == NOT_A_NUMBER for prediction in failed)
    return ExitCode.EXPLODED if is_model else ExitCode.BAD_DATA


if __name__ == "__main__":
    sys.exit(main())
