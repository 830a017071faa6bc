"""Groups of timm's EfficientNet class, which MobileNetV2 and EfficientNet-lite are instances of.

groups = efficientnet_groups(student.backbone, inputs)

Three kinds of channels: the stem; the hidden ones of each inverted residual block (expansion, depthwise, projection);
and the residual streams, whose members all share one mask.
"""

from typing import Any

from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import nn

from models.channel_groups.group import Group, Member, Step, Stream, reader, require_gate
from models.channel_groups.heads import HeadInputs, features_group
from models.errors import ModelError


def efficientnet_groups(net: Any, inputs: HeadInputs) -> tuple[Group, ...]:
    """Raises ModelError where a block is of another kind, for example with squeeze-and-excitation."""
    if isinstance(net.conv_head, nn.Identity):
        raise ModelError("the network ends without a last 1x1 convolution, for which no channel groups are declared")
    groups: list[Group] = []
    stream = Stream("stem", net.conv_stem.out_channels, ["backbone.conv_stem"], ["backbone.bn1"])
    stream.constant = (_step(net.bn1, "backbone.bn1"),)
    for block_name, block in _blocks(net):
        name = f"backbone.{block_name}"
        _require_plain(block, name)
        if isinstance(block, InvertedResidual):
            stream.consumers.append(reader(block.conv_pw, f"{name}.conv_pw", stream.constant, norm=f"{name}.bn1"))
            groups.append(_hidden(block, name))
            last, last_name, norm = block.conv_pwl, f"{name}.conv_pwl", f"{name}.bn3"
        else:
            stream.followers.append(f"{name}.conv_dw")
            stream.gates.append(f"{name}.bn1")
            # Its own norm stands between the stream and this reader: only that norm's constant arrives.
            inside = (_step(block.bn1, f"{name}.bn1"),)
            stream.consumers.append(reader(block.conv_pw, f"{name}.conv_pw", inside, norm=f"{name}.bn2"))
            last, last_name, norm = block.conv_pw, f"{name}.conv_pw", f"{name}.bn2"
        step = _step(net.get_submodule(norm.removeprefix("backbone.")), norm)
        if block.has_skip:
            stream.add(last_name, norm)
            stream.constant += (step,)
        else:
            groups.append(stream.group())
            stream = Stream("stream", last.out_channels, [last_name], [norm])
            stream.constant = (step,)
    stream.consumers.append(reader(net.conv_head, "backbone.conv_head", stream.constant, norm="backbone.bn2"))
    groups.append(stream.group())
    groups.append(
        features_group(
            inputs,
            producers=["backbone.conv_head"],
            gates=["backbone.bn2"],
            num_units=net.conv_head.out_channels,
            constant=[_step(net.bn2, "backbone.bn2")],
        )
    )
    return tuple(groups)


def _hidden(block: InvertedResidual, name: str) -> Group:
    constant = (_step(block.bn2, f"{name}.bn2"),)
    return Group(
        name=f"{name}.conv_pw",
        kind="hidden",
        num_units=block.conv_pw.out_channels,
        producers=(Member(f"{name}.conv_pw"),),
        gates=(Member(f"{name}.bn1"), Member(f"{name}.bn2")),
        followers=(Member(f"{name}.conv_dw"),),
        consumers=(reader(block.conv_pwl, f"{name}.conv_pwl", constant, norm=f"{name}.bn3"),),
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
    for part, conv in block.named_children():
        if part.startswith("conv_") and conv is not None and not isinstance(conv, nn.Conv2d):
            raise ModelError(f"{name}.{part} is a {type(conv).__name__}, for which no channel groups are declared")
    if block.has_skip and isinstance(block, DepthwiseSeparableConv) and block.has_pw_act:
        raise ModelError(f"{name} adds what an activation made of its last norm; no channel groups are declared for it")
    if block.conv_dw.groups != block.conv_dw.in_channels:
        raise ModelError(f"{name}.conv_dw is grouped, not depthwise; no channel groups are declared for it")


def _step(norm: nn.Module, name: str) -> Step:
    """timm's norms carry their activation inside. Raises ModelError for norms that are no gates."""
    require_gate(norm, name)
    return Step((name,), "" if isinstance(norm.get_submodule("act"), nn.Identity) else f"{name}.act")
