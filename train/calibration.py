"""A saved model asked about labelled photos, calibrated, and written with its temperatures and thresholds.

calibrate_model(options, comm)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from data.bad_samples import most_allowed
from data.errors import BadArgument, DataError
from data.index import Index, load_index
from data.loading.batch import BadRecord
from data.loading.image_sets import ShardImages
from models.artifact import META_NAME, WEIGHTS_NAME, ArtifactMeta, load_artifact_meta, save_calibration
from models.terminal import print_table
from train.cli.calibrate_options import CalibrateOptions
from train.distributed.comm import Comm
from train.distributed.device import choose_device
from train.errors import NumbersExploded
from train.evaluation.calibration import LabelledLogits, TaskCalibration, calibrate_task
from train.evaluation.ensemble import load_ensemble
from train.evaluation.evaluation_pass import rank_batches, run_evaluation
from train.evaluation.temperature import HIGHEST, LOWEST
from train.evaluation.thresholds import Wanted
from train.tracking.console import image_progress

_SHOWN = 20


def calibrate_model(options: CalibrateOptions, comm: Comm) -> Path:
    """Fit, tell and write; returns the written `model.json`.

    BadArgument for thresholds that cannot be reached and a folder that holds something else, DataError for photos
    without a label, NumbersExploded where no answer of a task is a number. Then nothing is written.
    """
    if comm.size > 1:
        raise BadArgument("train.calibrate runs on one process; start it without horovodrun")
    meta, index = load_artifact_meta(options.model), load_index(options.data)
    _require_own(options.target, meta)
    _require_tasks(options.wanted, meta, index)
    answers = _answers(options, index, comm)
    found = _calibrations(answers, options.wanted, meta, index, halves=options.check_halves)
    print_table(_table(found))
    if options.check_halves:
        print_table(_halves_table(found))
    temperatures, thresholds = dict(meta.temperatures), dict(meta.thresholds)
    for task, one in found.items():
        temperatures[task] = one.fitted.temperature
        earlier = thresholds.pop(task, None)
        if one.threshold is not None and one.threshold.probability is not None:
            thresholds[task] = one.threshold.probability
        for remark in _remarks(one, index.tasks[task], earlier):
            print(f"note: task {task}: {remark}")
    record = {"data": options.data, "tasks": {task: one.record() for task, one in found.items()}}
    written = save_calibration(
        meta, options.target, temperatures=temperatures, thresholds=thresholds, calibration=record
    )
    print(f"wrote {written}")
    return written


def _require_own(out: Path, meta: ArtifactMeta) -> None:
    """BadArgument where `out` holds something else than this model."""
    names = [name for name in (META_NAME, WEIGHTS_NAME) if (out / name).exists()]
    if names and (META_NAME not in names or load_artifact_meta(out).sha256 != meta.sha256):
        raise BadArgument(f"--out {out}: holds a {names[0]} of another model; name another folder")


def _require_tasks(wanted: Mapping[str, Wanted], meta: ArtifactMeta, index: Index) -> None:
    for whose, tasks in (("the model", meta.tasks), (str(index.root), index.tasks)):
        for task, goal in wanted.items():
            if task not in tasks:
                raise BadArgument(f"--threshold {task}={goal}: {whose} has no such task; it has {', '.join(tasks)}")


def _answers(options: CalibrateOptions, index: Index, comm: Comm) -> LabelledLogits:
    """What the model says of every labelled photo, at temperature 1."""
    device = choose_device(options.device, comm, deterministic=True)
    ensemble, notes = load_ensemble([options.model], device=device, tasks=index.tasks, calibrated=False)
    for note in notes:
        print(f"note: {note}", flush=True)
    batches = rank_batches(
        ShardImages(index), comm, sizes=ensemble.sizes, batch_size=options.batch_size, workers=options.workers
    )
    answers = LabelledLogits(list(ensemble.tasks))
    with image_progress("Calibrating", total=index.num_samples) as advance:
        seen = run_evaluation(
            {"model": ensemble},
            batches,
            [answers],
            num_samples=index.num_samples,
            what="calibrating",
            device=device,
            progress=advance,
        )
    _require_few_bad(seen.bad, index)
    return answers


def _require_few_bad(bad: Sequence[BadRecord], index: Index) -> None:
    listed = "\n".join(f"  {record.shard} {record.key}: {record.reason}" for record in bad[:_SHOWN])
    if len(bad) > most_allowed(index.num_samples) or len(bad) == index.num_samples:
        raise DataError(
            f"{len(bad)} of the {index.num_samples} samples of {index.root} cannot be used, too many to calibrate on "
            f"(python -m data.verify lists them):\n{listed}"
        )
    if bad:
        print(f"{len(bad)} samples cannot be used and are left out:\n{listed}")


def _calibrations(
    answers: LabelledLogits, wanted: Mapping[str, Wanted], meta: ArtifactMeta, index: Index, *, halves: bool
) -> dict[str, TaskCalibration]:
    """Of the tasks with a label; says what stays as it is for the others."""
    found = {}
    for task in meta.tasks:
        logits = answers.of(task) if task in index.tasks else None
        if logits is None or not logits.num_samples:
            if task in wanted:
                raise BadArgument(f"--threshold {task}={wanted[task]}: no photo of {index.root} is labelled for it")
            kept = meta.temperatures.get(task, 1.0)
            print(f"note: task {task}: no photo of {index.root} is labelled; its temperature stays {kept:.4g}")
            continue
        if not len(logits):
            raise NumbersExploded(f"task {task!r}: no answer to {index.root} is a number (NaN or infinity)")
        found[task] = calibrate_task(logits, wanted.get(task), halves=halves)
        threshold = found[task].threshold
        if threshold is not None and not threshold.reached:
            limit = "" if threshold.probability is None else f", from a probability of {threshold.probability:.4f} on"
            raise BadArgument(
                f"--threshold {task}={wanted[task]}: cannot be had on {index.root}; the best is "
                f"{_percent(threshold.precision)} right of the answers to {_percent(threshold.coverage)} of the photos"
                f"{limit}"
            )
    if not found:
        raise DataError(
            f"{index.root}: none of its {index.num_samples} samples is labelled for {', '.join(meta.tasks)}"
        )
    return found


_LIMITS = {
    "flat": "no temperature changes its probabilities, because the logits of a photo are all the same",
    "lowest": f"the likelihood only rises towards temperature 0, as where all answers are right; stopped at "
    f"{LOWEST:g}, which makes every answer all but certain: take more photos, none of which the model was trained on",
    "highest": f"the likelihood only rises with the temperature, as where answers are no better than chance; stopped "
    f"at {HIGHEST:g}",
}


def _remarks(one: TaskCalibration, classes: Sequence[str], earlier: float | None) -> list[str]:
    """earlier: the threshold that the model had."""
    remarks = [_LIMITS[one.fitted.limit]] if one.fitted.limit else []
    if one.num_without_answer:
        remarks.append(f"{one.num_without_answer} answers are not numbers (NaN or infinity) and are left out")
    if one.only_class is not None and len(classes) > 1:
        remarks.append(f"all its photos are of class {classes[one.only_class]!r}: nothing is known about the others")
    if one.threshold is None and earlier is not None:
        remarks.append(f"its threshold of {earlier:.4f} was for other probabilities and is dropped")
    if one.threshold is not None and one.threshold.probability is None:
        remarks.append(f"{one.wanted} holds with all answers, so no threshold is kept")
    return remarks


def _table(found: Mapping[str, TaskCalibration]) -> Table:
    table = Table(title="calibration (before: temperature 1)")
    table.add_column("task")
    with_thresholds = any(one.threshold is not None for one in found.values())
    headings = ["photos", "temperature", "loss before", "after", "calib. error before", "after"]
    for heading in [*headings, *(["threshold", "answered", "of these right"] if with_thresholds else [])]:
        table.add_column(heading, justify="right")
    for task, one in found.items():
        cells = [
            f"{one.num_samples:,}",
            f"{one.fitted.temperature:.4f}",
            *(f"{measured.loss:.4f}" for measured in (one.before, one.after)),
            *(_percent(measured.error) for measured in (one.before, one.after)),
        ]
        if with_thresholds and (chosen := one.threshold):
            limit = "-" if chosen.probability is None else f"{chosen.probability:.4f}"
            cells += [limit, _percent(chosen.coverage), _percent(chosen.precision)]
        table.add_row(escape(task), *cells)
    return table


def _halves_table(found: Mapping[str, TaskCalibration]) -> Table:
    table = Table(title="fitted on one half of the photos, measured on the other, both ways")
    table.add_column("task")
    with_thresholds = any(one.threshold is not None for one in found.values())
    headings = ["temperatures", "loss before", "after", "calib. error before", "after"]
    for heading in [*headings, *(["answered", "of these right"] if with_thresholds else [])]:
        table.add_column(heading, justify="right")
    for task, one in found.items():
        if one.held_out is None:
            table.add_row(escape(task), "needs two photos")
            continue
        half = one.held_out
        cells = [
            ", ".join(f"{temperature:.4f}" for temperature in half.temperatures),
            *(f"{measured.loss:.4f}" for measured in (half.before, half.after)),
            *(_percent(measured.error) for measured in (half.before, half.after)),
        ]
        if with_thresholds and one.threshold:
            cells += [_percent(half.coverage), _percent(half.precision)]
        table.add_row(escape(task), *cells)
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
