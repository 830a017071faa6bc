"""The recipe follows the photos, their size and the hours, and every choice wins over it."""

import math

import pytest

from train.pipeline.config import RecipeChoices
from train.pipeline.recipe import choose_recipe, round_shares, sizes_to_ask

SECONDS = {96: 0.014, 128: 0.025, 160: 0.039, 192: 0.056, 224: 0.077}


def choose(num_photos=2600, side=348, **choices):
    return choose_recipe(
        RecipeChoices(**choices), num_photos=num_photos, photo_side=side, seconds=SECONDS, precision="fp32"
    )


def test_the_set_that_was_measured_gets_what_was_measured():
    recipe = choose()
    assert (recipe.image_size, recipe.epochs, recipe.round_epochs, recipe.tune_epochs) == (160, 14, 4, 8)
    assert recipe.batch_size == 64
    assert recipe.lr == pytest.approx(0.1)
    assert recipe.hours == pytest.approx(2600 * (14 + 0.5 * (8 + 4)) * 0.039 / 3600)


def test_many_photos_lead_to_another_recipe_than_few():
    few, many = choose(num_photos=300), choose(num_photos=350_000)
    assert few.epochs > choose().epochs > many.epochs
    assert few.batch_size < choose().batch_size < many.batch_size
    assert many.image_size > few.image_size
    updates = [recipe.epochs * photos / recipe.batch_size for recipe, photos in ((few, 300), (many, 350_000))]
    assert updates[1] > updates[0]


def test_photos_are_not_enlarged():
    assert choose(side=130).image_size == 128
    assert choose(side=20).image_size == 96


@pytest.mark.parametrize("hours", [0.05, 0.1, 0.2, 1.0])
def test_the_hours_are_kept_by_smaller_photos_and_then_by_fewer_epochs(hours):
    recipe = choose(hours=hours)
    assert recipe.hours <= hours * 1.35, "a floor of epochs may pass them a little"
    if hours < 0.15:
        assert recipe.image_size == 96
        assert recipe.epochs < 14
    if hours == 1.0:
        assert recipe == choose()


def test_what_is_chosen_stays():
    recipe = choose(image_size=224, epochs=3, batch_size=32, lr=0.02, precision="bf16", hours=0.01)
    assert (recipe.image_size, recipe.epochs, recipe.batch_size, recipe.lr, recipe.precision) == (
        224,
        3,
        32,
        0.02,
        "bf16",
    )


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3, 0.1, 0.02])
def test_rounds_keep_at_least_half_and_together_the_share(share):
    shares = round_shares(share)
    assert math.prod(shares) == pytest.approx(share)
    assert min(shares) >= 0.5 - 1e-9
    assert len(shares) == 1 or math.prod(shares) < 0.5


def test_sizes_to_ask_go_from_the_size_of_training_to_half_as_much_again():
    assert sizes_to_ask(160) == (160, 176, 208, 224, 240)
    assert all(size % 16 == 0 for size in sizes_to_ask(96))
