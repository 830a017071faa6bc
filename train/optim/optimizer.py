"""The optimizer over the parameter groups of a student, and of the adapters between its features and a teacher's.

optimizer = build_optimizer(model, adapters, kind="sgd", lr=0.1, weight_decay=4e-5)
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from models.parameter_groups import parameter_groups
from models.student import Student


def build_optimizer(
    model: Student,
    adapters: nn.Module,
    *,
    kind: str,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    decay_norms_and_biases: bool = True,
    lr_multipliers: Mapping[str, float] = {},
    freeze: Sequence[str] = (),
) -> torch.optim.Optimizer:
    """kind: sgd, adam or adamw. lr_multipliers: part of the model -> factor; freeze: parts that do not learn. The
    adapters are a group of their own where there are any. The fused kernels can skip an update without telling the
    host. Raises ModelError for parts that the model does not have."""
    groups = parameter_groups(
        model,
        lr=lr,
        weight_decay=weight_decay,
        norm_bias_decay=decay_norms_and_biases,
        multipliers=lr_multipliers,
        freeze=freeze,
    )
    if trained := list(adapters.parameters()):
        groups.append(
            {"params": trained, "name": "bridges", "lr": lr, "lr_multiplier": 1.0, "weight_decay": weight_decay}
        )
    if kind == "sgd":
        sgd = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, fused=True)
        if momentum:
            _start_momentum(sgd)
        return sgd
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](groups, lr=lr, betas=betas, fused=True)


def _start_momentum(optimizer: torch.optim.SGD) -> None:
    """Momentum begins at 0. The fused kernel would make room for it in the first step and, should that step be skipped
    (fp16 often skips it), go on with whatever the memory held."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
