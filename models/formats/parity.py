"""Whether an exported file computes what the torch network computes: `require_same_logits(model, path, ...)`."""

from collections.abc import Mapping
from pathlib import Path

import torch

from models.errors import ModelError
from models.formats.loading import load_model
from models.student import Student

PARITY_LIMIT = 1e-3  # of the largest number; float sums in another order stay below 1e-5


def require_parity(name: str, difference: Mapping[str, float], largest: Mapping[str, float]) -> None:
    """difference: task -> largest |own - torch's| logit (or log-probability); largest: task -> largest of torch's.
    AssertionError naming file and task: a wrong graph is a mistake of the exporter, not of the user."""
    for task, value in difference.items():
        limit = PARITY_LIMIT * max(1.0, largest[task])
        if not value <= limit:
            raise AssertionError(f"{name}: task {task!r} differs from torch by {value:.2g}, allowed are {limit:.2g}")


def require_same_logits(model: Student, path: str | Path, *, image_size: int) -> None:
    """On a few images of noise, for want of photos. path: a float file. AssertionError as above; ModelError where it
    is the model's own answers that are not finite."""
    path = Path(path)
    loaded = load_model(path)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, image_size, image_size, 3), dtype=torch.uint8, generator=draw)
    mean, std = (torch.tensor(loaded.meta.preprocessing[name]) for name in ("mean", "std"))
    images = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model(images)
        if not all(logits.isfinite().all() for logits in expected.values()):
            raise ModelError(f"{loaded.meta.path}: the model's answers to noise are not numbers (NaN or infinity)")
        given = loaded.model(pixels if loaded.takes_pixels else images)
    difference = {task: (given[task] - logits).abs().max().item() for task, logits in expected.items()}
    require_parity(path.name, difference, {task: logits.abs().max().item() for task, logits in expected.items()})
