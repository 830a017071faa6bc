"""Accuracy against parameters when a network is pruned round by round, and against the share of single weights zeroed.

    python -m prune.curve --model runs/big/best --data shards/food11/val --out curve --rates 0.05,0.1 --rounds 8 \\
        --config train/configs/slimming/finetune.yaml

Each round prunes that share of the channels that are left; with --config, train/main.py then trains the narrow model by
it (as model.artifact, in a run folder below --out), and the next round starts from the result. A round whose training
is finished is not trained again. Writes curve.json, curve.svg and unstructured.svg.
"""

import copy
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from models.model_path import exit_if_missing, given_as

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

import torch
from rich.table import Table
from torch import nn
from torch.nn.utils import prune as torch_prune

from data.files import staged, write_atomically
from data.index import load_index
from data.loading.eval_loader import eval_batches
from data.loading.image_sets import ShardImages
from launch.exit_codes import ExitCode
from models.artifact import load_artifact, load_artifact_meta, save_artifact
from models.cost import count_cost
from models.errors import ModelError
from models.formats.latency import measure_latency
from models.student import Student
from models.terminal import print_table
from prune.charts import curve_picture
from prune.curve_options import CurveOptions, parse_curve_options
from prune.options import GOALS
from prune.pruner import NothingToPrune
from prune.report import print_warnings
from prune.saved_model import prune_model
from train.cli.command import run_command
from train.config.loading import load_config
from train.distributed.comm import Comm
from train.distributed.device import choose_device
from train.errors import CommError
from train.evaluation.ensemble import load_ensemble
from train.evaluation.evaluation import evaluate

TRAIN = Path(__file__).parents[1] / "train" / "main.py"
RUN_NAME, SETTINGS_NAME = "run", "settings.json"
_NOT_SETTINGS = ("model", "out", "command", "threads", "measure", *GOALS)  # other in each round, or of no consequence


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_curve_options(sys.argv[1:] if arguments is None else arguments, description=__doc__)
    return run_command(lambda comm: _curve(options, comm))


@dataclass(frozen=True)
class Meter:
    """Measures saved models on the data."""

    data: str
    comm: Comm

    def __call__(self, path: Path) -> dict[str, Any]:
        """Parameters, MACs, latency and accuracy of the model in a folder."""
        student, meta = load_artifact(path)
        size = int(meta.preprocessing["eval_size"])
        cost = count_cost(student, image_size=size)
        latency = measure_latency(student, image_size=size, threads=1)
        return {
            "model": str(path),
            "parameters": cost.parameters,
            "macs": cost.macs,
            "zeros": share_of_zeros(student),
            "milliseconds": latency.milliseconds,
            "runtime": latency.runtime,
            **self._accuracy(path),
        }

    def _accuracy(self, path: Path) -> dict[str, Any]:
        index = load_index(self.data)
        device = choose_device("auto", self.comm, deterministic=True)
        ensemble, _ = load_ensemble([str(path)], device=device, tasks=index.tasks, precision="fp32")
        batches = eval_batches(
            ShardImages(index),
            sizes=ensemble.sizes,
            num_views=1,
            batch_size=64,
            workers=0,
            rank=self.comm.rank,
            num_ranks=self.comm.size,
            sharers=self.comm.local_size,
        )
        num_classes = {task: len(names) for task, names in ensemble.tasks.items()}
        evaluation = evaluate(
            ensemble, batches, self.comm, num_samples=index.num_samples, num_classes=num_classes, device=device
        )
        if evaluation.unanswered:
            raise ModelError(f"{path}: answers to {self.data} that are not numbers: {evaluation.unanswered}")
        return {
            "mean_top1": evaluation.mean_top1,
            "top1": {task: report["top1"] for task, report in evaluation.tasks.items()},
            "unusable_photos": evaluation.num_bad,
        }


