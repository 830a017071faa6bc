"""A container's small /dev/shm loses nothing: in a mount namespace where it holds 64 kB."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, rank_environment
from tests.small_run import Outcome, small_config, train_small

OVERRIDES = ["data.image_size=64", "data.eval_size=64"]  # a batch is 135 kB


def in_small_shared_memory(*command: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        reason = "a mount of one's own needs root and util-linux"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, *command]
    return subprocess.run(
        inside, env=rank_environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )


def test_training_and_predicting_need_no_shared_memory(tiny_shards: Path, tmp_path: Path) -> None:
    config = small_config(tiny_shards, tmp_path / "small")
    done = in_small_shared_memory("train/main.py", "--config", str(config), "data.workers=2", *OVERRIDES)
    assert done.returncode == 0, done.stderr
    ours = Outcome(0, done.stdout, done.stderr, tmp_path / "small" / "run")
    theirs = train_small(tiny_shards, tmp_path / "ample", *OVERRIDES)
    assert ours.trained() == theirs.trained()
    assert len(ours.trained()) == 2 * 33
    weights = [outcome.run / "best" / "model.safetensors" for outcome in (ours, theirs)]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    out = tmp_path / "predictions.csv"
    predict = ["-m", "train.predict", "--model", str(weights[0].parent), "--data", str(tiny_shards / "train")]
    done = in_small_shared_memory(*predict, "--out", str(out), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert len(list(csv.DictReader(out.open()))) == 33
