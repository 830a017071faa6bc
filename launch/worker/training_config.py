"""What the config of a training command means for its launch; a mistake in it is reported once, before ranks start.

training = read_training_config(["python", "train/main.py", "--config", "run.yaml"])

No other file of `launch` imports from `train`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from launch.errors import LaunchError
from train.config.loading import load_config
from train.errors import ConfigError
from train.setup.launch_needs import LaunchNeeds, launch_needs


def read_training_config(command: Sequence[str]) -> LaunchNeeds | None:
    """None where the command is no training, or names no config. Raises LaunchError."""
    starts = [number for number in range(len(command)) if _is_training(command[: number + 1])]
    if not starts:
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--config")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("overrides", nargs="*")
    try:
        found, _ = parser.parse_known_args(command[starts[0] + 1 :])
        config = load_config(found.config, found.overrides) if found.config else None
    except argparse.ArgumentError as error:
        raise LaunchError(f"the command after --: {error}") from error
    except ConfigError as error:
        raise LaunchError(str(error)) from error
    return None if config is None else launch_needs(config)


def _is_training(words: Sequence[str]) -> bool:
    """Whether the words up to the last start a training: train/main.py, -m train.main, or slimheads train."""
    name = Path(words[-1]).name
    return name in ("main.py", "train.main") or [Path(word).name for word in words[-2:]] == ["slimheads", "train"]
