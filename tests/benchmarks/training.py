"""The same training step twice: ours, and the plain PyTorch loop that one would write by hand.

steps = our_steps(new_student(), random_batch(16, size=96), comm); steps(10)
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from data.loading.batch import Batch
from models.parameter_groups import parameter_groups
from models.preprocessing import PRECISIONS, Normalise
from models.student import Student, build_student
from train.distributed.comm import Comm
from train.distributed.gradient_buckets import GradientBuckets
from train.loop.step_sync import StepSync
from train.loop.train_metrics import TrainMetrics
from train.loop.train_step import TrainStep
from train.losses.objective import LossTerm, Objective, label_term

TASKS = {"gender": 2, "age": 5, "beauty": 5}
_RATE, _MOMENTUM, _DECAY = 0.05, 0.9, 4e-5
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def new_student() -> Student:
    """MobileNetV2 x0.5 with an embedding head of three tasks, the same weights each time."""
    torch.manual_seed(0)
    student = build_student(backbone="mobilenetv2_050", head={"kind": "multi-embedding", "width": 512}, tasks=TASKS)
    return student.to(memory_format=torch.channels_last).train()


def random_batch(num_samples: int, *, size: int, seed: int = 0) -> Batch:
    """Noise with labels, of which every seventh is missing."""
    draw = torch.Generator().manual_seed(seed)
    number = torch.arange(num_samples)
    label = {
        task: torch.randint(classes, (num_samples,), generator=draw).masked_fill(number % 7 == at, -1)
        for at, (task, classes) in enumerate(TASKS.items())
    }
    return Batch(
        epoch=0,
        step=0,
        image=torch.randint(256, (num_samples, size, size, 3), dtype=torch.uint8, generator=draw),
        label=label,
        valid={task: column >= 0 for task, column in label.items()},
        key=[f"noise{at}" for at in range(num_samples)],
        index=torch.stack([torch.zeros_like(number), number], dim=1),
        row=number,
        bad=[],
    )


def our_steps(
    student: Student,
    batch: Batch,
    comm: Comm,
    *,
    precision: str = "fp32",
    num_buckets: int = 3,
    more_terms: Sequence[LossTerm] = (),
    batch_hooks: Sequence[Callable[[Batch], Batch]] = (),
    gradient_hooks: Sequence[Callable[[int], None]] = (),
    update_hooks: Callable[[torch.optim.Optimizer], Sequence[Callable[[int], None]]] = lambda optimizer: (),
) -> Callable[[int], None]:
    """A number of updates as train.loop.trainer makes them: the next batch's control message leaves before each.

    The message of the batch that would come next stays under way, as in a long run.
    """
    objective = Objective([*(label_term(task) for task in TASKS), *more_terms])
    groups = parameter_groups(student, lr=_RATE, weight_decay=_DECAY)
    optimizer = torch.optim.SGD(groups, lr=_RATE, momentum=_MOMENTUM, nesterov=True, fused=True)
    train_step = TrainStep(
        model=student,
        normalise=Normalise(_MEAN, _STD),
        objective=objective,
        optimizer=optimizer,
        buckets=GradientBuckets(student, comm, count=num_buckets),
        metrics=TrainMetrics(objective, list(TASKS), torch.device("cpu")),
        comm=comm,
        device=torch.device("cpu"),
        learning_rate=lambda step: _RATE,
        precision=precision,
        batch_hooks=batch_hooks,
        gradient_hooks=gradient_hooks,
        update_hooks=update_hooks(optimizer),
    )
    step_sync = StepSync(objective, comm)

    step_sync.start(batch, stop=False)

    def steps(count: int) -> None:
        for _ in range(count):
            totals = step_sync.finish()
            step_sync.start(batch, stop=False)
            train_step.update(batch, totals, step=train_step.metrics.num_steps)

    return steps


def bare_optimizer(model: nn.Module, *, fused: bool | None = True) -> torch.optim.SGD:
    """The same SGD over all parameters; `fused=None` leaves the choice to torch."""
    return torch.optim.SGD(
        model.parameters(), lr=_RATE, momentum=_MOMENTUM, weight_decay=_DECAY, nesterov=True, fused=fused
    )


def bare_steps(
    model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, *, precision: str = "fp32"
) -> Callable[[int], None]:
    """A number of: zero_grad, forward, cross entropies, backward, step. Model and optimizer may be wrapped."""
    normalise = Normalise(_MEAN, _STD)

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "fp32"):
                logits: dict[str, Tensor] = model(normalise(batch.image))
            losses = [
                functional.cross_entropy(logits[task].float(), batch.label[task], ignore_index=-1) for task in TASKS
            ]
            torch.stack(losses).sum().backward()
            optimizer.step()

    return steps
