"""Predict photos with saved models: a shard folder, a folder of photos or one photo in, a CSV file out.

    python -m train.predict --model runs/a/best --data holiday/ --out predictions.csv [--probabilities] [--tta 8]

The rows are in the order of the photos (files by path). A photo that cannot be used has a row, too, which says why.
Keys and errors that a spreadsheet would compute (they begin with = + - @ or a tab) have a ' before them, and so have
those that begin with one: without the first ' of a cell they are what they were.
"""

import argparse
import sys
from collections.abc import Sequence

from train.comm import Comm, CommError
from train.command import run_command
from train.ensemble import load_ensemble
from train.exit_codes import ExitCode
from train.machine import choose_device, num_decoders
from train.photo_arguments import add_photo_arguments, output_file
from train.photo_batches import photo_batches
from train.photo_progress import photo_progress
from train.photos import open_photos
from train.prediction import predictions
from train.prediction_table import PredictionTable

SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    parser = argparse.ArgumentParser(
        prog="python -m train.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_photo_arguments(parser, data_help="shard folder (path, http(s):// or s3://), folder of photos, or one photo")
    parser.add_argument("--out", required=True, type=output_file, metavar="CSV", help="file to write")
    parser.add_argument("--probabilities", action="store_true", help="a column for each class, too")
    options = parser.parse_args(arguments)
    return run_command(lambda comm: _predict(options, comm))


def _predict(options: argparse.Namespace, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise CommError("train.predict writes one file from one process; start it without horovodrun or srun")
    device = choose_device(options.device, comm, deterministic=True)
    photos, notes = open_photos(options.data)
    ensemble, remarks = load_ensemble(
        options.model, device=device, image_size=options.image_size, precision=options.precision
    )
    for note in [*notes, *remarks]:
        print(f"note: {note}", flush=True)
    num_photos = int(photos.counts.sum())
    batches = photo_batches(
        photos,
        sizes=ensemble.sizes,
        num_views=options.tta,
        batch_size=options.batch_size,
        workers=num_decoders(comm) if options.workers is None else options.workers,
        comm=comm,
    )
    failed = []
    with (
        photo_progress("Predicting", total=num_photos) as advance,
        PredictionTable(options.out, tasks=ensemble.tasks, all_probabilities=options.probabilities) as table,
    ):
        for batch in batches:
            for prediction in predictions(batch, ensemble, device):
                table.add(prediction)
                failed += [prediction] if prediction.error else []
            advance(len(batch) + len(batch.bad))
    for prediction in failed[:SHOWN]:
        print(f"no prediction for {prediction.key}: {prediction.error}")
    if len(failed) > SHOWN:
        print(f"... and for {len(failed) - SHOWN} more, see the error column")
    print(f"wrote {options.out}: {num_photos - len(failed)} photos predicted, {len(failed)} could not be used")
    return ExitCode.DONE if len(failed) < num_photos else ExitCode.BAD_DATA


if __name__ == "__main__":
    sys.exit(main())
