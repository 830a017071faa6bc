"""Saved models for tests: real artifacts with random weights whose answers differ from photo to photo.

folder = save_tiny_model(tmp_path / "a", seed=1)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.artifact import save_artifact
from models.heads import task_module
from models.student import build_student
from tests.conftest import TINY_TASKS

SIZE = 40  # of the tiny photos, which are then shown to the network as they are


def save_tiny_model(
    folder: Path,
    *,
    seed: int,
    tasks: Mapping[str, Sequence[str]] = TINY_TASKS,
    backbone: str = "food11_student",
    head: str = "multi-fc",
    size: int = SIZE,
    mean: Sequence[float] = (0.5, 0.4, 0.3),
    std: Sequence[float] = (0.2, 0.25, 0.3),
    provenance: Mapping[str, Any] | None = None,
    class_values: Mapping[str, Sequence[float]] | None = None,
) -> Path:
    """Batch norms know such photos and the classifiers are steep, so the answers are neither flat nor all alike."""
    torch.manual_seed(seed)
    counts = {task: len(names) for task, names in tasks.items()}
    model = build_student(backbone=backbone, head={"kind": head}, tasks=counts)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics are those of the one batch below
    photos = torch.rand(48, 3, size, size) * 0.25 + torch.rand(48, 3, 1, 1) * 0.7
    photos = (photos - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        model.train()(photos)
        heads: Any = model.heads
        if head == "single-conv":
            heads.conv.weight *= 8
            heads.conv.bias -= torch.cat([logits.mean(dim=0) for logits in model.eval()(photos).values()])
        else:
            for task in tasks:
                heads.classifiers.get_submodule(task_module(task)).weight *= 8
            for task, logits in model.eval()(photos).items():
                heads.classifiers.get_submodule(task_module(task)).bias -= logits.mean(dim=0)
    save_artifact(
        model,
        folder,
        tasks=tasks,
        preprocessing={"mean": list(mean), "std": list(std), "train_size": size, "eval_size": size},
        metrics={},
        provenance=provenance or {},
        ema=False,
        class_values=class_values,
    )
    return folder
