"""A training run that takes about a second, in this process, and everything it said.

outcome = train_small(shards, tmp_path, "optimizer.lr=0.1")
"""

import contextlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from train.main import main

OPTIONS: dict[str, Any] = {
    "data": {"image_size": 24, "lanes": 6, "window": 4, "workers": 0},
    "augment": {"policy": "mild"},
    "model": {"backbone": "food11_student"},
    "optimizer": {"lr": 0.02},
    "schedule": {"epochs": 2, "warmup_epochs": 0},
    "batch_size": 11,
    "checkpoint": {"every_steps": 2},
    "tracking": {"wandb": {"mode": "disabled"}, "log_every": 1},
    "trace_samples": True,
}
STEPS = 3  # per epoch of the 33 tiny samples


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str
    run: Path

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.run / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def trained(self) -> list[tuple[int, str]]:
        """(step, shard/key) of every sample that was trained on."""
        return [(line["step"], key) for line in self.lines("trace-rank0.jsonl") for key in line["keys"]]


def small_config(shards: Path, folder: Path) -> Path:
    """The config file of the run in folder/run."""
    data = {"train": str(shards / "train"), "val": str(shards / "val"), **OPTIONS["data"]}
    config = {**OPTIONS, "run": {"dir": str(folder / "run")}, "data": data}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def train_small(shards: Path, folder: Path, *arguments: str) -> Outcome:
    config = small_config(shards, folder)
    # Real files, because the stacks of a stuck run are written past Python's own buffers.
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = main(["--config", str(config), *arguments])
        texts = [file.seek(0) or file.read() for file in (stdout, stderr)]
    return Outcome(code, texts[0], texts[1], folder / "run")
