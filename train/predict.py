"""Predict photos with saved models: a shard folder, a folder of photos or one photo in, a CSV file out.

    python -m train.predict --model runs/a/best --data holiday/ --out predictions.csv [--probabilities] [--tta 8]

The rows are in the order of the photos (files by path). A photo that cannot be used has a row, too, which says why.
Keys and errors that a spreadsheet would compute (they begin with = + - @ or a tab), or that begin with ', have a '
before them.
"""

import argparse
import sys
from collections.abc import Sequence

from models.model_path import exit_if_missing, given_as, require_models

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

from data.loading.batch import require_all
from data.loading.eval_loader import eval_batches
from data.loading.image_sets import open_images
from launch.arguments import output_file
from launch.exit_codes import ExitCode
from train.cli.arguments import add_evaluation_arguments
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import choose_device, num_decoders
from train.errors import CommError
from train.evaluation.ensemble import load_ensemble
from train.evaluation.prediction import NOT_A_NUMBER, PredictionTable, predictions
from train.tracking.console import image_progress

SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    parser = argparse.ArgumentParser(
        prog="python -m train.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_evaluation_arguments(
        parser, data_help="shard folder (path, http(s):// or s3://), folder of photos, or one photo"
    )
    parser.add_argument("--out", required=True, type=output_file, metavar="CSV", help="file to write")
    parser.add_argument("--probabilities", action="store_true", help="a column for each class, too")
    options = parser.parse_args(arguments)
    return run_command(lambda comm: _predict(options, comm))


def _predict(options: argparse.Namespace, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise CommError("train.predict writes one file from one process; start it without horovodrun or srun")
    require_models(*options.model)
    device = choose_device(options.device, comm, deterministic=True)
    photos, notes = open_images(options.data)
    ensemble, remarks = load_ensemble(
        options.model, device=device, image_size=options.image_size, precision=options.precision
    )
    for note in [*notes, *remarks]:
        print(f"note: {note}", flush=True)
    num_photos = int(photos.counts.sum())
    batches = eval_batches(
        photos,
        sizes=ensemble.sizes,
        num_views=options.tta,
        batch_size=options.batch_size,
        workers=num_decoders(comm) if options.workers is None else options.workers,
        rank=comm.rank,
        num_ranks=comm.size,
        sharers=comm.local_size,
    )
    failed = []
    num_rows = 0
    with (
        image_progress("Predicting", total=num_photos) as advance,
        PredictionTable(options.out, tasks=ensemble.tasks, all_probabilities=options.probabilities) as table,
    ):
        for batch in batches:
            for prediction in predictions(batch, ensemble, device):
                table.add(prediction)
                failed += [prediction] if prediction.error else []
                num_rows += 1
            advance(len(batch) + len(batch.bad))
        require_all(num_rows, num_photos, what="predicting")  # the table takes its name only when it is whole
    for prediction in failed[:SHOWN]:
        print(f"no prediction for {prediction.key}: {prediction.error}")
    if len(failed) > SHOWN:
        print(f"... and for {len(failed) - SHOWN} more, see the error column")
    print(f"wrote {options.out}: {num_photos - len(failed)} photos predicted, {len(failed)} could not be used")
    if len(failed) < num_photos:
        return ExitCode.DONE
    is_model = any(prediction.error == NOT_A_NUMBER for prediction in failed)
    return ExitCode.EXPLODED if is_model else ExitCode.BAD_DATA


if __name__ == "__main__":
    sys.exit(main())
