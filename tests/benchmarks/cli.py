"""How long a user waits for help, and to be told of a typo: `cli_seconds`, the slowest command's best of some tries."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.figure import Figure

_REPOSITORY = Path(__file__).resolve().parents[2]


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    tries = 2 if quick else 7
    (folder / "table.csv").write_text("imgae,age\nno-such-photo.jpg,young\n")
    commands: dict[str, tuple[Sequence[str], int]] = {
        "train_help": (("train/main.py", "--help"), 0),
        "build_help": (("-m", "data.build", "--help"), 0),
        "config_typo": (
            ("train/main.py", "--config", "train/configs/solar/quickstart.yaml", "modle.backbone=resnet18"),
            2,
        ),
        "csv_typo": (("-m", "data.build", "--source", f"manifest:{folder}/table.csv", "--out", f"{folder}/out"), 65),
    }
    seconds = {name: _best(arguments, code, tries) for name, (arguments, code) in commands.items()}
    slowest = max(seconds, key=lambda name: seconds[name])
    others = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    return [Figure("cli_seconds", seconds[slowest], target=0.5, note=f"best of {tries}: {others}")]


def _best(arguments: Sequence[str], code: int, tries: int) -> float:
    """The least: what else runs can only slow a start down. The first start also fills the disk cache."""
    taken = []
    for _ in range(tries + 1):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=_REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        taken.append(time.perf_counter() - begin)
        if done.returncode != code:
            raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}, expected {code}: {done.stderr}")
    return min(taken[1:])
