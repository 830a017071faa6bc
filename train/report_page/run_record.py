"""A run folder as the report sees it, whether the run is finished, going on or was cut off.

run = read_run(Path("runs/mine")); run.state; run.evaluations
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from launch.file_lock import is_locked
from models.artifact import ArtifactMeta
from models.errors import ModelError
from train.checkpoint.run_folder import RunFolder
from train.config.flat import flat
from train.report_page.saved_model import first_wrong_value, read_meta, weights_error
from train.tracking.jsonl import read_lines

Line = dict[str, Any]  # of a JSON lines file


@dataclass(frozen=True)
class RunRecord:
    """state: finished, running or cut off. trained, evaluations: lines of metrics.jsonl, `epoch` counting from 0.
    meta: of best/ (or last/), None where no model was saved yet. model_path: its folder, None where its weights are not
    whole. warnings: what could not be read, in words."""

    name: str
    path: Path
    state: str
    config: dict[str, Any]
    trained: Sequence[Line]
    evaluations: Sequence[Line]
    bad: Sequence[Line]
    meta: ArtifactMeta | None
    model_path: Path | None
    warnings: Sequence[str]

    @property
    def epochs(self) -> int:
        """As planned."""
        return int(flat(self.config).get("schedule.epochs", 0))

    @property
    def steps_per_epoch(self) -> float:
        """From the first evaluation, or from how far the training had come."""
        for line in [*self.evaluations[:1], *self.trained[-1:]]:
            done = line["epoch"] + 1 if line["kind"] == "evaluation" else line["progress"] * self.epochs
            if done:
                return (line["step"] + 1) / done
        return 1.0

    @property
    def epochs_done(self) -> float:
        last = max((line["step"] + 1 for line in [*self.trained[-1:], *self.evaluations[-1:]]), default=0)
        return last / self.steps_per_epoch

    def curve(self, key: str, *, trained: bool = False) -> tuple[list[float], list[float]]:
        """(epochs, values) of one number; lines without it are left out."""
        lines = [line for line in (self.trained if trained else self.evaluations) if line.get(key) is not None]
        return [(line["step"] + 1) / self.steps_per_epoch for line in lines], [line[key] for line in lines]

    @property
    def best(self) -> Line | None:
        """The evaluation with the highest mean top-1, of those that are numbers throughout."""
        known = [line for line in self.evaluations if line.get("mean_top1") is not None and _is_finite(line)]
        return max(known, key=lambda line: line["mean_top1"], default=None)


def _is_finite(evaluation: Line) -> bool:
    """JSON has null for what is not; a task without a labelled photo has no loss, either."""
    tasks = [key.removesuffix(".loss") for key in evaluation if key.endswith(".loss")]
    return all(evaluation[f"{task}.loss"] is not None or not evaluation.get(f"{task}.count") for task in tasks)


def is_run(path: Path) -> bool:
    """A run folder holds the config it began with or at least its numbers."""
    return (path / "config.yaml").exists() or (path / "metrics.jsonl").exists()


def read_run(path: Path) -> RunRecord:
    """Whatever is there; nothing of it needs to be whole."""
    folder = RunFolder(path)
    warnings: list[str] = []
    lines = read_lines(folder.metrics)
    if not lines:
        warnings.append("metrics.jsonl has no line yet")
    finished = _result(folder, warnings)
    config = _config(folder, warnings)
    meta, model_path = _model(folder, warnings)
    return RunRecord(
        name=path.name or str(path),
        path=path,
        state="finished" if finished else "running" if is_locked(path / ".lock") else "cut off",
        config=config,
        trained=_of_kind("train", lines, "progress"),
        evaluations=_of_kind("evaluation", lines, "epoch"),
        bad=read_lines(folder.bad_samples),
        meta=meta,
        model_path=model_path,
        warnings=warnings,
    )


def _result(folder: RunFolder, warnings: list[str]) -> bool:
    try:
        return folder.finished() is not None
    except ValueError:
        warnings.append("result.json is cut")
        return False


def _of_kind(kind: str, lines: Sequence[Line], when: str) -> list[Line]:
    """Those that say in numbers when they were written."""
    return [
        line
        for line in lines
        if line.get("kind") == kind and all(isinstance(line.get(key), int | float) for key in ("step", when))
    ]


class _Model(BaseModel):
    artifact: str | None = None


class _Data(BaseModel):
    train: str | None = None
    val: str | None = None


class _Teacher(BaseModel):
    model: str | dict[str, str] | None = None
    cache: str | None = None
    views: int | None = None


class _Schedule(BaseModel):
    epochs: int = 0


class _ReadConfig(BaseModel):
    """What the report reads of a config."""

    model: _Model | None = None
    data: _Data | None = None
    teacher: _Teacher | None = None
    schedule: _Schedule | None = None


def _config(folder: RunFolder, warnings: list[str]) -> dict[str, Any]:
    """Without the sections that are wrong."""
    try:
        content = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        warnings.append(f"config.yaml cannot be read ({type(error).__name__})")
        return {}
    if not isinstance(content, dict):
        warnings.append("config.yaml is empty" if content is None else "config.yaml holds no keys")
        return {}
    try:
        _ReadConfig.model_validate(content)
    except ValidationError as error:
        warnings.append(f"config.yaml: {first_wrong_value(error)}")
        wrong = {item["loc"][0] for item in error.errors()}
        return {key: value for key, value in content.items() if key not in wrong}
    return content


def _model(folder: RunFolder, warnings: list[str]) -> tuple[ArtifactMeta | None, Path | None]:
    """The best model, else the last, and the folder to load it from."""
    without_weights: ArtifactMeta | None = None
    for place in (folder.best, folder.last):
        if place.exists():
            try:
                meta = read_meta(place)
            except ModelError as error:
                warnings.append(str(error))
                continue
            wrong_weights = weights_error(meta)
            if wrong_weights is None:
                return meta, place
            warnings.append(f"{wrong_weights}, so this model is not compared with others")
            without_weights = without_weights or meta
    if without_weights is None:
        warnings.append("no model was saved yet")
    return without_weights, None
