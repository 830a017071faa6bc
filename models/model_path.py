"""Whether there can be a model at a path, asked before anything slow: this file needs neither torch nor the weights.

    require_models("runs/a/best", "export/model.onnx")

Importing torch takes seconds, so a command file asks before it does: `exit_if_missing(*given_as("--model"))`.
"""

import argparse
import sys
from pathlib import Path

from models.errors import ModelError

META_NAME = "model.json"
EXPORTED = (".onnx", ".pte", ".uint8.safetensors")


def require_models(*paths: str | Path) -> None:
    """ModelError for the first path that holds neither a saved nor an exported model."""
    for path in map(Path, paths):
        file = path / META_NAME if path.is_dir() else path
        if file.exists():
            continue
        if path.name.endswith(EXPORTED):
            raise ModelError(f"{path}: no such file{_nearby(path)}")
        raise ModelError(
            f"{file}: cannot be read (No such file or directory); a model is a folder with {META_NAME}{_nearby(path)}"
        )


def given_as(*options: str) -> list[str]:
    """The values of these options among the process's own arguments; whatever else is said there is judged later."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for option in options:
        parser.add_argument(option, action="append", nargs="?", default=[], dest="paths")
    try:
        return list(filter(None, parser.parse_known_args()[0].paths))
    except argparse.ArgumentError:
        return []


def exit_if_missing(*paths: str) -> None:
    """`require_models`, for a command that has not imported anything yet: ends the process in words."""
    try:
        require_models(*paths)
    except ModelError as error:
        print(f"error: {error}\nexit 2: the config or an argument is wrong", file=sys.stderr, flush=True)
        sys.exit(2)


def _nearby(path: Path) -> str:
    """A run's folder for that of its model is the commonest mistake."""
    for name in ("best", "last"):
        if (path / name / META_NAME).exists():
            return f"; did you mean {path / name}?"
    return ""
