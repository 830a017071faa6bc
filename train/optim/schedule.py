"""Learning-rate and loss-weight schedules: pure functions of the step, so that resuming needs no state.

factor = learning_rate_factor(step, steps_per_epoch=1367, epochs=60, warmup_epochs=5)
"""

import math
from collections.abc import Sequence


def learning_rate_factor(
    step: int,
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float,
    warmup_factor: float = 0.1,
    decay: str = "cosine",
    final_factor: float = 0.0,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
) -> float:
    """What the learning rate is multiplied with at a step (counted from 0 over all epochs).

    Linear from warmup_factor to 1 over the warmup (Goyal et al. 2017), then half a cosine down to final_factor
    (Loshchilov and Hutter 2017), or constant, or x gamma at each milestone (in epochs).
    """
    warmup_steps = warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return warmup_factor + (1 - warmup_factor) * step / warmup_steps
    if decay == "constant":
        return 1.0
    if decay == "steps":
        return gamma ** sum(step >= milestone * steps_per_epoch for milestone in milestones)
    progress = (step - warmup_steps) / max(1.0, epochs * steps_per_epoch - warmup_steps)
    return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def weight_ramp(step: int, *, steps_per_epoch: int, epochs: int, power: float) -> float:
    """(epoch / (epochs - 1))^power, from 0 in the first epoch to 1 in the last; 1 throughout where power is 0 or there
    is one epoch only. With power 2 it is the weight that lets hints lead and the output follow."""
    if power == 0 or epochs == 1:
        return 1.0
    return float((step // steps_per_epoch / (epochs - 1)) ** power)
