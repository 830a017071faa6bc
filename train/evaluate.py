"""Measure saved or exported models on a labelled shard folder; several models answer as an ensemble.

    python -m train.evaluate --model runs/a/best [--model runs/b/best] --data shards/val [--tta 8] [--json result.json]
    python -m train.evaluate --model exported/model.int8.onnx --data shards/val

Under horovodrun the ranks share the photos, with the same result. A model that answers no photo of a task with numbers
ends it with 70. Macro F1 is the mean over the classes that some photo truly has; the others are left out (scikit-learn
counts those that are answered all the same, as 0). The calibration error is the mean distance between how sure an
answer is and how often such answers are right, over 15 equal bins (Naeini et al. 2015).
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from models.model_path import exit_if_missing, given_as, require_models

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

from rich.console import Console

from data.bad_samples import most_allowed
from data.errors import DataError
from data.files import write_result
from data.index import Index, load_index
from data.loading.batch import BadRecord
from data.loading.image_sets import ShardImages
from launch.arguments import output_file
from launch.exit_codes import ExitCode
from models.terminal import print_table
from train.cli.arguments import EvaluationOptions, add_evaluation_arguments, command_parser, parse_as
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.consistency import check_consistency
from train.distributed.device import choose_device
from train.distributed.watchdog import Watchdog
from train.evaluation.ensemble import Ensemble, load_ensemble
from train.evaluation.evaluation import Evaluation, evaluate, evaluation_report
from train.evaluation.evaluation_pass import rank_batches
from train.evaluation.reliability import ReliabilityCounts
from train.tracking.console import image_progress
from train.tracking.result_table import MOST_CLASSES, NUM_WORST, print_classes, task_table

SHOWN = 20
WORST_CLASSES, ALL_CLASSES = "worst", "all"
STUCK_SECONDS = 3600.0  # without a finished batch; many views of a large model take their time


@dataclass(frozen=True)
class EvaluateOptions(EvaluationOptions):
    """json: file to write, if any. per_class: ALL_CLASSES or WORST_CLASSES of tasks with many."""

    json: Path | None
    per_class: str


def parse_options(arguments: Sequence[str] | None = None) -> EvaluateOptions:
    parser = command_parser("train.evaluate", __doc__)
    add_evaluation_arguments(parser, data_help="shard folder with labels (path, http(s):// or s3://)")
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="OUT",
        help="write all results, confusion matrices too (of more than 100 classes the cells that are not 0)",
    )
    parser.add_argument(
        "--per-class",
        choices=[WORST_CLASSES, ALL_CLASSES],
        default=WORST_CLASSES,
        help=f"which classes to print of a task of more than {MOST_CLASSES}: the {NUM_WORST} of the lowest F1, or all",
    )
    return parse_as(EvaluateOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments)
    return run_command(lambda comm: _evaluate(options, comm))


def _evaluate(options: EvaluateOptions, comm: Comm) -> ExitCode:
    given = {f"--{name.replace('_', '-')}": str(value) for name, value in asdict(options).items()}
    check_consistency(comm, config=given)
    require_models(*options.model)
    device = choose_device(options.device, comm, deterministic=True)
    index = load_index(options.data)
    ensemble, notes = load_ensemble(
        options.model,
        device=device,
        tasks=index.tasks,
        image_size=options.image_size,
        precision=options.precision,
    )
    _require_labels(index, list(ensemble.tasks))
    if comm.rank == 0:
        for note in notes:
            print(f"note: {note}", flush=True)
    batches = rank_batches(
        ShardImages(index),
        comm,
        sizes=ensemble.sizes,
        num_views=options.tta,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    reliability = ReliabilityCounts(list(ensemble.tasks), device, thresholds=ensemble.thresholds)
    with (
        Watchdog(STUCK_SECONDS, rank=comm.rank, flight_recorder=comm.flight_recorder) as watchdog,
        image_progress("Evaluating", total=-(-index.num_samples // comm.size), shown=comm.rank == 0) as advance,
    ):

        def progress(count: int) -> None:
            watchdog.feed("evaluation")
            advance(count)

        evaluation = evaluate(
            ensemble,
            batches,
            comm,
            num_samples=index.num_samples,
            num_classes={task: len(names) for task, names in ensemble.tasks.items()},
            class_values=ensemble.class_values,
            device=device,
            also=[reliability],
            progress=progress,
        )
    bad = _gather_bad(evaluation, comm)
    _require_few_bad(bad, index)
    if comm.rank == 0:
        _show(evaluation, reliability, ensemble, options, bad)
    return ExitCode.EXPLODED if evaluation.answers_nothing else ExitCode.DONE


def _require_labels(index: Index, tasks: Sequence[str]) -> None:
    """Said before the work instead of after it; the first shard answers as a rule."""
    columns = [list(index.tasks).index(task) for task in tasks]
    if not any((index.load_shard(number).labels[:, columns] >= 0).any() for number in range(len(index.shards))):
        raise DataError(
            f"{index.root}: none of its {index.num_samples} samples is labelled for {', '.join(tasks)}; "
            "there is nothing to measure (python -m train.predict works without labels)"
        )


def _gather_bad(evaluation: Evaluation, comm: Comm) -> list[list[str]]:
    """(shard, key, reason) of all ranks."""
    if not evaluation.num_bad:
        return []
    mine = [_describe(record) for record in evaluation.bad]
    return sorted(record for rank in comm.allgather_object(mine, name="evaluation.bad") for record in rank)


def _describe(record: BadRecord) -> list[str]:
    return [record.shard, record.key, record.reason]


def _require_few_bad(bad: Sequence[Sequence[str]], index: Index) -> None:
    allowed = most_allowed(index.num_samples)
    if len(bad) > allowed or len(bad) == index.num_samples:
        raise DataError(
            f"{len(bad)} of the {index.num_samples} samples of {index.root} cannot be used, too many for a result "
            f"(python -m data.verify lists them):\n{_listed(bad)}"
        )


def _listed(bad: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"  {shard} {key}: {reason}" for shard, key, reason in bad[:SHOWN])


def _show(
    evaluation: Evaluation,
    reliability: ReliabilityCounts,
    ensemble: Ensemble,
    options: EvaluateOptions,
    bad: Sequence[Sequence[str]],
) -> None:
    models = f"{len(ensemble.members)} models" if len(ensemble.members) > 1 else ensemble.members[0].path
    views = f", {options.tta} views" if options.tta > 1 else ""
    precisions = ", ".join(dict.fromkeys(member.predictor.precision for member in ensemble.members))
    if bad:
        print(f"{len(bad)} samples cannot be used and are left out:\n{_listed(bad)}")
    Console().print(f"{models} on {options.data} in {precisions}{views}", soft_wrap=True, highlight=False, markup=False)
    for task, names in ensemble.tasks.items():
        print_classes(task, evaluation.class_scores(task, names), print_all=options.per_class == ALL_CLASSES)
    errors = {f"{task}.calibration_error": reliability.calibration_error(task) for task in ensemble.tasks}
    print_table(task_table({**evaluation.flat(), **errors}, title="evaluation"))
    for task in ensemble.tasks:
        if given := reliability.given(task):
            print(f"task {task}: {given}")
    if evaluation.unanswered:
        print(f"warning: answers that are not numbers (NaN or infinity) count as wrong: {evaluation.unanswered}")
    print(f"mean top-1 {100 * evaluation.mean_top1:.2f} %")
    if options.json:
        content = evaluation_report(
            evaluation, reliability, ensemble=ensemble, data=options.data, num_views=options.tta, bad=bad
        )
        write_result(options.json, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
        print(f"wrote {options.json}")


if __name__ == "__main__":
    sys.exit(main())
