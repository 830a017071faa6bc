"""Compare two kinds of models on the same labelled photos, paired, with an interval for every task.

    python -m train.compare --model runs/a0/best --model runs/a1/best \\
        --against runs/b0/best --against runs/b1/best --data shards/val [--json result.json]

Name the models of both sides in the order of their seeds. The interval holds 95 % of a bootstrap over photos and seeds:
where it leaves out 0, the difference is not the luck of these photos or seeds.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

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
from data.loading.batch import BadRecord, require_all
from data.loading.eval_loader import eval_batches
from data.loading.image_sets import ShardImages
from launch.arguments import output_file
from launch.exit_codes import ExitCode
from models.terminal import print_table
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import choose_device, num_decoders
from train.evaluation.answer import NO_ANSWER, answer
from train.evaluation.ensemble import Ensemble, load_ensemble
from train.evaluation.paired_bootstrap import PairedDifference, paired_difference
from train.tracking.console import image_progress

_BATCH = 64
_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    parser = argparse.ArgumentParser(
        prog="python -m train.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", required=True, metavar="PATH", help="a model of the first side")
    parser.add_argument("--against", action="append", required=True, metavar="PATH", help="a model of the second side")
    parser.add_argument("--data", required=True, metavar="DIR", help="shard folder with labels")
    parser.add_argument("--json", type=output_file, metavar="OUT", help="write the results")
    options = parser.parse_args(arguments)
    return run_command(lambda comm: _compare(options, comm))


def _compare(options: argparse.Namespace, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise BadArgument("train.compare runs on one process; start it without horovodrun")
    require_models(*options.model, *options.against)
    device = choose_device("auto", comm, deterministic=True)
    index = load_index(options.data)
    sides = {
        side: [load_ensemble([path], device=device, tasks=index.tasks)[0] for path in paths]
        for side, paths in (("ours", options.model), ("theirs", options.against))
    }
    everyone = [model for models in sides.values() for model in models]
    tasks = [task for task in index.tasks if all(task in model.tasks for model in everyone)]
    if not tasks:
        raise DataError(f"the models have no task of {options.data} in common")
    right, no_answers = _answers(everyone, index, tasks, device, comm)
    results = {
        task: paired_difference(answers[: len(sides["ours"])], answers[len(sides["ours"]) :])
        for task, answers in right.items()
    }
    _show(results, right, num_ours=len(sides["ours"]))
    paths = [*options.model, *options.against]
    for task, counts in no_answers.items():
        for path, count in zip(paths, counts, strict=True):
            if count:
                print(f"warning: {path}: {count} answers for task {task!r} are not numbers and count as wrong")
    if options.json:
        content = {"model": options.model, "against": options.against, "data": options.data, "no_answer": no_answers}
        plain = {task: asdict(result) for task, result in results.items()}
        write_result(options.json, (json.dumps({**content, "tasks": plain}, indent=2) + "\n").encode())
        print(f"wrote {options.json}")
    silent = any(count == right[task].shape[1] for task, counts in no_answers.items() for count in counts)
    return ExitCode.EXPLODED if silent else ExitCode.DONE


@torch.inference_mode()
def _answers(
    models: Sequence[Ensemble], index: Index, tasks: Sequence[str], device: torch.device, comm: Comm
) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Task -> bool [models, labelled photos]: was the answer right; and task -> of each model, how many were none."""
    batches = eval_batches(
        ShardImages(index),
        sizes=sorted({size for model in models for size in model.sizes}),
        num_views=1,
        batch_size=_BATCH,
        workers=num_decoders(comm),
        rank=comm.rank,
        num_ranks=comm.size,
        sharers=comm.local_size,
    )
    found: dict[str, list[np.ndarray]] = {task: [] for task in tasks}
    none = {task: np.zeros(len(models), dtype=np.int64) for task in tasks}
    num_good, bad = 0, list[BadRecord]()
    with image_progress("Comparing", total=index.num_samples, shown=True) as advance:
        for batch in batches:
            num_good += len(batch)
            bad += batch.bad
            if len(batch):
                batch = batch.to(device)
                answers = [model(batch) for model in models]
                for task in tasks:
                    label = batch.label[task]
                    chosen = torch.stack([answer(one[task]) for one in answers])
                    found[task].append((chosen == label)[:, label >= 0].cpu().numpy())
                    none[task] += (chosen == NO_ANSWER)[:, label >= 0].sum(dim=1).cpu().numpy()
            advance(len(batch) + len(batch.bad))
    require_all(num_good + len(bad), index.num_samples, what="comparing")
    for record in bad[:_SHOWN]:
        print(f"left out: {record.shard} {record.key}: {record.reason}")
    if len(bad) > _SHOWN:
        print(f"left out: {len(bad) - _SHOWN} more")
    right = {task: np.concatenate(parts, axis=1) for task, parts in found.items() if parts}
    labelled = {task: answers for task, answers in right.items() if answers.shape[1]}
    if not labelled:
        raise DataError(f"{index.root}: no photo is labelled for {', '.join(tasks)}")
    return labelled, {task: none[task].tolist() for task in labelled}


def _show(results: Mapping[str, PairedDifference], right: Mapping[str, np.ndarray], *, num_ours: int) -> None:
    table = Table(title="top-1, paired over the same photos")
    for column in ("task", "--model", "--against", "difference", "95 % interval", "clear", "photos"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, result in results.items():
        low, high = result.interval
        table.add_row(
            escape(task),
            _spread(right[task][:num_ours]),
            _spread(right[task][num_ours:]),
            f"{100 * result.difference:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            "yes" if result.is_clear else "no",
            str(right[task].shape[1]),
        )
    print_table(table)


def _spread(answers: np.ndarray) -> str:
    """Mean over the models, and the lowest and highest of several."""
    shares = 100 * answers.mean(axis=1)
    spread = f" ({shares.min():.1f} to {shares.max():.1f})" if len(shares) > 1 else ""
    return f"{shares.mean():.1f} %{spread}"


if __name__ == "__main__":
    sys.exit(main())
