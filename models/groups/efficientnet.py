"""Groups of timm's EfficientNet class, which MobileNetV2 and EfficientNet-lite are instances of.

groups = efficientnet_groups(student.backbone, inputs)

Three kinds of channels: the stem; the hidden ones of each inverted residual block (expansion, depthwise, projection);
and the residual streams, whose members all share one mask.
"""

from collections.abc import Sequence
from typing import Any

from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import nn

from models.errors import ModelError
from models.groups.features import features_group
from models.groups.group import Consumer, Group, Member
from models.groups.heads import HeadInputs
from models.groups.stream import Stream


def efficientnet_groups(net: Any, inputs: HeadInputs) -> tuple[Group, ...]:
    """Raises ModelError where a block is of another kind, for example with squeeze-and-excitation."""
    if isinstance(net.conv_head, nn.Identity):
        raise ModelError("the network ends without a last 1x1 convolution, for which no channel groups are declared")
    groups: list[Group] = []
    stream = Stream("stem", net.conv_stem.out_channels, ["backbone.conv_stem"], ["backbone.bn1"])
    activation = _activation(net.bn1, "backbone.bn1")  # behind what the stream adds up
    for block_name, block in _blocks(net):
        name = f"backbone.{block_name}"
        _require_plain(block, name)
        if isinstance(block, InvertedResidual):
            stream.consumers.append(
                _reader(block.conv_pw, f"{name}.conv_pw", stream.gates, activation, norm=f"{name}.bn1")
            )
            groups.append(_hidden(block, name))
            last, last_name, norm = block.conv_pwl, f"{name}.conv_pwl", f"{name}.bn3"
        else:
            stream.followers.append(f"{name}.conv_dw")
            stream.gates.append(f"{name}.bn1")
            # Its own norm stands between the stream and this reader: only that norm's constant arrives.
            inside = _activation(block.bn1, f"{name}.bn1")
            stream.consumers.append(
                _reader(block.conv_pw, f"{name}.conv_pw", [f"{name}.bn1"], inside, norm=f"{name}.bn2")
            )
            last, last_name, norm = block.conv_pw, f"{name}.conv_pw", f"{name}.bn2"
        if block.has_skip:
            stream.add(last_name, norm)
        else:
            groups.append(stream.group())
            stream = Stream("stream", last.out_channels, [last_name], [norm])
            activation = _activation(net.get_submodule(norm.removeprefix("backbone.")), norm)
    stream.consumers.append(_reader(net.conv_head, "backbone.conv_head", stream.gates, activation, norm="backbone.bn2"))
    groups.append(stream.group())
    groups.append(
        features_group(
            inputs,
            producers=["backbone.conv_head"],
            gates=["backbone.bn2"],
            num_units=net.conv_head.out_channels,
            constant_from=["backbone.bn2"],
            activation=_activation(net.bn2, "backbone.bn2"),
        )
    )
    return tuple(groups)


def _hidden(block: InvertedResidual, name: str) -> Group:
    activation = _activation(block.bn2, f"{name}.bn2")
    reader = _reader(block.conv_pwl, f"{name}.conv_pwl", [f"{name}.bn2"], activation, norm=f"{name}.bn3")
    return Group(
        name=f"{name}.conv_pw",
        kind="hidden",
        num_units=block.conv_pw.out_channels,
        producers=(Member(f"{name}.conv_pw"),),
        gates=(Member(f"{name}.bn1"), Member(f"{name}.bn2")),
        followers=(Member(f"{name}.conv_dw"),),
        consumers=(reader,),
    )


def _reader(conv: nn.Conv2d, name: str, gates: Sequence[str], activation: str, *, norm: str) -> Consumer:
    """Constants add up where no activation is in between; behind one, only that of a single gate is known."""
    known = conv.kernel_size == (1, 1) and (not activation or len(gates) == 1)
    return Consumer(
        name,
        constant_from=tuple(gates) if known else (),
        activation=activation,
        absorbed_by=norm if known else "",
    )


def _blocks(net: Any) -> list[tuple[str, Any]]:
    return [
        (f"blocks.{stage_name}.{block_name}", block)
        for stage_name, stage in net.blocks.named_children()
        for block_name, block in stage.named_children()
    ]


def _require_plain(block: nn.Module, name: str) -> None:
    if not isinstance(block, InvertedResidual | DepthwiseSeparableConv):
        raise ModelError(f"{name} is a {type(block).__name__}, for which no channel groups are declared")
    if block.conv_s2d is not None or not isinstance(block.aa, nn.Identity):
        raise ModelError(f"{name} has space-to-depth or anti-aliasing layers, for which no groups are declared")
    if not isinstance(block.se, nn.Identity):
        raise ModelError(f"{name} has squeeze-and-excitation, for which no channel groups are declared")
    if block.conv_dw.groups != block.conv_dw.in_channels:
        raise ModelError(f"{name}.conv_dw is grouped, not depthwise; no channel groups are declared for it")


def _activation(norm: nn.Module, name: str) -> str:
    """timm's norms carry their activation inside."""
    return "" if isinstance(norm.get_submodule("act"), nn.Identity) else f"{name}.act"
