"""Saves the model of a run as an artifact, on rank 0 only.

saver = ModelSaver(config, parts, progress, comm); saver.save(folder.best, metrics)
"""

from collections.abc import Mapping
from pathlib import Path

from models.artifact import save_artifact
from train.assemble import preprocessing
from train.comm import Comm
from train.config import Config
from train.parts import Parts
from train.provenance import provenance
from train.trainer import Progress


class ModelSaver:
    """Knows what an artifact says beside the weights."""

    def __init__(self, config: Config, parts: Parts, progress: Progress, comm: Comm) -> None:
        self._config, self._parts, self._progress, self._comm = config, parts, progress, comm

    def save(self, directory: Path, metrics: Mapping[str, float]) -> None:
        if self._comm.rank != 0:
            return
        index = self._parts.train_index
        save_artifact(
            self._parts.measured,
            directory,
            tasks={task: index.tasks[task] for task in self._parts.tasks},
            preprocessing=preprocessing(self._config, self._parts.model),
            metrics=metrics,
            provenance=provenance(self._config, index, step=self._progress.step, ranks=self._comm.size),
            ema=self._parts.ema is not None,
        )
