"""How much each unit of a channel group matters, by several criteria of one signature; `CRITERIA` names them.

importance = CRITERIA["gamma"](model, groups, ()); importance = CRITERIA["taylor"](model, groups, batches)

A criterion gives {group's name: float64 [num_units]}, higher for units that matter more. To add one: a function of that
signature and a line in `CRITERIA`; what needs images or norms is named below it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from data.index.labels import MISSING
from models.channel_groups import Group, Member
from models.channel_groups.narrow import Norm
from models.errors import ModelError

Batch = tuple[Tensor, Mapping[str, Tensor]]  # images [N, 3, H, W] normalised, {task: labels [N]}
Importance = dict[str, np.ndarray]
Criterion = Callable[[nn.Module, Sequence[Group], Iterable[Batch]], Importance]


def has_norm_gates(model: nn.Module, group: Group) -> bool:
    """Whether |gamma| is known for every channel; without a norm only criteria of weights and gradients apply."""
    return all(isinstance(model.get_submodule(gate.module), Norm) for gate in group.gates)


def gamma_importance(model: nn.Module, groups: Sequence[Group], batches: Iterable[Batch] = ()) -> Importance:
    """Mean |gamma| over the unit's places in all norms of the group (Liu et al. 2017). Raises ModelError for NaN."""
    return {group.name: np.mean([gate_gammas(model, group, gate) for gate in group.gates], axis=0) for group in groups}


def relative_gamma_importance(model: nn.Module, groups: Sequence[Group], batches: Iterable[Batch] = ()) -> Importance:
    """The same relative to the group's mean, so that no layer goes because all its gammas are small: they are where a
    short sparse training has not told channels apart yet. Raises ModelError for NaN."""
    return {name: _relative(gammas) for name, gammas in gamma_importance(model, groups).items()}


def gate_gammas(model: nn.Module, group: Group, gate: Member) -> np.ndarray:
    """|gamma| of one norm, float64 [num_units], the mean over a unit's channels. Raises ModelError where not finite."""
    gammas = model.get_submodule(gate.module).get_parameter("weight").detach().double().abs().cpu()
    if not torch.isfinite(gammas).all():
        bad = int((~torch.isfinite(gammas)).sum())
        raise ModelError(
            f"{gate.module}: {bad} of its {len(gammas)} weights are not finite (NaN or inf); the training broke "
            "before this model was saved, take an earlier one"
        )
    return gammas[gate.positions(group.num_units)].mean(dim=1).numpy()


def weight_importance(model: nn.Module, groups: Sequence[Group], batches: Iterable[Batch] = ()) -> Importance:
    """L2 norm of the weights that produce the unit (Li et al. 2017), relative to the group's mean, since layers with
    more inputs have larger norms. Raises ModelError for NaN."""
    importance = {}
    for group in groups:
        squares = torch.zeros(group.num_units, dtype=torch.float64)
        for producer in group.producers:
            weight = model.get_submodule(producer.module).get_parameter("weight").detach().double().cpu()
            squares += weight.flatten(1).square().sum(dim=1)[producer.positions(group.num_units)].sum(dim=1)
        norms = squares.sqrt()
        if not torch.isfinite(norms).all():
            raise ModelError(f"{group.name}: its weights are not finite (NaN or inf); take an earlier model")
        importance[group.name] = _relative(norms.numpy())
    return importance


def taylor_importance(model: nn.Module, groups: Sequence[Group], batches: Iterable[Batch] = ()) -> Importance:
    """Root mean square over batches of what silencing the unit changes in the sum of the tasks' losses, to first order
    (Molchanov et al. 2019)."""
    drops = _drops(model, groups, batches, per_task=False)
    return {name: drop[0] for name, drop in drops.items()}


def max_drop_importance(model: nn.Module, groups: Sequence[Group], batches: Iterable[Batch] = ()) -> Importance:
    """The largest over the tasks of the Taylor importance for that task's loss alone, relative to the task's mean, so
    that no task loses its own channels to those with larger losses."""
    drops = _drops(model, groups, batches, per_task=True)
    everywhere = np.concatenate(list(drops.values()), axis=1)  # [tasks, all units]
    means = np.maximum(everywhere.mean(axis=1), np.finfo(np.float64).tiny)
    return {name: (drop / means[:, None]).max(axis=0) for name, drop in drops.items()}


CRITERIA: dict[str, Criterion] = {
    "gamma": gamma_importance,
    "relative-gamma": relative_gamma_importance,
    "l2": weight_importance,
    "taylor": taylor_importance,
    "max-drop": max_drop_importance,
}
NEEDS_DATA = ("taylor", "max-drop")
NEEDS_NORMS = ("gamma", "relative-gamma")


def _relative(importance: np.ndarray) -> np.ndarray:
    mean = importance.mean()
    return importance / mean if mean > 0 else importance


def _drops(
    model: nn.Module, groups: Sequence[Group], batches: Iterable[Batch], *, per_task: bool
) -> dict[str, np.ndarray]:
    """Group -> float64 [losses, num_units]: RMS over batches of gate x gradient, summed over the unit's gates."""
    gates = [gate for group in groups for gate in group.gates]
    parameters = [
        parameter for gate in gates for parameter in model.get_submodule(gate.module).parameters(recurse=False)
    ]
    squares: dict[str, list[Tensor]] = {}
    num_batches = 0
    was_training = model.training
    model.eval()
    for images, labels in batches:
        with torch.enable_grad():
            logits = model(images)
            losses = [_loss(logits[task], labels[task]) for task in logits]
        losses = losses if per_task else [torch.stack(losses).sum()]
        for number, loss in enumerate(losses):
            gradients = torch.autograd.grad(
                loss, parameters, retain_graph=number + 1 < len(losses), allow_unused=True, materialize_grads=True
            )
            by_id = {id(parameter): gradient for parameter, gradient in zip(parameters, gradients, strict=True)}
            for group in groups:
                drop = _unit_drop(model, group, by_id)
                sums = squares.setdefault(group.name, [torch.zeros_like(drop) for _ in losses])
                sums[number] += drop.square()
        num_batches += 1
    model.train(was_training)
    if not num_batches:
        raise ModelError("this score needs labelled photos: name a shard folder with --data")
    drops = {name: (torch.stack(sums) / num_batches).sqrt().numpy() for name, sums in squares.items()}
    if broken := [name for name, drop in drops.items() if not np.isfinite(drop).all()]:
        raise ModelError(
            f"{broken[0]}: what its channels change in the loss is not finite (NaN or inf) on these photos; "
            "take an earlier model"
        )
    return drops


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    if bool((labels != MISSING).any()):
        return cross_entropy(logits, labels, ignore_index=MISSING)
    return logits.sum() * 0.0


def _unit_drop(model: nn.Module, group: Group, gradients: Mapping[int, Tensor]) -> Tensor:
    """What the loss changes when the unit's gates go to zero, to first order: float64 [num_units]."""
    total = torch.zeros(group.num_units, dtype=torch.float64)
    for gate in group.gates:
        positions = gate.positions(group.num_units)
        for parameter in model.get_submodule(gate.module).parameters(recurse=False):
            product = (parameter.detach() * gradients[id(parameter)]).double().flatten(1 if parameter.ndim > 1 else 0)
            per_channel = product.sum(dim=1) if parameter.ndim > 1 else product
            total += per_channel.cpu()[positions].sum(dim=1)
    return total.abs()
