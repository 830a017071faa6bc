"""Takes channels out of a network, in place: every module that holds them gets smaller tensors.

narrow(student, groups, {"backbone.blocks.1.0.conv_pw": [0, 2, 3]})
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from models.channel_groups.group import Group, Member

Norm = nn.modules.batchnorm._BatchNorm


def narrow(model: nn.Module, groups: Iterable[Group], kept: Mapping[str, Sequence[int]]) -> None:
    """Keep these units of the named groups and all of the others. kept: group name -> ascending units."""
    for group in groups:
        if group.name not in kept:
            continue
        units = torch.tensor(list(kept[group.name]), dtype=torch.int64)
        # By name, since a producer without a norm is its own gate.
        outputs = {member.module: member for member in (*group.producers, *group.gates, *group.scalers)}
        for member in outputs.values():
            _keep_outputs(model.get_submodule(member.module), _places(member, group, units))
        for member in group.followers:
            follower = model.get_submodule(member.module)
            assert isinstance(follower, nn.Conv2d)
            places = _places(member, group, units)
            _keep_outputs(follower, places)
            follower.in_channels = follower.groups = len(places)
        for consumer in group.consumers:
            _keep_inputs(model.get_submodule(consumer.module), _places(consumer, group, units), units)


def _places(member: Member, group: Group, units: Tensor) -> Tensor:
    """Old places in the order in which the new module has them, int64 [new channels]."""
    old, new = member.positions(group.num_units)[units], member.positions(len(units))
    places = torch.empty(new.numel(), dtype=torch.int64)
    places[new.flatten()] = old.flatten()
    return places


def _keep_outputs(module: nn.Module, places: Tensor) -> None:
    if isinstance(module, Norm):
        names = ["weight", "bias", "running_mean", "running_var"]
        module.num_features = len(places)
    elif isinstance(module, nn.Conv2d):
        names = ["weight", "bias"]
        module.out_channels = len(places)
    else:
        assert isinstance(module, nn.Linear)
        names = ["weight", "bias"]
        module.out_features = len(places)
    for name in names:
        _cut(module, name, places, dim=0)


def _keep_inputs(module: nn.Module, places: Tensor, units: Tensor) -> None:
    if isinstance(module, nn.Conv2d):
        module.in_channels = len(places)
        # Each group of a grouped convolution sees its own copies of the units, all in the same places.
        _cut(module, "weight", places if module.groups == 1 else units, dim=1)
    else:
        assert isinstance(module, nn.Linear)
        module.in_features = len(places)
        _cut(module, "weight", places, dim=1)


def _cut(module: nn.Module, name: str, places: Tensor, *, dim: int) -> None:
    tensor = getattr(module, name)
    if tensor is None:
        return
    cut = tensor.detach().index_select(dim, places.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(cut, requires_grad=tensor.requires_grad))
    else:
        setattr(module, name, cut)
