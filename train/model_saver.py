"""Saves the model of a run as an artifact, on rank 0 only.

saver = ModelSaver(config, model, measured, index, tasks, progress, comm); saver.save(folder.best, metrics)
"""

from collections.abc import Mapping
from pathlib import Path

from data.index import Index
from models.artifact import save_artifact
from models.student import Student
from train.assemble import preprocessing
from train.comm import Comm
from train.config import Config
from train.provenance import provenance
from train.trainer import Progress


class ModelSaver:
    """measured: the model that is evaluated and saved, `model` itself or its moving average."""

    def __init__(
        self,
        config: Config,
        model: Student,
        measured: Student,
        index: Index,
        tasks: Mapping[str, int],
        progress: Progress,
        comm: Comm,
    ) -> None:
        self._config, self._model, self._measured, self._index = config, model, measured, index
        self._tasks, self._progress, self._comm = tasks, progress, comm

    def save(self, directory: Path, metrics: Mapping[str, float]) -> None:
        if self._comm.rank != 0:
            return
        save_artifact(
            self._measured,
            directory,
            tasks={task: self._index.tasks[task] for task in self._tasks},
            preprocessing=preprocessing(self._config, self._model),
            metrics=metrics,
            provenance=provenance(self._config, self._index, step=self._progress.step, ranks=self._comm.size),
            ema=self._measured is not self._model,
        )
