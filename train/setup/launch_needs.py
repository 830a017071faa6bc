"""What a config means for the launch of its run: `needs = launch_needs(config)`."""

from dataclasses import dataclass
from pathlib import Path

from data.loading.step_memory import SLOTS
from train.config.schema import Config


@dataclass(frozen=True)
class LaunchNeeds:
    """rank_bounds: fewest and most ranks of an elastic job. batch_size: of all ranks together. sample_bytes: what the
    images of one sample take in the memory that a rank shares with its loader processes; 0 where it has none."""

    run_folder: Path
    rank_bounds: tuple[int, int] | None
    batch_size: int
    sample_bytes: int

    def loader_bytes(self, num_ranks: int) -> int:
        """About what the batches of one rank's loader processes take."""
        return SLOTS * -(-self.batch_size // num_ranks) * self.sample_bytes


def launch_needs(config: Config) -> LaunchNeeds:
    elastic = config.elastic
    return LaunchNeeds(
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
