"""Groups of timm's ResNet class: basic blocks, bottlenecks and ResNeSt's split attention.

groups = resnet_groups(student.backbone, inputs)

Inner channels of each block, the stem, and the residual streams, whose members all share one mask. A silenced channel
of a stream holds another constant behind each addition, and all are known: relu(... relu(relu(b0) + b1) + b2). Where
a reader is 3x3 (basic blocks, the deep stem, conv2), its padding is not part of the constant, which is then dropped.
"""

from collections.abc import Iterator
from typing import Any

from timm.layers.split_attn import SplitAttn
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from models.channel_groups.group import Consumer, Group, Member, Step, Stream, plain_group, reader
from models.channel_groups.heads import HeadInputs, features_group
from models.errors import ModelError


def resnet_groups(net: nn.Module, inputs: HeadInputs) -> tuple[Group, ...]:
    """Raises ModelError where a block is of another kind or its split attention mixes channels."""
    assert isinstance(net, ResNet)
    stem, stream = _stem(net)
    groups = list(stem)
    for name, block in _blocks(net):
        _require_plain(block, name)
        stream.consumers.append(reader(block.conv1, f"{name}.conv1", stream.constant, norm=f"{name}.bn1"))
        groups += _inner(block, name)
        number = 2 if isinstance(block, BasicBlock) else 3
        last, norm, activation = f"{name}.conv{number}", f"{name}.bn{number}", f"{name}.act{number}"
        if block.downsample is None:
            stream.add(last, norm)
            stream.constant += (Step((norm,), activation),)
            continue
        # [convolution, norm], or [pooling, convolution, norm]; the pooling averages without padding: constants stay.
        at = len(block.downsample) - 2
        shortcut, shortcut_norm = f"{name}.downsample.{at}", f"{name}.downsample.{at + 1}"
        stream.consumers.append(reader(block.downsample[at], shortcut, stream.constant, norm=shortcut_norm))
        groups.append(stream.group())
        num_units = block.get_submodule(f"conv{number}").out_channels
        stream = Stream("stream", num_units, [last], [norm])
        stream.add(shortcut, shortcut_norm)
        stream.constant = (Step((norm, shortcut_norm), activation),)
    features = features_group(
        inputs,
        producers=stream.producers,
        gates=stream.gates,
        num_units=stream.num_units,
        constant=stream.constant,
        readers=stream.consumers,
    )
    return (*groups, features)


def _stem(net: Any) -> tuple[list[Group], Stream]:
    if not isinstance(net.maxpool, nn.MaxPool2d):
        raise ModelError(f"the stem pools by {type(net.maxpool).__name__}, for which no channel groups are declared")
    # Max pooling pads with minus infinity, so a constant stays one.
    constant = (Step(("backbone.bn1",), "backbone.act1"),)
    if isinstance(net.conv1, nn.Conv2d):
        width = net.conv1.out_channels
        return [], Stream("stem", width, ["backbone.conv1"], ["backbone.bn1"], constant=constant)
    # A deep stem: convolution, norm, ReLU, convolution, norm, ReLU, convolution; bn1 comes behind.
    inner = []
    for number in (0, 3):
        conv = f"backbone.conv1.{number}"
        inner.append(
            plain_group(
                conv,
                kind="stem",
                num_units=net.conv1[number].out_channels,
                gate=f"backbone.conv1.{number + 1}",
                consumer=Consumer(f"backbone.conv1.{number + 3}"),
            )
        )
    width = net.conv1[6].out_channels
    return inner, Stream("stem", width, ["backbone.conv1.6"], ["backbone.bn1"], constant=constant)


def _inner(block: Any, name: str) -> Iterator[Group]:
    width = block.conv1.out_channels
    if isinstance(block, BasicBlock):
        yield plain_group(f"{name}.conv1", num_units=width, gate=f"{name}.bn1", consumer=Consumer(f"{name}.conv2"))
    elif isinstance(block, ResNestBottleneck):
        yield from _split_attention(block, name)
    else:
        assert isinstance(block, Bottleneck)
        yield plain_group(f"{name}.conv1", num_units=width, gate=f"{name}.bn1", consumer=Consumer(f"{name}.conv2"))
        yield plain_group(
            f"{name}.conv2",
            num_units=block.conv2.out_channels,
            gate=f"{name}.bn2",
            consumer=Consumer(
                f"{name}.conv3",
                constant=(Step((f"{name}.bn2",), f"{name}.act2"),),
                absorbed_by=f"{name}.bn3",
            ),
        )


def _split_attention(block: Any, name: str) -> Iterator[Group]:
    """With one cardinal group, channel c of each of the radix splits goes with channel c of the sum.

    The grouped convolution needs as many inputs in each of its groups, so conv1's channels go in sets of one each.
    """
    attention: SplitAttn = block.conv2
    radix = attention.radix
    yield Group(
        name=f"{name}.conv1",
        kind="hidden",
        num_units=block.conv1.out_channels // radix,
        producers=(Member(f"{name}.conv1", copies=radix),),
        gates=(Member(f"{name}.bn1", copies=radix),),
        consumers=(Consumer(f"{name}.conv2.conv", copies=radix),),
    )
    yield Group(
        name=f"{name}.conv2.conv",
        kind="hidden",
        num_units=attention.conv.out_channels // radix,
        producers=(Member(f"{name}.conv2.conv", copies=radix),),
        gates=(Member(f"{name}.conv2.bn0", copies=radix),),
        # Attention scales a silenced split by what else is in the image: behind it, no constant stays one.
        consumers=(Consumer(f"{name}.conv2.fc1"), Consumer(f"{name}.conv3")),
        scalers=(Member(f"{name}.conv2.fc2", copies=radix),),
    )
    yield plain_group(
        f"{name}.conv2.fc1",
        num_units=attention.fc1.out_channels,
        gate=f"{name}.conv2.bn1",
        consumer=Consumer(
            f"{name}.conv2.fc2",
            constant=(Step((f"{name}.conv2.bn1",), f"{name}.conv2.act1"),),
            absorbed_by=f"{name}.conv2.fc2",
        ),
    )


def _blocks(net: ResNet) -> list[tuple[str, Any]]:
    return [
        (f"backbone.{stage}.{number}", block)
        for stage in ("layer1", "layer2", "layer3", "layer4")
        for number, block in net.get_submodule(stage).named_children()
    ]


def _require_plain(block: Any, name: str) -> None:
    if isinstance(block, ResNestBottleneck):
        attention = block.conv2
        cardinality = attention.rsoftmax.cardinality if isinstance(attention, SplitAttn) else 0
        if cardinality != 1 or block.radix < 2:
            raise ModelError(
                f"{name} has split attention of radix {block.radix} over {cardinality} cardinal groups; only that of "
                "several splits and one cardinal group (as in resnest50d) keeps its channels apart, so this network "
                "cannot be pruned"
            )
        return
    if not isinstance(block, BasicBlock | Bottleneck):
        raise ModelError(f"{name} is a {type(block).__name__}, for which no channel groups are declared")
    if block.se is not None or not isinstance(block.aa, nn.Identity):
        raise ModelError(f"{name} has attention or anti-aliasing layers, for which no channel groups are declared")
    if isinstance(block, Bottleneck) and block.conv2.groups != 1:
        raise ModelError(f"{name}.conv2 is grouped, for which no channel groups are declared")
