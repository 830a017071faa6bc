"""The check that a masked network and its narrow rebuild are one and the same function, and one that still answers.

equivalence = check_equivalence(masked, narrow, check_inputs(224, batches))  # raises NotEquivalent
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import ModelError
from models.student import Student

TOLERANCE = 1e-9  # of the largest logit
LEAST_VARIATION = 1e-3  # of the logits before: float32 sums of alike images differ by less, any live network by more
NUM_IMAGES = 2  # of each kind: float64 convolutions are slow


class NotEquivalent(ModelError):
    """The rebuilt network is not the masked one; nothing may be written."""


@dataclass(frozen=True)
class Equivalence:
    """Of one kind of input: the largest difference of a logit and the largest logit, over all tasks."""

    num_images: int
    difference: float
    largest_logit: float


def check_inputs(size: int, batches: Iterable[Tensor] = (), *, seed: int = 0) -> dict[str, Tensor]:
    """`random` images and, where there is one, the first batch of photos as `real`: float32 [N, 3, size, size]."""
    inputs = {"random": random_images(size, seed=seed)}
    if (first := next(iter(batches), None)) is not None:
        inputs["real"] = first
    return inputs


def random_images(size: int, *, seed: int = 0) -> Tensor:
    """float32 [NUM_IMAGES, 3, size, size], normal."""
    return torch.randn(NUM_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def check_equivalence(masked: Student, narrow: Student, inputs: Mapping[str, Tensor]) -> dict[str, Equivalence]:
    """Compare in float64. inputs: name -> images [N, 3, H, W]. Raises NotEquivalent beyond TOLERANCE and for logits
    that are not finite."""
    checked = {}
    for name, images in inputs.items():
        theirs = torch.cat(list(masked(images.double()).values()), dim=1)
        ours = torch.cat(list(narrow(images.double()).values()), dim=1)
        result = Equivalence(len(images), float((ours - theirs).abs().max()), float(theirs.abs().max()))
        if not math.isfinite(result.largest_logit):
            raise NotEquivalent(
                f"the model gives logits that are not finite (nan or inf) on {name} input, pruned or not: its training "
                "diverged or its file was changed; nothing was written"
            )
        if not result.difference <= TOLERANCE * result.largest_logit:
            raise NotEquivalent(
                f"the narrow network differs from the masked one by {result.difference:.3g} on {name} input, where the "
                f"largest logit is {result.largest_logit:.3g} and {TOLERANCE:g} of it is allowed; nothing was written"
            )
        checked[name] = result
    return checked


class ConstantAnswers(ModelError):
    """A pruned network that answers every image alike, which a masked one does, too; nothing may be written."""


@torch.no_grad()
def require_varied(before: Student, after: Student, inputs: Mapping[str, Tensor], *, cut: str) -> None:
    """Raises ConstantAnswers where a task's logits differ from image to image by less than LEAST_VARIATION of what they
    did before the pruning. inputs: name -> images [N, 3, H, W]. cut: what the pruning left of the layer to blame."""
    images = torch.cat(list(inputs.values())).float()
    ours, theirs = after(images), before(images)
    for task in theirs:
        varied, now = _variation(theirs[task]), _variation(ours[task])
        # A model whose own differences are lost in float32 has nothing to lose.
        if varied > LEAST_VARIATION**2 * float(theirs[task].abs().max()) and not now > LEAST_VARIATION * varied:
            raise ConstantAnswers(
                f"task {task!r}: the pruned network answers every image alike (its logits vary by {now:.2g}, those of "
                f"the model by {varied:.2g}); {cut}; raise --min-features or --floor, or allow a larger budget; "
                "nothing was written"
            )


def _variation(logits: Tensor) -> float:
    """The largest difference between two images [N, C] of a class's logit against the others'."""
    relative = logits.double() - logits.double().mean(dim=1, keepdim=True)
    return float((relative.amax(dim=0) - relative.amin(dim=0)).max())
