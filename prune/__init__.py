"""Narrower networks from trained ones: which channels to take, the rewrite, and the check that it changed nothing else.

pruned = prune_model(PruneOptions(model="runs/a/best", ratio=0.3)); pruned.student, pruned.record["parameters"]

The commands are `python -m prune` and `python -m prune.curve`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune.options import PruneOptions
    from prune.saved_model import PrunedModel, prune_model

__all__ = ["PruneOptions", "PrunedModel", "prune_model"]


def __getattr__(name: str) -> Any:
    """`python -m` imports this file before the command has looked at its arguments: torch, which takes seconds, waits
    until a name is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prune import options, saved_model

    return getattr(options if name == "PruneOptions" else saved_model, name)