def _curve(options: CurveOptions, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise CommError("python -m prune.curve starts the ranks itself: see --launcher")
    settings = _checked_settings(options)
    meter = Meter(options.val, comm)
    original = meter(Path(options.pruning.model))
    # Not before: a folder is not to be kept for the settings of a command that failed at once.
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / SETTINGS_NAME, (json.dumps(settings, indent=1) + "\n").encode())
    _say("the model itself", original)
    rounds = {f"{rate:g}": [original, *_rounds(options, rate, meter)] for rate in options.rates}
    zeroed = [original, *_zeroed(options, meter)]
    result = {"data": options.val, "rounds": rounds, "unstructured": zeroed}
    pictures = {}
    if options.rates:
        pictures["curve.svg"] = _picture(rounds, "parameters", title="pruned round by round")
    if options.unstructured:
        pictures["unstructured.svg"] = _picture({"magnitude": zeroed}, "zeros", title="single weights set to zero")
    with staged(options.out) as stage:
        (stage / "curve.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        for name, svg in pictures.items():
            (stage / name).write_text(svg, encoding="utf-8")
    _report(rounds, zeroed)
    for name in ("curve.json", *pictures):
        print(f"wrote {options.out / name}")
    return ExitCode.DONE


def _checked_settings(options: CurveOptions) -> dict[str, Any]:
    """A folder that holds finished trainings of other settings would pass them off as those of these."""
    if options.out.exists() and not options.out.is_dir():
        raise ModelError(f"--out {options.out}: is a file; name a folder")
    if options.config:
        load_config(options.config, _overrides(Path(options.pruning.model), options.out))  # wrong ones end it here
    settings = {
        **{name: value for name, value in asdict(options.pruning).items() if name not in _NOT_SETTINGS},
        "model": load_artifact_meta(options.pruning.model).sha256,
        "config": Path(options.config).read_text(encoding="utf-8") if options.config else None,
    }
    path = options.out / SETTINGS_NAME
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ModelError(f"--out {options.out} holds rounds of another model or other settings; name another folder")
    return settings


def _overrides(model: Path, run: Path) -> list[str]:
    return [f"model.artifact={model}", "model.backbone=", f"run.dir={run}"]


def _rounds(options: CurveOptions, rate: float, meter: Meter) -> list[dict[str, Any]]:
    current, measured = Path(options.pruning.model), []
    for number in range(1, options.rounds + 1):
        folder = options.out / f"rate-{rate:g}" / f"round-{number:02d}"
        try:
            _prune(current, folder, rate, options)
        except NothingToPrune as error:
            print(f"rate {rate:g} ends before round {number}: {error}", flush=True)
            break
        current = _trained(folder, options.config, options.launcher) if options.config else folder
        measured.append(meter(current))
        _say(f"rate {rate:g}, round {number}", measured[-1])
    return measured


def _prune(model: Path, folder: Path, rate: float, options: CurveOptions) -> None:
    pruned = prune_model(replace(options.pruning, model=str(model), out=folder, ratio=rate))
    print_warnings(pruned.record)


def _trained(folder: Path, config: str, launcher: str) -> Path:
    run = folder / RUN_NAME
    command = [
        *shlex.split(launcher),
        *(sys.executable, str(TRAIN), "--config", config),
        *_overrides(folder, run),
    ]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise CommError(f"training stopped with exit code {done.returncode}: {shlex.join(command)}")
    best = run / "best"
    return best if best.exists() else run / "last"


def _zeroed(options: CurveOptions, meter: Meter) -> list[dict[str, Any]]:
    measured = []
    for ratio in options.unstructured:
        student, meta = load_artifact(options.pruning.model)
        folder = options.out / f"unstructured-{ratio:g}"
        save_artifact(
            without_small_weights(student, ratio=ratio),
            folder,
            tasks=meta.tasks,
            preprocessing=meta.preprocessing,
            metrics={},
            provenance={**meta.provenance, "unstructured": {"ratio": ratio, "from": meta.sha256}},
            ema=meta.ema,
            class_values=meta.class_values,
        )
        measured.append(meter(folder))
        _say(f"{ratio:g} of the weights set to zero", measured[-1])
    return measured


def without_small_weights(student: Student, *, ratio: float) -> Student:
    """A copy whose smallest `ratio` of all convolution and linear weights together are zero (Han et al. 2015)."""
    pruned = copy.deepcopy(student)
    weights = [(module, "weight") for module in pruned.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    torch_prune.global_unstructured(weights, pruning_method=torch_prune.L1Unstructured, amount=ratio)
    for module, name in weights:
        torch_prune.remove(module, name)
    return pruned


def share_of_zeros(student: Student) -> float:
    """Of all convolution and linear weights."""
    weights = torch.cat(
        [module.weight.flatten() for module in student.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    )
    return float((weights == 0).double().mean())


def _picture(lines: Mapping[str, Sequence[Mapping[str, Any]]], what: str, *, title: str) -> str:
    points = {name: [(point[what], point["mean_top1"]) for point in line] for name, line in lines.items()}
    label = {"parameters": "parameters", "zeros": "share of zero weights"}[what]
    return curve_picture(points, title=title, x_label=label, y_label="mean top-1")


def _say(what: str, point: Mapping[str, Any]) -> None:
    print(f"{what}: {point['parameters']:,} parameters, mean top-1 {100 * point['mean_top1']:.1f} %", flush=True)


def _report(rounds: Mapping[str, Sequence[Mapping[str, Any]]], zeroed: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="accuracy and size", title_justify="left")
    for column in ("pruned", "parameters", "MACs", "zero weights", "ms", "mean top-1"):
        table.add_column(column, justify="left" if column == "pruned" else "right")
    lines = {**{f"{rate} per round": line for rate, line in rounds.items()}, "single weights": zeroed}
    for name, line in lines.items():
        for number, point in enumerate(line):
            table.add_row(
                f"{name}, {number}" if number else "the model itself",
                f"{point['parameters']:,}",
                f"{point['macs']:,}",
                f"{100 * point['zeros']:.0f} %",
                f"{point['milliseconds']:.3f}",
                f"{100 * point['mean_top1']:.1f} %",
            )
        table.add_section()
    print_table(table)


if __name__ == "__main__":
    sys.exit(main())
