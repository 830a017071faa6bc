"""A command that only parses its arguments, or refuses them, does not wait for libraries that it does not use then."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, rank_environment

HEAVY = ("torch", "webdataset", "fsspec")  # seconds, seconds, and a fifth of what is left
OPENCV = "cv2"

LOADED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=False)
except SystemExit as end:
    print("exit code", end.code)
print("loaded:", *(name for name in sys.modules if "." not in name))
"""


def loaded_by(*command: str) -> tuple[str, set[str]]:
    """What a command prints in a fresh process, and the packages that it has imported by its end."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command],
        env=rank_environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    printed, _, loaded = done.stdout.rpartition("loaded:")
    return printed + done.stderr, set(loaded.split())


@pytest.mark.parametrize("command", ["data.build", "data.verify", "data.index", "data.correct"])
def test_help_loads_nothing_heavy(command: str) -> None:
    printed, loaded = loaded_by(command, "--help")
    assert "usage: python -m " + command in printed
    assert loaded & {*HEAVY, OPENCV} == set()


def test_help_of_the_preview_loads_little(tmp_path: Path) -> None:
    printed, loaded = loaded_by("data.preview", "--help")
    assert "usage: python -m data.preview" in printed
    assert loaded & set(HEAVY) == set()


def test_a_typo_in_a_manifest_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,tone,split\na.jpg,dark,trian\n")
    source = f"manifest:{tmp_path / 'labels.csv'}"
    printed, loaded = loaded_by("data.build", "--source", source, "--out", str(tmp_path / "out"))
    assert "line 2, split 'trian' is not one of" in printed
    assert loaded & {*HEAVY, OPENCV} == set()
