"""Whether an exported file computes what the torch network computes: `require_parity("model.onnx", given, torchs)`."""

from collections.abc import Mapping

PARITY_LIMIT = 1e-3  # of the largest number; float sums in another order stay below 1e-5


def require_parity(name: str, difference: Mapping[str, float], largest: Mapping[str, float]) -> None:
    """difference: task -> largest |own - torch's| logit (or log-probability); largest: task -> largest of torch's.
    AssertionError naming file and task: a wrong graph is a mistake of the exporter, not of the user."""
    for task, value in difference.items():
        limit = PARITY_LIMIT * max(1.0, largest[task])
        if not value <= limit:
            raise AssertionError(f"{name}: task {task!r} differs from torch by {value:.2g}, allowed are {limit:.2g}")
