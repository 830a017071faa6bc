"""Saves the model of a run as an artifact, on rank 0 only.

saver = ModelSaver(model, tasks={"age": ("young", "old")}, class_values={}, preprocessing=..., origin=..., ...)
saver.save(folder.best, metrics, step=1200)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.artifact import save_artifact
from models.student import Student
from train.distributed.comm import Comm


@dataclass(frozen=True)
class ModelSaver:
    """What an artifact says beside the weights. tasks: task -> class names. class_values: see `ArtifactMeta`. origin:
    config, versions and data, kept as the artifact's provenance. ema: the model is a moving average."""

    model: Student
    tasks: Mapping[str, tuple[str, ...]]
    class_values: Mapping[str, tuple[float, ...]]
    preprocessing: Mapping[str, Any]
    origin: Mapping[str, Any]
    ema: bool
    comm: Comm

    def save(self, directory: Path, metrics: Mapping[str, float], *, step: int) -> None:
        if self.comm.rank != 0:
            return
        save_artifact(
            self.model,
            directory,
            tasks=dict(self.tasks),
            class_values=self.class_values,
            preprocessing=dict(self.preprocessing),
            metrics=metrics,
            provenance={**self.origin, "step": step, "ranks": self.comm.size},
            ema=self.ema,
        )
