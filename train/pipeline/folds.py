"""One training for each fold of the photos: every photo is held out once. Stages, so what is done is not done again.

folds = train_folds(FoldPlan(source="photos.csv", num_folds=5, out=Path("folds"), config="mine.yaml"))
folds[0].model, folds[0].val  # a model, and the shards of the photos that it has not seen
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.build_options import parse_options
from data.errors import BadArgument, DataError
from data.index import INDEX_NAME, load_index
from data.index.class_counts import count_classes
from launch.file_lock import FileLock
from train.config.loading import load_config, require_named_models
from train.config.schema import describe
from train.errors import ConfigError
from train.pipeline.photos import look_at
from train.pipeline.progress import TrainingProgress
from train.pipeline.workshop import RECORDS, Workshop, python

_OURS = ("run.dir", "run.resume", "data.train", "data.val")  # keys of the config that each fold has its own of


@dataclass(frozen=True)
class FoldPlan:
    """source: photos and labels, as data.build takes them. out: folder of everything that is made. config, overrides:
    what is trained, as train.main takes it. groups: never parted, each a --group of data.build. build: further words
    for data.build. launcher: words before the command of a training, as "horovodrun -np 2"."""

    source: str
    num_folds: int
    out: Path
    config: str
    overrides: Sequence[str] = ()
    groups: Sequence[str] = ()
    build: str = ""
    launcher: str = ""

    @property
    def words(self) -> list[str]:
        """Of data.build, but for the fold and the folder."""
        groups = [word for group in self.groups for word in ("--group", group)]
        return ["--source", self.source, *groups, *shlex.split(self.build), "--folds", str(self.num_folds)]


@dataclass(frozen=True)
class Fold:
    """model: folder of the last epoch's model, which no held-out photo has chosen. train, val: shard folders."""

    model: str
    train: str
    val: str


def check_plan(plan: FoldPlan) -> None:
    """What can be told before anything is done: ConfigError; exits with 2 for wrong words for data.build."""
    require_named_models(load_config(plan.config, [*plan.overrides, *_places(plan, 0)]))
    if taken := [word for word in plan.overrides if word.partition("=")[0] in _OURS]:
        raise ConfigError(f"{taken[0]}: every fold has its own; leave it out")
    parse_options([*plan.words, "--fold", "0", "--out", str(plan.out)], about="")


def train_folds(plan: FoldPlan) -> list[Fold]:
    """All folds, in their order. Raises ConfigError, BadArgument, DataError, and StageFailed for a command that ended
    badly."""
    photos = look_at(plan.source, options=[*plan.words, "--fold", "0"])
    if photos.are_shards:
        raise BadArgument(
            f"--source {plan.source}: holds shards; folds are drawn from the photos, name what they are of"
        )
    (plan.out / RECORDS).mkdir(parents=True, exist_ok=True)
    with FileLock(plan.out / RECORDS / "lock") as lock:
        if not lock.acquire():
            raise ConfigError(f"{plan.out}: another command works in it at this moment")
        workshop = Workshop(plan.out, tell=lambda line: print(line, flush=True))
        shards = [_build(plan, number, workshop, photos.fingerprint) for number in range(plan.num_folds)]
        _require_two_classes(plan)
        models = [_train(plan, number, workshop, files) for number, files in enumerate(shards)]
    folders = [plan.out / _shards(number) for number in range(plan.num_folds)]
    return [
        Fold(model, str(folder / "train"), str(folder / "val")) for model, folder in zip(models, folders, strict=True)
    ]


def _shards(number: int) -> str:
    return f"fold-{number}/shards"


def _run(number: int) -> str:
    return f"fold-{number}/run"


def _places(plan: FoldPlan, number: int) -> list[str]:
    """Overrides that give a fold its folders; JSON is YAML for any path."""
    shards = plan.out / _shards(number)
    places = {"run.dir": plan.out / _run(number), "data.train": shards / "train", "data.val": shards / "val"}
    return [*(f"{key}={json.dumps(str(path))}" for key, path in places.items()), "run.resume=auto"]


def _build(plan: FoldPlan, number: int, workshop: Workshop, fingerprint: str) -> Mapping[str, str]:
    """Hashes of the fold's index files."""
    name = _shards(number)
    words = [*plan.words, "--fold", str(number)]

    def work() -> dict[str, Any]:
        workshop.run(name, python("data.build", *words, "--out", plan.out / name))
        return {"files": workshop.digest(*(f"{name}/{split}/{INDEX_NAME}" for split in ("train", "val")))}

    what = f"pack the photos, with fold {number} of {plan.num_folds} held out"
    files: Mapping[str, str] = workshop.stage(
        name, what=what, inputs={"words": words, "photos": fingerprint}, work=work
    )["files"]
    return files


def _require_two_classes(plan: FoldPlan) -> None:
    """DataError where no task has two classes: a training would be for nothing."""
    counts = [count_classes(load_index(plan.out / _shards(0) / split)) for split in ("train", "val")]
    if not any(((counts[0][task] + counts[1][task])[:-1] > 0).sum() >= 2 for task in counts[0]):
        listed = ", ".join(map(repr, counts[0])) or "none"
        raise DataError(
            f"--source {plan.source}: no task has labels of two classes (tasks: {listed}), so no label can be wrong"
        )


def _train(plan: FoldPlan, number: int, workshop: Workshop, files: Mapping[str, str]) -> str:
    """The model's folder."""
    name = _run(number)
    overrides = [*plan.overrides, *_places(plan, number)]

    def work() -> dict[str, Any]:
        run = workshop.out / name
        command = [
            *shlex.split(plan.launcher),
            *python("train.main", "--config", plan.config, *overrides),
        ]
        workshop.run(name, command, progress=TrainingProgress(name, run))
        return {"model": str(run / "last"), "files": workshop.digest(f"{name}/last/model.safetensors")}

    # The resolved config: a comment in the file changes nothing.
    inputs = {"config": describe(load_config(plan.config, overrides)), "data": files}
    model: str = workshop.stage(name, what=f"train without fold {number}", inputs=inputs, work=work)["model"]
    return model
