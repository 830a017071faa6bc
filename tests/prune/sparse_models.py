"""Networks as sparse training leaves them, and how the tests prune and train them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from models.artifact import save_artifact
from models.channel_groups.narrow import Norm
from models.student import Student, build_student
from prune.__main__ import main
from prune.rewrite import rewrite
from tests.conftest import TINY_TASKS
from tests.small_run import OPTIONS

SIZE = 32
COUNTS = {task: len(names) for task, names in TINY_TASKS.items()}


def save(
    student: Student,
    folder: Path,
    *,
    tasks: Mapping[str, Sequence[str]] = TINY_TASKS,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "train_size": SIZE, "eval_size": SIZE}
    save_artifact(
        student,
        folder,
        tasks=tasks,
        preprocessing=preprocessing,
        metrics={},
        provenance={"step": 7, **(provenance or {})},
        ema=False,
    )
    return folder


def sparse_student(backbone: str = "food11_student", head: str = "multi-embedding", *, seed: int = 0) -> Student:
    """With gammas as sparse training leaves them: a third near zero, the others spread."""
    torch.manual_seed(seed)
    options = {"width": 32} if head in ("multi-embedding", "multi-shared-fc") else {}
    student = build_student(backbone=backbone, head={"kind": head, **options}, tasks=COUNTS)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, Norm):
                module.weight.uniform_(0.05, 1)
                module.weight[torch.rand(len(module.weight)) < 0.33] *= 1e-3
                module.bias.normal_(std=0.3)
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return student.eval()


def run(model: Path, out: Path, *arguments: str) -> dict[str, Any]:
    assert main(["--model", str(model), "--out", str(out), *arguments]) == 0
    return json.loads((out / "prune.json").read_text())


def broken(student: Student, change: Callable[[Student], None]) -> Student:
    with torch.no_grad():
        change(student)
    return student


def all_equal(student: Student) -> None:
    for module in student.modules():
        if isinstance(module, Norm):
            module.weight.fill_(0.7)


def spread_gammas(student: Student) -> None:
    for module in student.modules():
        if isinstance(module, Norm):
            module.weight.uniform_(0.5, 1.5)


def weaken_two_norms(student: Student) -> None:
    for norm in ("backbone.layer2.4", "backbone.layer3.1"):
        student.get_submodule(norm).weight.mul_(1e-4)


def wrong_rewrite(*arguments: Any, **options: Any) -> tuple[Student, Student]:
    one, other = rewrite(*arguments, **options)
    with torch.no_grad():
        next(other.heads.parameters()).mul_(1 + 1e-6)
    return one, other


def finetune_config(folder: Path, shards: Path) -> Path:
    config = {
        **OPTIONS,
        "run": {"dir": str(folder / "run")},
        "data": {**OPTIONS["data"], "image_size": SIZE, "train": str(shards / "train"), "val": str(shards / "val")},
        "schedule": {"epochs": 1, "warmup_epochs": 0},
        "trace_samples": False,
    }
    path = folder / "finetune.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
