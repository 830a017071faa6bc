"""Saves the model of a run as an artifact, on rank 0 only.

saver = ModelSaver(config, parts, progress, comm); saver.save(folder.best, metrics)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.index import Index
from launch.machine import package_versions
from models.artifact import save_artifact
from train.checkpoint.progress import Progress
from train.config.schema import Config, describe
from train.distributed.comm import Comm
from train.setup.experiment import Experiment
from train.setup.model import preprocessing


class ModelSaver:
    """Knows what an artifact says beside the weights."""

    def __init__(self, config: Config, experiment: Experiment, progress: Progress, comm: Comm) -> None:
        self._config, self._parts, self._progress, self._comm = config, experiment, progress, comm

    def save(self, directory: Path, metrics: Mapping[str, float]) -> None:
        if self._comm.rank != 0:
            return
        index = self._parts.train_index
        save_artifact(
            self._parts.eval_model,
            directory,
            tasks={task: index.tasks[task] for task in self._parts.tasks},
            preprocessing=preprocessing(self._config, self._parts.model),
            metrics=metrics,
            provenance=provenance(self._config, index, step=self._progress.step, ranks=self._comm.size),
            ema=self._parts.ema is not None,
        )


_PACKAGES = ("torch", "torchvision", "timm", "horovod", "webdataset", "numpy")


def provenance(config: Config, index: Index, *, step: int, ranks: int) -> dict[str, Any]:
    """JSON-able; the artifact keeps it."""
    versions = package_versions(_PACKAGES)
    data = {"train": config.data.train, "samples": index.num_samples, "shards": len(index.shards)}
    return {"config": describe(config), "versions": versions, "data": data, "step": step, "ranks": ranks}
