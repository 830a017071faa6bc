"""What the stages of a pipeline are made of: a training, a pruning, a measurement, each as a stage of its own.

steps = Steps(config, workshop, shards, recipe)
pruned = steps.prune("student/round1", teacher, ["--max-macs", "50%"])
tuned = steps.tune("tuned", pruned, epochs=8, eval_size=208)

A model is what a stage gave back: {"model": folder, "files": hashes of its weights}, after a training with "metrics".
"""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.files import write_atomically
from launch.exit_codes import ExitCode
from train.pipeline.config import PipelineConfig
from train.pipeline.progress import TrainingProgress
from train.pipeline.recipe import Recipe
from train.pipeline.workshop import RECORDS, StageFailed, Workshop, python

_CONFIGS = "configs"  # in the output folder: what each training was told
_SCORE = ("--score", "taylor", "--max-layer-ratio", "0.65")
_RECALIBRATE = 16  # batches
_COSTS = ("macs", "parameters", "int8_bytes")

Model = Mapping[str, Any]


@dataclass(frozen=True)
class Steps:
    """shards: {"train", "val": folders, "files" or "fingerprint": what they hold}."""

    config: PipelineConfig
    workshop: Workshop
    shards: Mapping[str, Any]
    recipe: Recipe

    def settings(self, *, epochs: int, eval_size: int | None, lr: float) -> dict[str, Any]:
        """What all trainings share, as a run's config."""
        data = {"train": self.shards["train"], "val": self.shards["val"], "image_size": self.recipe.image_size}
        if eval_size is not None:
            data["eval_size"] = eval_size
        return {
            "seed": self.config.seed,
            "data": data,
            "augment": {"policy": "strong", "crop_scale": [0.25, 1.0]},
            "optimizer": {"kind": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": 4e-5, "nesterov": True},
            "schedule": {"epochs": epochs, "warmup_epochs": min(1, epochs - 1), "decay": "cosine"},
            "batch_size": self.recipe.batch_size,
            "precision": self.recipe.precision,
            "tracking": {"wandb": {"mode": "disabled"}},
        }

    def train(self, name: str, settings: Mapping[str, Any], *, what: str, models: Sequence[Model] = ()) -> Model:
        """The model of the last epoch, which no validation photo has chosen. models: those that the settings name."""
        run = self.workshop.out / name

        def work() -> dict[str, Any]:
            path = self.workshop.out / _CONFIGS / f"{name.replace('/', '-')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump({"run": {"dir": str(run)}, **settings}, sort_keys=False)
            write_atomically(path, text.encode())
            command = [*shlex.split(self.config.launcher), *python("train.main", "--config", path)]
            self.workshop.run(name, command, progress=TrainingProgress(name, run))
            metrics = json.loads((run / "result.json").read_bytes())["metrics"]
            files = self.workshop.digest(f"{name}/last/model.safetensors")
            return {"model": str(run / "last"), "metrics": metrics, "files": files}

        inputs = {"settings": settings, "data": self._data, "models": [model["files"] for model in models]}
        done = self.workshop.stage(name, what=what, inputs=inputs, work=work)
        self.workshop.tell(f"{name}: top-1 on val {_accuracies(done['metrics'])}")
        return done

    def tune(self, name: str, pruned: Model, *, epochs: int, eval_size: int) -> Model:
        """Fine-tune a pruned network."""
        settings = self.settings(epochs=epochs, eval_size=eval_size, lr=self.recipe.tune_lr)
        settings["model"] = {"artifact": pruned["model"]}
        return self.train(name, settings, what=f"fine-tune, {epochs} epochs", models=[pruned])

    def prune(
        self,
        name: str,
        model: Model,
        limits: Sequence[str],
        *,
        score: Sequence[str] = _SCORE,
        nothing_where: str = "the model already fits",
    ) -> Model:
        """Narrower layers. limits, score: options of `python -m prune`. nothing_where: where its error says so, the
        model stays as it is; other errors are StageFailed.

        Beside what every model has: "costs", {"macs", "parameters", "int8_bytes"} -> {"before", "after"}, and "is_new".
        """
        folder = self.workshop.out / name

        def work() -> dict[str, Any]:
            command = ["--model", model["model"], "--out", folder, *limits, *score, "--data", self.shards["train"]]
            try:
                self.workshop.run(name, python("prune", *command, "--recalibrate", _RECALIBRATE))
            except StageFailed as failed:
                if failed.code != ExitCode.BAD_CONFIG or nothing_where not in str(failed):
                    raise
                return {"model": model["model"], "files": dict(model["files"]), "is_new": False, "costs": {}}
            record = json.loads((folder / "prune.json").read_bytes())
            costs = {kind: {when: record[kind][when] for when in ("before", "after")} for kind in _COSTS}
            files = self.workshop.digest(f"{name}/model.safetensors")
            return {"model": str(folder), "files": files, "is_new": True, "costs": costs}

        inputs = {"model": model["files"], "limits": list(limits), "data": self._data}
        pruned = self.workshop.stage(name, what=f"prune to {' '.join(limits)}", inputs=inputs, work=work)
        if not pruned["is_new"]:
            self.workshop.tell(f"{name}: nothing is pruned, {nothing_where}")
        return pruned

    def top1(self, name: str, model: Model, *, sizes: Sequence[int]) -> dict[int, dict[str, float]]:
        """size -> task -> top-1 on val; measured once."""

        def work() -> dict[str, Any]:
            return {"top1": {str(size): self._evaluate(name, model["model"], size) for size in sizes}}

        inputs = {"model": model["files"], "sizes": list(sizes), "data": self._data}
        found = self.workshop.stage(name, what="measure on val", inputs=inputs, work=work)["top1"]
        return {int(size): tasks for size, tasks in found.items()}

    @property
    def _data(self) -> Any:
        return self.shards.get("files", self.shards.get("fingerprint"))

    def _evaluate(self, stage: str, model: str, size: int) -> dict[str, float]:
        path = self.workshop.out / RECORDS / f"{Path(stage).name}-{size}.json.tmp"
        command = ("--model", model, "--data", self.shards["val"], "--image-size", size, "--json", path)
        self.workshop.run(stage, python("train.evaluate", *command))
        tasks = json.loads(path.read_bytes())["tasks"]
        os.unlink(path)
        return {task: report["top1"] for task, report in tasks.items() if report["count"]}


def _accuracies(metrics: Mapping[str, Any]) -> str:
    top1 = {name.removesuffix(".top1"): value for name, value in metrics.items() if name.endswith(".top1")}
    return ", ".join(f"{task} {100 * value:.1f} %" for task, value in top1.items() if value is not None)
