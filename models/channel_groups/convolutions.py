"""Groups of our own networks of convolutions in a row: food-11's and CIFAR's.

groups = plain_groups(student.backbone, inputs)
"""

from torch import nn

from models.backbones.cifar import CifarNet
from models.backbones.cifar_resnet import CifarResNet
from models.backbones.food11_student import Food11Student
from models.backbones.plain import PlainNet
from models.backbones.separable import SeparableNet
from models.channel_groups.group import Consumer, Group, Step, Stream, plain_group
from models.channel_groups.heads import HeadInputs, features_group


def food11_student_groups(net: nn.Module, inputs: HeadInputs) -> tuple[Group, ...]:
    """Stem and pointwise convolutions; each one's channels pass the next depthwise convolution and its norm."""
    assert isinstance(net, Food11Student)
    groups = []
    stream = Stream("stem", _width(net, "stem.0"), ["backbone.stem.0"], ["backbone.stem.1"])
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        name = f"backbone.{layer}"
        stream.followers.append(f"{name}.0")
        stream.gates.append(f"{name}.1")
        stream.consumers.append(
            Consumer(f"{name}.3", constant=(Step((f"{name}.1",), f"{name}.2"),), absorbed_by=f"{name}.4")
        )
        groups.append(stream.group())
        stream = Stream("stream", _width(net, f"{layer}.3"), [f"{name}.3"], [f"{name}.4"])
    features = features_group(
        inputs,
        producers=stream.producers,
        gates=stream.gates,
        num_units=stream.num_units,
        constant=(Step(tuple(stream.gates), "backbone.layer4.5"),),
    )
    return (*groups, features)


def separable_groups(net: nn.Module, inputs: HeadInputs) -> tuple[Group, ...]:
    """No norm follows the pointwise convolutions: where the 3x3 convolution behind one is depthwise, that one's norm is
    the gate; behind the last, and where it has two groups, the pointwise convolution itself is."""
    assert isinstance(net, SeparableNet)
    groups = []
    producer, gates, kind = "stem.0", ["backbone.stem.1"], "stem"
    for number, block in enumerate(net.blocks):
        assert isinstance(block, nn.Sequential)
        spatial, name = block[0], f"backbone.blocks.{number}"
        assert isinstance(spatial, nn.Conv2d)
        pointwise = Consumer(f"{name}.3", constant=(Step((f"{name}.1",), f"{name}.2"),), absorbed_by=f"{name}.3")
        stream = Stream(kind, _width(net, producer), [f"backbone.{producer}"], gates)
        if spatial.groups == spatial.in_channels:
            stream.followers.append(f"{name}.0")
            stream.gates.append(f"{name}.1")
            stream.consumers.append(pointwise)
            groups.append(stream.group())
        else:
            groups += _around_grouped(stream, f"{name}.0", spatial, pointwise, gate=f"{name}.1")
        producer, gates, kind = f"blocks.{number}.3", [], "stream"
    last = f"backbone.{producer}"
    features = features_group(
        inputs, producers=[last], gates=[last], num_units=_width(net, producer), constant=[Step((last,))]
    )
    return (*groups, features)


def _around_grouped(
    stream: Stream, name: str, spatial: nn.Conv2d, pointwise: Consumer, *, gate: str
) -> tuple[Group, Group]:
    """Every group of the convolution must keep as many channels: one of each goes at a time."""
    copies = spatial.groups
    before = plain_group(
        stream.producers[0],
        kind=stream.kind,
        num_units=stream.num_units // copies,
        gate=stream.gates[0] if stream.gates else stream.producers[0],
        consumer=Consumer(name, copies=copies),
        copies=copies,
    )
    reader = Consumer(
        pointwise.module,
        copies=copies,
        constant=pointwise.constant,
        absorbed_by=pointwise.absorbed_by,
    )
    inside = plain_group(name, num_units=spatial.out_channels // copies, gate=gate, consumer=reader, copies=copies)
    return before, inside


def plain_groups(net: nn.Module, inputs: HeadInputs) -> tuple[Group, ...]:
    """One group per convolution; the last one's 4x4 map is flattened."""
    assert isinstance(net, PlainNet)
    count = len(net.blocks)
    groups = [
        plain_group(
            f"backbone.blocks.{number}.0",
            kind="stem" if number == 0 else "stream",
            num_units=_width(net, f"blocks.{number}.0"),
            gate=f"backbone.blocks.{number}.1",
            consumer=Consumer(f"backbone.blocks.{number + 1}.0"),
        )
        for number in range(count - 1)
    ]
    last = f"blocks.{count - 1}"
    features = features_group(
        inputs,
        producers=[f"backbone.{last}.0"],
        gates=[f"backbone.{last}.1"],
        num_units=_width(net, f"{last}.0"),
        spread=16,
        constant=[Step((f"backbone.{last}.1",), f"backbone.{last}.2")],
    )
    return (*groups, features)


def cifar_groups(net: nn.Module, inputs: HeadInputs) -> tuple[Group, ...]:
    """These networks have no norms: every convolution is its own gate. The last map is flattened to 8x8 places."""
    assert isinstance(net, CifarNet)
    numbers = [number for number, module in enumerate(net.features) if isinstance(module, nn.Conv2d)]
    groups = []
    linear = net.hidden[0]
    assert isinstance(linear, nn.Linear)
    for number, following in zip(numbers, [*numbers[1:], None], strict=True):
        name = f"backbone.features.{number}"
        width = _width(net, f"features.{number}")
        hidden = Consumer(
            "backbone.hidden.0",
            spread=linear.in_features // width,
            constant=(Step((name,), f"backbone.features.{number + 1}"),),
            absorbed_by="backbone.hidden.0",
        )
        consumer = hidden if following is None else Consumer(f"backbone.features.{following}")
        kind = "stem" if number == 0 else "stream"
        groups.append(plain_group(name, kind=kind, num_units=width, gate=name, consumer=consumer))
    features = features_group(
        inputs,
        producers=["backbone.hidden.0"],
        gates=["backbone.hidden.0"],
        num_units=linear.out_features,
        constant=[Step(("backbone.hidden.0",), "backbone.hidden.1")],
    )
    return (*groups, features)


def cifar_resnet_groups(net: nn.Module, inputs: HeadInputs) -> tuple[Group, ...]:
    """The inner channels of each block. The streams are tied to each other by shortcuts that pad with zeros on both
    sides, so they keep their widths."""
    assert isinstance(net, CifarResNet)
    return tuple(
        plain_group(
            f"backbone.{stage}.{number}.conv1",
            num_units=_width(net, f"{stage}.{number}.conv1"),
            gate=f"backbone.{stage}.{number}.bn1",
            consumer=Consumer(f"backbone.{stage}.{number}.conv2"),
        )
        for stage in ("layer1", "layer2", "layer3")
        for number, _ in net.get_submodule(stage).named_children()
    )


def _width(net: nn.Module, name: str) -> int:
    conv = net.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    return conv.out_channels
