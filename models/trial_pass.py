"""Whether a network takes images of a size, found out before the first image is read: one pass over two black images.

    if error := trial_pass(model, 64): raise ModelError(f"... {error}")

Some networks are bound to one size, others are too deep for small ones, and each says so in its own way.
"""

import torch
from torch import Tensor

from models.errors import ModelError
from models.student import Student


def trial_pass(
    model: Student, size: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> str | None:
    """Why the model, which is on `device`, cannot compute [2, 3, size, size], in one line; None where it can.

    dtype: of autocast. Training mode, statistics and random states are left as they were.
    """
    device = torch.device(device)
    was_training = model.training
    image = torch.zeros(2, 3, size, size, device=device).to(memory_format=torch.channels_last)
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.no_grad(),
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        ):
            logits: dict[str, Tensor] = model.eval()(image)
    except Exception as error:  # networks assert, torch raises RuntimeErrors, and some fail in their own arithmetic
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    finally:
        model.train(was_training)
    for task, num_classes in model.tasks.items():
        if logits[task].shape != (2, num_classes):
            return f"it answers task {task!r} with numbers of shape {list(logits[task].shape)}"
    return None


def published_size(model: Student) -> int | None:
    """Pixels that a timm backbone was made for."""
    published = getattr(model.backbone, "pretrained_cfg", None) or {}
    size = published.get("input_size")
    return int(size[-1]) if size else None


def size_advice(model: Student, size: int, *, key: str) -> str:
    """What to do about it. key: the setting that names the size."""
    own = published_size(model)
    if own is not None and own != size:
        return f"set {key} to {own}, which the network was made for, or take another network"
    return f"choose another {key}, or another network"


def require_size(model: Student, size: int, *, whose: str) -> None:
    """ModelError where a saved model, which is on the CPU, cannot take images of a size. whose: its path."""
    if error := trial_pass(model, size):
        advice = size_advice(model, size, key="--image-size")
        raise ModelError(f"{whose}: does not run on {size}x{size} images ({error}); {advice}")
