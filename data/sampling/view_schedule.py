"""Which augmented view of its samples a step sees: a pure function of epoch and step.

view, is_fresh = ViewSchedule(num_views=4).at(epoch=9, step=0)  # (1, False)
"""

from dataclasses import dataclass

from data.randomness import draw_uniform, mix

_FRESH = 107  # domain of the random keys of the steps that see a new view


@dataclass(frozen=True)
class ViewSchedule:
    """num_views: K views in turn, epoch e sees view e mod K; 0: every epoch its own. fresh_share: share of the steps
    that see a new view nevertheless, drawn by (seed, epoch, step)."""

    num_views: int = 0
    fresh_share: float = 0.0
    seed: int = 0

    def at(self, epoch: int, step: int) -> tuple[int, bool]:
        """(number of the view, whether it is one beyond the K in turn)."""
        if self.num_views == 0:
            return epoch, True
        if self.fresh_share and draw_uniform(int(mix(_FRESH, self.seed, epoch, step)), 1)[0] < self.fresh_share:
            return self.num_views + epoch, True
        return epoch % self.num_views, False
