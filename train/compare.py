"""Compare two kinds of models on the same labelled photos, paired, with an interval for every task.

    python -m train.compare --model runs/a0/best --model runs/a1/best \\
        --against runs/b0/best --against runs/b1/best --data shards/val [--json result.json]

Name the models of both sides in the order of their seeds. The interval holds 95 % of a bootstrap over photos and seeds:
where it leaves out 0, the difference is not the luck of these photos or seeds.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from models.model_path import exit_if_missing, given_as, require_models

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model", "--against"))

import numpy as np
import torch
from rich.markup import escape
from rich.table import Table

from data.errors import BadArgument, DataError
from data.files import write_result
from data.index import Index, load_index
from data.loading.batch import BadRecord
from data.loading.eval_loader import EvalBatch
from data.loading.image_sets import ShardImages
from launch.arguments import output_file
from launch.exit_codes import ExitCode
from models.terminal import print_table
from train.cli.arguments import command_parser, parse_as
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import choose_device
from train.evaluation.answer import NO_ANSWER, answer
from train.evaluation.ensemble import Ensemble, load_ensemble
from train.evaluation.evaluation_pass import Accumulator, Outputs, rank_batches, run_evaluation
from train.evaluation.paired_bootstrap import PairedDifference, paired_difference
from train.tracking.console import image_progress

_BATCH = 64
_SHOWN = 20


@dataclass(frozen=True)
class CompareOptions:
    """model, against: the models of either side. json: file to write, if any."""

    model: tuple[str, ...]
    against: tuple[str, ...]
    data: str
    json: Path | None


def parse_options(arguments: Sequence[str] | None = None) -> CompareOptions:
    parser = command_parser("train.compare", __doc__)
    add = parser.add_argument
    add("--model", action="append", required=True, metavar="PATH", help="a model of the first side")
    add("--against", action="append", required=True, metavar="PATH", help="a model of the second side")
    add("--data", required=True, metavar="DIR", help="shard folder with labels")
    add("--json", type=output_file, metavar="OUT", help="write the results")
    return parse_as(CompareOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments)
    return run_command(lambda comm: _compare(options, comm))


def _compare(options: CompareOptions, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise BadArgument("train.compare runs on one process; start it without horovodrun")
    paths, num_ours = [*options.model, *options.against], len(options.model)
    require_models(*paths)
    device = choose_device("auto", comm, deterministic=True)
    index = load_index(options.data)
    models = [load_ensemble([path], device=device, tasks=index.tasks)[0] for path in paths]
    tasks = [task for task in index.tasks if all(task in model.tasks for model in models)]
    if not tasks:
        raise DataError(f"the models have no task of {options.data} in common")
    answers = _answers(models, index, tasks, device, comm)
    results = {
        task: paired_difference(correct[:num_ours], correct[num_ours:]) for task, correct in answers.correct.items()
    }
    _show(results, answers.correct, num_ours=num_ours)
    for task, counts in answers.num_none.items():
        for path, count in zip(paths, counts, strict=True):
            if count:
                print(f"warning: {path}: {count} answers for task {task!r} are not numbers and count as wrong")
    if options.json:
        content = {
            "model": options.model,
            "against": options.against,
            "data": options.data,
            "no_answer": answers.num_none,
            "tasks": {task: asdict(result) for task, result in results.items()},
        }
        write_result(options.json, (json.dumps(content, indent=2) + "\n").encode())
        print(f"wrote {options.json}")
    return ExitCode.EXPLODED if answers.is_silent else ExitCode.DONE


@dataclass(frozen=True)
class _Answers:
    """By task, of all models. correct: bool [models, labelled images]; num_none: how many answers of each model were no
    numbers."""

    correct: Mapping[str, np.ndarray]
    num_none: Mapping[str, Sequence[int]]

    @property
    def is_silent(self) -> bool:
        """A model has no answer at all for a task."""
        return any(count == self.correct[task].shape[1] for task, counts in self.num_none.items() for count in counts)


class _AnswerSums(Accumulator):
    def __init__(self, tasks: Sequence[str], *, num_models: int) -> None:
        self._correct: dict[str, list[np.ndarray]] = {task: [] for task in tasks}
        self._num_none = {task: np.zeros(num_models, dtype=np.int64) for task in tasks}

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        if not outputs:
            return
        for task in self._correct:
            is_labelled = batch.label[task] >= 0
            label = batch.label[task][is_labelled]
            chosen = torch.stack([answer(output[task]) for output in outputs.values()])[:, is_labelled]
            self._correct[task].append((chosen == label).cpu().numpy())
            self._num_none[task] += (chosen == NO_ANSWER).sum(dim=1).cpu().numpy()

    def result(self) -> _Answers:
        """Of the tasks with a labelled image."""
        correct = {task: np.concatenate(parts, axis=1) for task, parts in self._correct.items() if parts}
        labelled = {task: values for task, values in correct.items() if values.shape[1]}
        return _Answers(labelled, {task: self._num_none[task].tolist() for task in labelled})


def _answers(
    models: Sequence[Ensemble], index: Index, tasks: Sequence[str], device: torch.device, comm: Comm
) -> _Answers:
    """Also names the images that cannot be used. Raises DataError where none is labelled."""
    sizes = sorted({size for model in models for size in model.sizes})
    sums = _AnswerSums(tasks, num_models=len(models))
    with image_progress("Comparing", total=index.num_samples, shown=True) as advance:
        seen = run_evaluation(
            {str(number): model for number, model in enumerate(models)},
            rank_batches(ShardImages(index), comm, sizes=sizes, batch_size=_BATCH, workers=None),
            [sums],
            num_samples=index.num_samples,
            what="comparing",
            device=device,
            progress=advance,
        )
    _show_bad(seen.bad)
    answers = sums.result()
    if not answers.correct:
        raise DataError(f"{index.root}: no photo is labelled for {', '.join(tasks)}")
    return answers


def _show_bad(bad: Sequence[BadRecord]) -> None:
    for record in bad[:_SHOWN]:
        print(f"left out: {record.shard} {record.key}: {record.reason}")
    if len(bad) > _SHOWN:
        print(f"left out: {len(bad) - _SHOWN} more")


def _show(results: Mapping[str, PairedDifference], correct: Mapping[str, np.ndarray], *, num_ours: int) -> None:
    table = Table(title="top-1, paired over the same photos")
    for column in ("task", "--model", "--against", "difference", "95 % interval", "clear", "photos"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, result in results.items():
        low, high = result.interval
        table.add_row(
            escape(task),
            _spread(correct[task][:num_ours]),
            _spread(correct[task][num_ours:]),
            f"{100 * result.difference:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            "yes" if result.is_clear else "no",
            str(correct[task].shape[1]),
        )
    print_table(table)


def _spread(correct: np.ndarray) -> str:
    """Mean over the models, and the lowest and highest of several."""
    shares = 100 * correct.mean(axis=1)
    spread = f" ({shares.min():.1f} to {shares.max():.1f})" if len(shares) > 1 else ""
    return f"{shares.mean():.1f} %{spread}"


if __name__ == "__main__":
    sys.exit(main())
