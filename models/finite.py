"""Whether a network's weights and statistics are numbers at all: `require_finite(student, path)`."""

from pathlib import Path

from torch import nn

from models.errors import ModelError


def broken_tensors(model: nn.Module) -> str:
    """The first weight or statistic that is not finite and how many more there are, in words; empty where all are."""
    broken = [
        f"{name} ({int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers)"
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    return "" if not broken else broken[0] + (f" and {len(broken) - 1} more" if len(broken) > 1 else "")


def require_finite(model: nn.Module, path: str | Path) -> None:
    """ModelError naming the file: such a model predicts nothing, and nothing useful can be made of it."""
    if broken := broken_tensors(model):
        raise ModelError(
            f"{path}: weights or statistics are not finite (NaN or inf): {broken}; the training broke before this "
            "model was saved, or its file was changed; take an earlier one"
        )
