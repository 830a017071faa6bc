"""How long a run lasts and what happens how often in it: `LoopOptions(epochs=60, steps_per_epoch=1367)`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopOptions:
    """log_every, checkpoint_steps: steps (checkpoint_steps None: only after epochs). evaluate_every, checkpoint_epochs:
    epochs; the last epoch always counts. monitor: the value that `best` goes by. patience: evaluations without a better
    one after which the run ends; None: never."""

    epochs: int
    steps_per_epoch: int
    log_every: int = 20
    evaluate_every: int = 1
    checkpoint_steps: int | None = None
    checkpoint_epochs: int = 1
    monitor: str = "mean_top1"
    patience: int | None = None

    @property
    def num_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def evaluation_is_due(self, epoch: int) -> bool:
        return self._is_due(epoch, self.evaluate_every)

    def checkpoint_is_due(self, epoch: int, *, step: int, epoch_ends: bool) -> bool:
        """step: finished updates."""
        if epoch_ends and self._is_due(epoch, self.checkpoint_epochs):
            return True
        return self.checkpoint_steps is not None and step % self.checkpoint_steps == 0

    def _is_due(self, epoch: int, every: int) -> bool:
        return (epoch + 1) % every == 0 or epoch + 1 == self.epochs
