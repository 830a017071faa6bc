"""Predict photos with saved models: photos in, answers on the console; a folder or shards in, a CSV file out.

    python -m train.predict --model runs/a/best photo.jpg [another.jpg ...]
    python -m train.predict --model runs/a/best --data holiday/ --out predictions.csv [--probabilities] [--tta 8]

The rows are in the order of the photos (files by path). A photo that cannot be used has a row, too, which says why.
Where the model has a threshold for a task (see train.calibrate), answers below it are left empty and marked "unsure".
Keys and errors that a spreadsheet would compute (they begin with = + - @ or a tab), or that begin with ', have a '
before them. Under horovodrun the ranks share the photos, and rank 0 writes the rows in the order of one process.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from models.model_path import exit_if_missing, given_as, require_models

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

from data.loading.image_sets import FileImages, ShardImages, named_images, open_images
from launch.arguments import output_file
from launch.exit_codes import ExitCode
from train.cli.arguments import EvaluationOptions, add_evaluation_arguments, command_parser, parse_as
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.consistency import check_consistency
from train.distributed.device import choose_device
from train.distributed.watchdog import Watchdog
from train.evaluation.ensemble import Ensemble, load_ensemble
from train.evaluation.evaluation_pass import rank_batches, run_evaluation
from train.evaluation.prediction import NOT_A_NUMBER, Prediction, PredictionRows, PredictionTable, answer_lines
from train.tracking.console import image_progress

SHOWN = 20
_FEW = 8  # photos for which it is not worth to start processes
STUCK_SECONDS = 3600.0  # without a finished batch; many views of a large model take their time


@dataclass(frozen=True)
class PredictOptions(EvaluationOptions):
    """photos: files, where `data` is "". out: the table to write, None for answers on the console. probabilities: with
    a column for each class."""

    photos: tuple[str, ...]
    out: Path | None
    probabilities: bool


def parse_options(arguments: Sequence[str] | None = None) -> PredictOptions:
    parser = command_parser("train.predict", __doc__)
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="photos whose answers are shown on the console")
    add_evaluation_arguments(
        parser, data_help="shard folder (path, http(s):// or s3://), or folder of photos", data_required=False
    )
    parser.add_argument("--out", type=output_file, metavar="CSV", help="file to write; needed with --data")
    parser.add_argument("--probabilities", action="store_true", help="a column for each class, too")
    options = parse_as(PredictOptions, parser, arguments)
    if bool(options.photos) == bool(options.data):
        parser.error("name photos, or a folder of them with --data: one of the two")
    if options.out is None and (options.data or options.probabilities):
        parser.error(f"--{'data' if options.data else 'probabilities'} needs --out CSV, the file to write")
    return options


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments)
    return run_command(lambda comm: _predict(options, comm))


def _predict(options: PredictOptions, comm: Comm) -> ExitCode:
    require_models(*options.model)
    device = choose_device(options.device, comm, deterministic=True)
    images, notes = (named_images(options.photos), []) if options.photos else open_images(options.data)
    given = {f"--{name.replace('_', '-')}": str(value) for name, value in asdict(options).items()}
    check_consistency(comm, config={**given, "photos of --data": _describe(images)})
    ensemble, model_notes = load_ensemble(
        options.model, device=device, image_size=options.image_size, precision=options.precision
    )
    if comm.rank == 0:
        for note in [*notes, *model_notes]:
            print(f"note: {note}", flush=True)
    num_images = int(images.counts.sum())
    batches = rank_batches(
        images,
        comm,
        sizes=ensemble.sizes,
        num_views=options.tta,
        batch_size=options.batch_size,
        workers=0 if options.workers is None and num_images <= _FEW else options.workers,
        whole_batches=True,
    )
    with (
        image_progress("Predicting", total=-(-num_images // comm.size), shown=comm.rank == 0) as advance,
        ExitStack() as until_written,
    ):
        watchdog = Watchdog(STUCK_SECONDS, rank=comm.rank, flight_recorder=comm.flight_recorder)
        if comm.size > 1:  # who is alone waits for loader processes at most, and these have limits of their own
            until_written.enter_context(watchdog)

        def progress(count: int) -> None:
            if comm.size > 1:
                watchdog.feed("prediction")
            advance(count)

        table = _table(options, ensemble, comm, until_written)
        rows = PredictionRows(*_output(table, ensemble), comm)
        # Inside, because the table takes its name only when it is whole.
        run_evaluation(
            {"ensemble": ensemble},
            batches,
            [rows],
            num_samples=num_images,
            what="predicting",
            device=device,
            comm=comm,
            progress=progress,
        )
    unsure = comm.allgather_object(table.num_unsure if table else {}, name="unsure answers")
    if comm.rank == 0 and options.out is not None:
        for task, threshold in ensemble.thresholds.items():
            count = sum(counts[task] for counts in unsure)
            print(f"task {task}: {count} answers are unsure, below a probability of {threshold:.4f}")
        _report(rows.failed, num_images, options.out)
    if len(rows.failed) < num_images:
        return ExitCode.DONE
    is_model = any(prediction.error == NOT_A_NUMBER for prediction in rows.failed)
    return ExitCode.EXPLODED if is_model else ExitCode.BAD_DATA


def _describe(images: FileImages | ShardImages) -> str:
    """For ranks that must not disagree about the photos: they would wait for each other."""
    if isinstance(images, ShardImages):
        return str(images.index.fingerprint)
    names = "\n".join(images.name(0, number)[1] for number in range(len(images.files)))
    return f"{len(images.files)} files, {hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:16]}"


def _table(options: PredictOptions, ensemble: Ensemble, comm: Comm, until_written: ExitStack) -> PredictionTable | None:
    """What the rows are made by; rank 0 opens its file. None: the answers go to the console."""
    if options.out is None:
        return None
    table = PredictionTable(
        options.out,
        tasks=ensemble.tasks,
        all_probabilities=options.probabilities,
        thresholds=ensemble.thresholds,
    )
    if comm.rank == 0:
        until_written.enter_context(table)
    return table


def _output(
    table: PredictionTable | None, ensemble: Ensemble
) -> tuple[Callable[[Prediction], list[str]], Callable[[list[str]], None]]:
    """What a row of a prediction is, and what takes it: the table, or the console."""
    if table is not None:
        return table.row, table.write
    tasks, thresholds = ensemble.tasks, ensemble.thresholds
    return lambda prediction: answer_lines(prediction, tasks, thresholds), lambda lines: print(*lines, sep="\n")


def _report(failed: Sequence[Prediction], num_images: int, out: Path) -> None:
    for prediction in failed[:SHOWN]:
        print(f"no prediction for {prediction.key}: {prediction.error}")
    if len(failed) > SHOWN:
        print(f"... and for {len(failed) - SHOWN} more, see the error column")
    print(f"wrote {out}: {num_images - len(failed)} photos predicted, {len(failed)} could not be used")


if __name__ == "__main__":
    sys.exit(main())
