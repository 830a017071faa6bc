"""What the config of a training command means for its launch; a mistake in it is reported once, before ranks start.

training = read_training_config(["python", "train/main.py", "--config", "run.yaml"])

No other file of `launch` imports from `train` or `data`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.loading.step_memory import SLOTS
from launch.errors import LaunchError
from train.config.loading import load_config
from train.config.schema import Config
from train.errors import ConfigError


@dataclass(frozen=True)
class TrainingConfig:
    """rank_bounds: fewest and most ranks of an elastic job. batch_size: of all ranks together. sample_bytes: what the
    images of one sample take in the memory that a rank shares with its loader processes; 0 where it has none.
    """

    run_folder: Path
    rank_bounds: tuple[int, int] | None
    batch_size: int
    sample_bytes: int

    def loader_bytes(self, num_ranks: int) -> int:
        """About what the batches of one rank's loader processes take."""
        return SLOTS * -(-self.batch_size // num_ranks) * self.sample_bytes


def read_training_config(command: Sequence[str]) -> TrainingConfig | None:
    """None where the command is no training, or names no config. Raises LaunchError."""
    starts = [number for number, word in enumerate(command) if Path(word).name == "main.py" or word == "train.main"]
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
    if config is None:
        return None
    elastic = config.elastic
    return TrainingConfig(
        run_folder=Path(config.run.dir),
        rank_bounds=(elastic.min_ranks, elastic.max_ranks) if elastic else None,
        batch_size=config.batch_size,
        sample_bytes=_sample_bytes(config),
    )


def _sample_bytes(config: Config) -> int:
    if config.data.workers == 0:
        return 0
    sizes = {config.data.image_size, (config.teacher and config.teacher.image_size) or config.data.image_size}
    return sum(3 * size * size for size in sizes)  # uint8 RGB
