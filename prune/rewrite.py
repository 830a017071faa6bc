"""From the units that stay to the masked and to the narrow network, both in float64.

masked, narrow = rewrite(student, {"backbone.blocks.1.0.conv_pw": (0, 2, 5)}, fold=True)
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.channel_groups import Consumer, Group
from models.channel_groups.narrow import Norm
from models.student import Student


def rewrite(student: Student, kept: Mapping[str, Sequence[int]], *, fold: bool) -> tuple[Student, Student]:
    """Two networks that must agree, in eval mode on the CPU; the student stays as it is.

    Masked: weight = bias = 0 in every gate of a unit that goes; with `fold`, in groups whose consumers can all take up
    its constant, the bias stays. Narrow: without those channels, and with those constants folded forward.
    """
    original = copy.deepcopy(student).cpu().double().eval()
    groups = [group for group in original.channel_groups() if group.name in kept]
    masked, narrow = copy.deepcopy(original), copy.deepcopy(original)
    for group in groups:
        gone = torch.tensor(sorted(set(range(group.num_units)) - set(kept[group.name])), dtype=torch.int64)
        folds = fold and group.foldable
        _silence(masked, group, gone, keep_bias=folds)
        if folds:
            for consumer in group.consumers:
                _fold(narrow, original, group, consumer, gone)
    narrow.narrow(kept)
    return masked, narrow


@torch.no_grad()
def _silence(model: nn.Module, group: Group, gone: Tensor, *, keep_bias: bool) -> None:
    for gate in group.gates:
        module = model.get_submodule(gate.module)
        places = gate.positions(group.num_units)[gone].flatten()
        for name, parameter in module.named_parameters(recurse=False):
            if name == "weight" or not keep_bias:
                parameter[places] = 0


@torch.no_grad()
def _fold(narrow: nn.Module, original: nn.Module, group: Group, consumer: Consumer, gone: Tensor) -> None:
    """Add what the consumer makes of the constants to its bias, or take it off the mean of the norm behind it."""
    positions = {gate.module: gate.positions(group.num_units) for gate in group.gates}
    constants = torch.zeros(group.num_units, group.copies, dtype=torch.float64)
    for step in consumer.constant:
        for name in step.gates:
            if isinstance(bias := original.get_submodule(name).bias, Tensor):
                constants += bias[positions[name]]
        if step.activation:
            constants = original.get_submodule(step.activation)(constants)
    module = original.get_submodule(consumer.module)
    weight = module.get_parameter("weight").detach()
    if weight.ndim == 4:  # the tap that sees data: the only one, or the centre one over a 1x1 map
        weight = weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]
    places = consumer.positions(group.num_units)[gone]  # [gone, copies * spread]
    per_place = constants[gone].repeat_interleave(consumer.spread, dim=1)
    shift = weight[:, places.flatten()] @ per_place.flatten()  # [outputs of the consumer]
    absorber = narrow.get_submodule(consumer.absorbed_by)
    if isinstance(absorber, Norm):
        assert absorber.running_mean is not None
        absorber.running_mean -= shift
    else:
        absorber.get_parameter("bias").add_(shift)
