"""Optimizer groups of a student: learning-rate multipliers, weight decay, frozen parts.

`torch.optim.SGD(parameter_groups(student, lr=0.1, weight_decay=4e-5, multipliers={"backbone": 0.1}), momentum=0.9)`

A part is `backbone`, `heads` or any module inside them by its dotted name, for example `backbone.blocks.0`.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from models.errors import ModelError
from models.student import Student


def parameter_groups(
    model: Student,
    *,
    lr: float,
    weight_decay: float,
    norm_bias_decay: bool = True,
    multipliers: Mapping[str, float] | None = None,
    freeze: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer, each with `params`, `name`, `lr`, `lr_multiplier` and `weight_decay`.

    A schedule sets `group["lr"] = scheduled_lr * group["lr_multiplier"]`. Of the parts in `multipliers` that hold a
    parameter, the innermost counts. With norm_bias_decay=False, one-dimensional parameters (norms and biases) are not
    decayed. The parts in `freeze` are frozen as by `freeze_parts`; frozen parameters are in no group. ModelError for
    unknown parts and when nothing is left to train.
    """
    multipliers = multipliers or {}
    for part, multiplier in multipliers.items():
        _require_part(model, part)
        if multiplier <= 0:
            raise ModelError(f"the multiplier of {part!r} is {multiplier}; it must be positive (freeze stops a part)")
    freeze_parts(model, freeze)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        matching = [part for part in multipliers if _is_inside(name, part)]
        part = max(matching, key=len) if matching else name.split(".")[0]
        decays = norm_bias_decay or parameter.ndim > 1
        group_name = part if decays else f"{part}, no decay"
        multiplier = multipliers.get(part, 1.0)
        group = groups.setdefault(
            group_name,
            {
                "params": [],
                "name": group_name,
                "lr": lr * multiplier,
                "lr_multiplier": multiplier,
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ModelError(f"nothing is left to train: {', '.join(freeze)} cover every parameter")
    return list(groups.values())


def freeze_parts(model: Student, parts: Sequence[str]) -> None:
    """Stop the training of parts of the model, in place.

    Their parameters get no gradient, and they stay in eval mode through `model.train()`, so their batch norms keep the
    statistics they came with.
    """
    for part in parts:
        _require_part(model, part)
        model.get_submodule(part).requires_grad_(False)
    model.frozen = tuple(dict.fromkeys([*model.frozen, *parts]))
    model.train(model.training)


def _is_inside(name: str, part: str) -> bool:
    return name.startswith(f"{part}.")


def _require_part(model: Student, part: str) -> None:
    parts = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    if part in parts:
        return
    near = get_close_matches(part, parts, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    top = ", ".join(name for name in parts if name.count(".") < 2)
    raise ModelError(f"the model has no part {part!r}; {hint}valid: {top}, and the modules inside them")
