"""Compare two kinds of models on the same labelled photos, paired, with an interval for every task.

    python -m train.compare --model runs/a0/best --model runs/a1/best \\
        --against runs/b0/best --against runs/b1/best --data shards/val [--json result.json]

Name the models of both sides in the order of their seeds. The interval holds 95 % of a bootstrap over photos and seeds:
where it leaves out 0, the difference is not the luck of these photos or seeds. Tasks that a model knows to be ordered
are also compared by their mean absolute error, which is better where it is lower.
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
from train.evaluation.class_values import agreed_values
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
    correct = {task: answers.correct(task) for task in answers.label}
    results = _differences(correct, num_ours=num_ours)
    _show(_TOP1, results, correct, num_ours=num_ours)
    values = _class_values(models, tasks)
    errors = _errors(answers, values)
    error_results = _differences(errors, num_ours=num_ours)
    if errors:
        _show(_ERROR, error_results, errors, num_ours=num_ours)
    for task, counts in answers.num_none.items():
        for path, count in zip(paths, counts, strict=True):
            if count:
                print(
                    f"warning: {path}: {count} answers for task {task!r} are not numbers and count as wrong"
                    + (", so there is no mean absolute error" if task in values else "")
                )
    if options.json:
        content = {
            "model": options.model,
            "against": options.against,
            "data": options.data,
            "no_answer": answers.num_none,
            "tasks": {
                task: asdict(result)
                | ({"mean_absolute_error": asdict(error_results[task])} if task in error_results else {})
                for task, result in results.items()
            },
        }
        write_result(options.json, (json.dumps(content, indent=2) + "\n").encode())
        print(f"wrote {options.json}")
    return ExitCode.EXPLODED if answers.is_silent else ExitCode.DONE


@dataclass(frozen=True)
class _Answers:
    """By task with a labelled image, of these images. label: int [images]; chosen: int [models, images], NO_ANSWER
    where an answer was no number."""

    label: Mapping[str, np.ndarray]
    chosen: Mapping[str, np.ndarray]

    def correct(self, task: str) -> np.ndarray:
        """bool [models, images]."""
        return self.chosen[task] == self.label[task]

    @property
    def num_none(self) -> dict[str, list[int]]:
        """How many answers of each model were no numbers."""
        return {task: (chosen == NO_ANSWER).sum(axis=1).tolist() for task, chosen in self.chosen.items()}

    @property
    def is_silent(self) -> bool:
        """A model has no answer at all for a task."""
        return any((chosen == NO_ANSWER).all(axis=1).any() for chosen in self.chosen.values())


class _AnswerColumns(Accumulator):
    def __init__(self, tasks: Sequence[str]) -> None:
        self._parts: dict[str, list[np.ndarray]] = {task: [] for task in tasks}  # the labels are the first row

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        if not outputs:
            return
        for task, parts in self._parts.items():
            label = batch.label[task]
            rows = torch.stack([label, *(answer(output[task]) for output in outputs.values())])
            parts.append(rows[:, label >= 0].cpu().numpy())

    def result(self) -> _Answers:
        whole = {task: np.concatenate(parts, axis=1) for task, parts in self._parts.items() if parts}
        labelled = {task: rows for task, rows in whole.items() if rows.shape[1]}
        return _Answers(
            {task: rows[0] for task, rows in labelled.items()}, {task: rows[1:] for task, rows in labelled.items()}
        )


def _answers(
    models: Sequence[Ensemble], index: Index, tasks: Sequence[str], device: torch.device, comm: Comm
) -> _Answers:
    """Also names the images that cannot be used. Raises DataError where none is labelled."""
    sizes = sorted({size for model in models for size in model.sizes})
    columns = _AnswerColumns(tasks)
    with image_progress("Comparing", total=index.num_samples, shown=True) as advance:
        seen = run_evaluation(
            {str(number): model for number, model in enumerate(models)},
            rank_batches(ShardImages(index), comm, sizes=sizes, batch_size=_BATCH, workers=None),
            [columns],
            num_samples=index.num_samples,
            what="comparing",
            device=device,
            progress=advance,
        )
    _show_bad(seen.bad)
    answers = columns.result()
    if not answers.label:
        raise DataError(f"{index.root}: no photo is labelled for {', '.join(tasks)}")
    return answers


def _show_bad(bad: Sequence[BadRecord]) -> None:
    for record in bad[:_SHOWN]:
        print(f"left out: {record.shard} {record.key}: {record.reason}")
    if len(bad) > _SHOWN:
        print(f"left out: {len(bad) - _SHOWN} more")


def _class_values(models: Sequence[Ensemble], tasks: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Of each model, in its order of the classes, for the tasks that a model knows to be ordered. Where not all can be
    told, it says so."""
    found = {}
    for task in tasks:
        said = [dict(zip(one.tasks[task], one.class_values.get(task, ()), strict=False)) for one in models]
        values = agreed_values(said)
        if values is None or any(name not in values for one in models for name in one.tasks[task]):
            if any(said):
                print(f"note: the models order the classes of task {task} differently: no mean absolute error")
            continue
        found[task] = [np.array([values[name] for name in one.tasks[task]]) for one in models]
    return found


def _errors(answers: _Answers, class_values: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Ordered task -> |value of the answer - value of the label|, float [models, images]. An answer that is no number
    has no error, so a task with such a one is left out."""
    errors = {}
    for task, label in answers.label.items():
        if task in class_values and not any(answers.num_none[task]):
            pairs = zip(class_values[task], answers.chosen[task], strict=True)
            errors[task] = np.stack([np.abs(values[chosen] - values[label]) for values, chosen in pairs])
    return errors


def _differences(measured: Mapping[str, np.ndarray], *, num_ours: int) -> dict[str, PairedDifference]:
    return {task: paired_difference(values[:num_ours], values[num_ours:]) for task, values in measured.items()}


@dataclass(frozen=True)
class _Measure:
    """How a measure is shown: multiplied with `factor`, with so many digits, a mean with its unit."""

    title: str
    factor: float
    digits: int
    unit: str

    def number(self, value: float, *, sign: str = "") -> str:
        return f"{self.factor * value:{sign}.{self.digits}f}"

    def spread(self, measured: np.ndarray) -> str:
        """Mean over the models [models, images], and the lowest and highest of several."""
        means = measured.mean(axis=1)
        spread = f" ({self.number(means.min())} to {self.number(means.max())})" if len(means) > 1 else ""
        return f"{self.number(means.mean())}{self.unit}{spread}"


_TOP1 = _Measure("top-1, paired over the same photos", factor=100, digits=1, unit=" %")
_ERROR = _Measure("mean absolute error (lower is better), paired over the same photos", factor=1, digits=3, unit="")


def _show(
    measure: _Measure, results: Mapping[str, PairedDifference], measured: Mapping[str, np.ndarray], *, num_ours: int
) -> None:
    """measured: task -> [models, images]."""
    table = Table(title=measure.title)
    for column in ("task", "--model", "--against", "difference", "95 % interval", "clear", "photos"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, result in results.items():
        table.add_row(
            escape(task),
            measure.spread(measured[task][:num_ours]),
            measure.spread(measured[task][num_ours:]),
            measure.number(result.difference, sign="+"),
            " to ".join(measure.number(limit, sign="+") for limit in result.interval),
            "yes" if result.is_clear else "no",
            str(measured[task].shape[1]),
        )
    print_table(table)


if __name__ == "__main__":
    sys.exit(main())
