"""The objective divides by the labels of the whole update, however it was dealt to ranks and micro-batches."""

import pytest
import torch

from data.index.labels import MISSING
from data.loading.batch import Batch
from train.losses.objective import LOSSES, Objective, label_term

LABELS = {"age": [0, 2, MISSING, 1, 1, 0, MISSING], "gender": [MISSING] * 5 + [1, 0]}
NUM_CLASSES = {"age": 3, "gender": 2}


def batch_of(labels: dict[str, list[int]]) -> Batch:
    label = {task: torch.tensor(values, dtype=torch.int64) for task, values in labels.items()}
    count = len(next(iter(labels.values())))
    return Batch(
        epoch=0,
        step=0,
        image=torch.zeros((count, 1, 1, 3), dtype=torch.uint8),
        label=label,
        valid={task: values != MISSING for task, values in label.items()},
        key=[str(number) for number in range(count)],
        index=torch.zeros((count, 2), dtype=torch.int64),
        row=torch.arange(count),
        bad=[],
    )


def logits_of(count: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {task: torch.randn(count, size, generator=generator) for task, size in NUM_CLASSES.items()}


@pytest.fixture
def objective() -> Objective:
    weights = torch.tensor([1.0, 2.0, 0.5])
    return Objective(
        [
            label_term("age", weight=0.7, class_weights=weights, label_smoothing=0.1),
            label_term("gender", weight=2.0, loss="focal", focal_gamma=1.5),
        ]
    )


def test_it_is_the_weighted_sum_of_mean_losses() -> None:
    batch, logits = batch_of(LABELS), logits_of(7)
    objective = Objective([label_term("age", weight=0.5), label_term("gender", weight=3.0)])
    loss, sums = objective(logits, batch, objective.weight_sums(batch), 0)
    means = {
        task: torch.nn.functional.cross_entropy(logits[task].double(), batch.label[task], ignore_index=MISSING)
        for task in LABELS
    }
    assert loss.item() == pytest.approx(0.5 * means["age"].item() + 3.0 * means["gender"].item(), rel=1e-5)
    assert sums.tolist() == pytest.approx([5 * means["age"].item(), 2 * means["gender"].item()], rel=1e-5)


@pytest.mark.parametrize("cuts", [[7], [3, 4], [1, 1, 5], [0, 7]])
def test_the_parts_of_an_update_add_up_to_the_whole(objective: Objective, cuts: list[int]) -> None:
    """Parts without a label of a task, or without any sample, included."""
    batch, logits = batch_of(LABELS), logits_of(7)
    weight_sums = objective.weight_sums(batch)
    whole, _ = objective(logits, batch, weight_sums, 0)
    total, part_masses, first = torch.zeros(()), [0.0, 0.0], 0
    for size in cuts:
        rows = slice(first, first + size)
        part = batch_of({task: values[rows] for task, values in LABELS.items()})
        total = total + objective({task: values[rows] for task, values in logits.items()}, part, weight_sums, 0)[0]
        part_masses = [old + new for old, new in zip(part_masses, objective.weight_sums(part), strict=True)]
        first += size
    assert part_masses == pytest.approx(weight_sums)
    torch.testing.assert_close(total, whole)


def test_a_task_without_any_label_adds_nothing_and_gets_no_gradient(objective: Objective) -> None:
    batch = batch_of({**LABELS, "gender": [MISSING] * 7})
    logits = {task: values.requires_grad_() for task, values in logits_of(7).items()}
    weight_sums = objective.weight_sums(batch)
    assert weight_sums[1] == 0
    loss, sums = objective(logits, batch, weight_sums, 0)
    loss.backward()
    alone = Objective(objective.terms[:1])
    torch.testing.assert_close(loss, alone(logits, batch, weight_sums[:1], 0)[0])
    assert sums[1] == 0
    assert logits["gender"].grad is not None
    assert torch.all(logits["gender"].grad == 0)


def test_the_mass_needs_no_forward_pass(objective: Objective) -> None:
    # ages 0, 2, 1, 1, 0 with the weights 1, 0.5, 2, 2, 1
    assert objective.weight_sums(batch_of(LABELS)) == [6.5, 2.0]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_of_the_table_can_be_a_term(loss: str) -> None:
    batch = batch_of(LABELS)
    objective = Objective([label_term("age", loss=loss, class_weights=torch.tensor([1.0, 2.0, 3.0]))])
    value, _ = objective(logits_of(7), batch, objective.weight_sums(batch), 0)
    assert torch.isfinite(value)
    assert value > 0
