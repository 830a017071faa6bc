"""Learning rates as a table of values, and as functions that know nothing but the step."""

import math

import pytest

from train.config.training import default_warmup
from train.optim.schedule import learning_rate_factor

COSINE = {"steps_per_epoch": 10, "epochs": 12, "warmup_epochs": 2, "warmup_factor": 0.1}
STEPS = {"steps_per_epoch": 10, "epochs": 9, "warmup_epochs": 0, "decay": "steps", "milestones": (3, 6), "gamma": 0.5}


@pytest.mark.parametrize(
    ("step", "options", "factor"),
    [
        (0, COSINE, 0.1),
        (5, COSINE, 0.325),
        (10, COSINE, 0.55),
        (19, COSINE, 0.955),
        (20, COSINE, 1.0),
        (45, COSINE, (1 + math.sqrt(0.5)) / 2),
        (70, COSINE, 0.5),
        (120, COSINE, 0.0),
        (500, COSINE, 0.0),
        (70, {**COSINE, "final_factor": 0.2}, 0.6),
        (120, {**COSINE, "final_factor": 0.2}, 0.2),
        (0, {**COSINE, "warmup_epochs": 0}, 1.0),
        (60, {**COSINE, "warmup_epochs": 0}, 0.5),
        (2, {**COSINE, "warmup_epochs": 0.5}, 0.1 + 0.9 * 2 / 5),
        (10, {**COSINE, "decay": "constant"}, 0.55),
        (119, {**COSINE, "decay": "constant"}, 1.0),
        (29, STEPS, 1.0),
        (30, STEPS, 0.5),
        (59, STEPS, 0.5),
        (60, STEPS, 0.25),
        (89, STEPS, 0.25),
        (10, {**STEPS, "warmup_epochs": 2, "warmup_factor": 0.5}, 0.75),
    ],
)
def test_the_table(step: int, options: dict, factor: float) -> None:
    assert learning_rate_factor(step, **options) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("epochs", "warmup"), [(1, 0.25), (2, 0.5), (10, 2.5), (19, 4.75), (20, 5), (21, 5), (60, 5), (300, 5)]
)
def test_the_default_warmup_is_five_epochs_and_a_quarter_of_a_short_schedule(epochs: int, warmup: float) -> None:
    assert default_warmup(epochs) == warmup


def test_the_default_is_a_warmup_from_a_tenth() -> None:
    """A fixed tenth, whatever the number of ranks."""
    at = [learning_rate_factor(s, steps_per_epoch=100, epochs=60, warmup_epochs=5) for s in (0, 250, 500, 3250)]
    assert at == pytest.approx([0.1, 0.55, 1.0, 0.5])


def test_a_step_asked_for_alone_or_out_of_order_has_the_same_rate() -> None:
    whole = [learning_rate_factor(step, **COSINE) for step in range(120)]
    assert [learning_rate_factor(step, **COSINE) for step in reversed(range(120))] == whole[::-1]


@pytest.mark.parametrize("warmup_epochs", [0, 1, 5])
def test_it_rises_to_one_and_falls_from_there(warmup_epochs: float) -> None:
    rates = [learning_rate_factor(s, steps_per_epoch=7, epochs=20, warmup_epochs=warmup_epochs) for s in range(140)]
    top = round(7 * warmup_epochs)
    assert rates[top] == max(rates) == 1.0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("epochs", [1, 2, 5, 20])
def test_by_default_every_schedule_gets_to_its_full_rate(epochs: int) -> None:
    rates = [
        learning_rate_factor(s, steps_per_epoch=4, epochs=epochs, warmup_epochs=default_warmup(epochs))
        for s in range(4 * epochs)
    ]
    assert max(rates) == 1.0
