"""From the photos to a recipe: how large, how long and in which steps the networks are trained. Pure functions.

recipe = choose_recipe(RecipeChoices(), num_photos=2600, photo_side=348, seconds={128: 0.012}, precision="fp32")

What the rules rest on was measured on 2,600 photos of groceries (docs/RESULTS.md): 12 to 14 epochs of fine-tuning with
strong augmentation and crops from a quarter of the area; taylor importance, at most 65 % of a layer, recalibrated
statistics; rounds that leave half of the multiply-accumulates; 4 epochs after a round and 8 after the last one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from train.pipeline.config import RecipeChoices

SIZES = (96, 128, 160, 192, 224)
_PHOTOS_MEASURED, _EPOCHS_MEASURED = 2600, 14
_FEWEST_EPOCHS, _MOST_EPOCHS = 4, 40
_FEW_PHOTOS = 20_000  # up to which 160 pixels are the default
_ROUND_SHARE = 0.5  # of the MACs that a round leaves at least
DEFAULT_SHARE = 0.3  # of the teacher's MACs, where no budget is given


@dataclass(frozen=True)
class Recipe:
    """image_size: pixels to train on. epochs: of the teacher, after a round, after the last one. precision: of the
    forward and backward pass. hours: expected of all trainings."""

    image_size: int
    epochs: int
    round_epochs: int
    tune_epochs: int
    batch_size: int
    lr: float
    tune_lr: float
    precision: str
    hours: float


def choose_recipe(
    choices: RecipeChoices,
    *,
    num_photos: int,
    photo_side: int,
    seconds: Mapping[int, float],
    precision: str,
    rounds: int = 2,
) -> Recipe:
    """What the choices leave open.

    num_photos: to train on. photo_side: median short side, pixels. seconds: image size -> seconds a photo of a training
    step of the teacher, on all ranks together. rounds: of pruning."""
    epochs = choices.epochs or _epochs(num_photos)
    tune_epochs = choices.tune_epochs or max(2, round(epochs * 8 / _EPOCHS_MEASURED))
    round_epochs = choices.round_epochs or max(1, round(epochs * 4 / _EPOCHS_MEASURED))
    # The pruned networks cost less than the teacher; their average over the rounds is near a half.
    passes = epochs + 0.5 * (tune_epochs + round_epochs * max(0, rounds - 1))
    size = choices.image_size or _image_size(num_photos, photo_side)
    if choices.hours is not None and choices.image_size is None:
        fitting = [one for one in SIZES if one <= size and _hours(num_photos, passes, seconds, one) <= choices.hours]
        size = max(fitting, default=SIZES[0])
    hours = _hours(num_photos, passes, seconds, size)
    if choices.hours is not None and hours > choices.hours and choices.epochs is None:
        share = choices.hours / hours
        epochs, tune_epochs, round_epochs = (
            max(least, math.floor(number * share))
            for number, least in ((epochs, 2), (tune_epochs, 2), (round_epochs, 1))
        )
        passes = epochs + 0.5 * (tune_epochs + round_epochs * max(0, rounds - 1))
        hours = _hours(num_photos, passes, seconds, size)
    batch_size = choices.batch_size or _batch_size(num_photos)
    return Recipe(
        image_size=size,
        epochs=epochs,
        round_epochs=round_epochs,
        tune_epochs=tune_epochs,
        batch_size=batch_size,
        lr=choices.lr or round(0.1 * batch_size / 64, 6),
        tune_lr=choices.tune_lr or round(0.04 * batch_size / 64, 6),
        precision=choices.precision or precision,
        hours=hours,
    )


def sizes_to_ask(image_size: int) -> tuple[int, ...]:
    """Sizes at which a network that was trained on random crops may be asked: crops enlarge things, so that larger
    photos look to it as those of training did (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
    Multiples of 16, from 1 to 1.5 times the size of training."""
    return tuple(
        dict.fromkeys(math.floor(image_size * factor / 16 + 0.5) * 16 for factor in (1, 1.125, 1.25, 1.375, 1.5))
    )


def round_shares(share: float) -> list[float]:
    """The shares of the MACs that each round keeps of what the one before left; together they keep `share`."""
    rounds = max(1, math.ceil(math.log(share) / math.log(_ROUND_SHARE) - 1e-9))
    return [share ** (1 / rounds)] * rounds


def _epochs(num_photos: int) -> int:
    """Fewer epochs the more photos there are, but more updates."""
    wanted = _EPOCHS_MEASURED * (_PHOTOS_MEASURED / num_photos) ** 0.25
    return min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, round(wanted)))


def _image_size(num_photos: int, photo_side: int) -> int:
    largest = 160 if num_photos <= _FEW_PHOTOS else 192
    return max((size for size in SIZES if size <= min(largest, photo_side)), default=SIZES[0])


def _batch_size(num_photos: int) -> int:
    """At least some ten updates an epoch, at most 256 samples each."""
    return min(256, max(16, 2 ** round(math.log2(max(num_photos, 1) / 40))))


def _hours(num_photos: int, passes: float, seconds: Mapping[int, float], size: int) -> float:
    nearest = min(seconds, key=lambda one: abs(one - size))
    return num_photos * passes * seconds[nearest] * (size / nearest) ** 2 / 3600
