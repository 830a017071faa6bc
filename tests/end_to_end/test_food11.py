"""The single-head case from its original files to an ensemble: build, train by a food-11 config, evaluate, predict."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.sources.food11 import CLASSES
from tests.conftest import REPOSITORY, rank_environment

# Photos per class, in the folders as published.
SPLITS = {"training": 6, "validation": 2, "evaluation": 1}


def command(*arguments: str | Path) -> str:
    """Run a command of the repository; its output. The test fails with the output when the command does."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        env=rank_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `food-11/` (generated photos, a colour per class) and `shards/` built from it."""
    root = tmp_path_factory.mktemp("food11")
    for split, per_class in SPLITS.items():
        folder = root / "food-11" / split
        folder.mkdir(parents=True)
        for label in range(len(CLASSES)):
            for number in range(1, per_class + 1):
                draws = np.random.default_rng([label, number, len(split)])
                colour = np.array([label % 3, label // 3 % 3, label // 9]) * 90 + 20
                pixels = np.clip(colour + draws.normal(0, 20, (48, 64, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{label}_{number}.jpg", quality=90)
    command("-m", "data.build", "--source", f"food11:{root / 'food-11'}", "--out", root / "shards", "--workers", 1)
    return root


def train(root: Path, config: str, folder: Path, **overrides: object) -> None:
    """A run of a food-11 config, made small: one epoch on the generated photos."""
    small = {
        "run.dir": folder,
        "data.train": root / "shards" / "train",
        "data.val": root / "shards" / "val",
        "data.image_size": 32,
        "data.workers": 0,
        "schedule.epochs": 1,
        "schedule.warmup_epochs": 0,
        "batch_size": 11,
        "tracking.wandb.mode": "disabled",
        "device": "cpu",
        **overrides,
    }
    path = REPOSITORY / "train" / "configs" / "food11" / config
    command("train/main.py", "--config", path, *(f"{key}={value}" for key, value in small.items()))


@pytest.fixture(scope="module")
def runs(root: Path) -> list[Path]:
    """Two students of the level-4 config, another seed each, which learn from a teacher of the teacher's config."""
    train(root, "teacher_resnet18.yaml", root / "runs" / "teacher")
    folders = [root / "runs" / f"seed{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        teacher = {"teacher.model": root / "runs" / "teacher" / "best"}
        train(root, "level4_ensemble.yaml", folder, seed=seed, **teacher)
    return folders


def evaluated(out: Path, *arguments: str | Path) -> dict[str, Any]:
    command("-m", "train.evaluate", *arguments, "--json", out, "--workers", 0, "--device", "cpu")
    return json.loads(out.read_text())


def test_the_published_splits_become_shards_of_one_task(root: Path) -> None:
    for split, published in (("train", "training"), ("val", "validation"), ("test", "evaluation")):
        index = json.loads((root / "shards" / split / "index.json").read_text())
        assert index["tasks"] == {"class": list(CLASSES)}
        assert sum(index["shards"]["count"]) == SPLITS[published] * len(CLASSES)


def test_evaluating_the_best_model_gives_the_numbers_of_its_own_validation(root: Path, runs: list[Path]) -> None:
    saved = json.loads((runs[0] / "best" / "model.json").read_text())
    assert saved["num_parameters"] == 99_060
    assert saved["tasks"] == [{"name": "class", "classes": list(CLASSES)}]
    result = evaluated(
        root / "val.json", "--model", runs[0] / "best", "--data", root / "shards" / "val", "--batch-size", "11"
    )
    found = result["tasks"]["class"]
    for measure in ("top1", "top5", "macro_f1", "majority", "count"):
        assert found[measure] == saved["metrics"][f"class.{measure}"], measure
    assert found["loss"] == pytest.approx(saved["metrics"]["class.loss"], rel=1e-5)
    assert found["count"] == 22


def test_an_ensemble_in_several_views_is_evaluated_and_predicts(root: Path, runs: list[Path]) -> None:
    models = ("--model", runs[0] / "best", "--model", runs[1] / "best")
    result = evaluated(root / "both.json", *models, "--data", root / "shards" / "test", "--tta", "4")
    assert (len(result["models"]), result["views"], result["tasks"]["class"]["count"]) == (2, 4, 11)
    assert result["models"][0]["sha256"] != result["models"][1]["sha256"]
    out = root / "predictions.csv"
    photos = root / "food-11" / "evaluation"
    options = (*models, "--data", photos, "--tta", "4", "--out", out, "--workers", 0, "--device", "cpu")
    printed = command("-m", "train.predict", *options)
    assert printed.splitlines()[-1] == f"wrote {out}: 11 photos predicted, 0 could not be used"
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == sorted(f"{label}_1.jpg" for label in range(11))
    confusion = result["tasks"]["class"]["confusion"]
    predicted = {row["key"]: row["class"] for row in rows}
    # Views hang on shard and key, which differ between a shard folder and a photo folder; most answers are the same.
    same = sum(confusion[label][CLASSES.index(predicted[f"{label}_1.jpg"])] for label in range(11))
    assert same >= 8
