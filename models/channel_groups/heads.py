"""What the heads make of the pooled feature: who reads it, and which widths of their own may shrink.

inputs, groups = head_groups(student.heads)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from models.channel_groups.group import Consumer, Group, Member, Step, plain_group
from models.heads import MultiEmbedding, MultiFc, MultiSe, MultiSharedFc, SingleConv, SingleShuffleConv, task_module


@dataclass(frozen=True)
class HeadInputs:
    """The readers of the pooled feature; each backbone adds where its constants come from. scalers as in `Group`."""

    consumers: tuple[Consumer, ...]
    scalers: tuple[Member, ...] = ()
    divisor: int = 1


def head_groups(heads: nn.Module) -> tuple[HeadInputs, tuple[Group, ...]]:
    """Names start at the student, as `heads.shared`."""
    return _HEADS[type(heads)](heads)


def _single_conv(head: nn.Module) -> tuple[HeadInputs, tuple[Group, ...]]:
    return HeadInputs((Consumer("heads.conv", absorbed_by="heads.conv"),)), ()


def _single_shuffle_conv(head: nn.Module) -> tuple[HeadInputs, tuple[Group, ...]]:
    assert isinstance(head, SingleShuffleConv)
    consumer = Consumer("heads.conv", shuffle=head.groups, absorbed_by="heads.conv")
    return HeadInputs((consumer,), divisor=head.groups), ()


def _multi_fc(head: nn.Module) -> tuple[HeadInputs, tuple[Group, ...]]:
    return HeadInputs(_classifiers(head)), ()


def _multi_se(head: nn.Module) -> tuple[HeadInputs, tuple[Group, ...]]:
    assert isinstance(head, MultiSe)
    squeezed = head.excite[0]
    assert isinstance(squeezed, nn.Linear)
    reader = Consumer(
        "heads.excite.2",
        constant=(Step(("heads.excite.0",), "heads.excite.1"),),
        absorbed_by="heads.excite.2",
    )
    excitation = plain_group(
        "heads.excite.0",
        kind="embedding",
        num_units=squeezed.out_features,
        gate="heads.excite.0",
        consumer=reader,
    )
    # The excitation scales the feature by what else is in the image: no constant stays one.
    readers = (Consumer("heads.excite.0"), *(Consumer(consumer.module) for consumer in _classifiers(head)))
    return HeadInputs(readers, scalers=(Member("heads.excite.2"),)), (excitation,)


def _multi_shared_fc(head: nn.Module) -> tuple[HeadInputs, tuple[Group, ...]]:
    assert isinstance(head, MultiSharedFc)
    shared = Group(
        name="heads.shared",
        kind="embedding",
        num_units=head.shared.out_features,
        producers=(Member("heads.shared"),),
        gates=(Member("heads.shared"),),
        consumers=tuple(
            Consumer(
                consumer.module,
                constant=(Step(("heads.shared",), "heads.activation"),),
                absorbed_by=consumer.absorbed_by,
            )
            for consumer in _classifiers(head)
        ),
    )
    return HeadInputs((Consumer("heads.shared", absorbed_by="heads.shared"),)), (shared,)


def _multi_embedding(head: nn.Module) -> tuple[HeadInputs, tuple[Group, ...]]:
    assert isinstance(head, MultiEmbedding)
    readers, groups = [], []
    for task in head.branches.tasks:
        branch = f"heads.branches.{task_module(task)}"
        embedding = head.get_submodule(f"branches.{task_module(task)}.0")
        has_norm = isinstance(embedding, nn.Sequential)
        linear = f"{branch}.0.0" if has_norm else f"{branch}.0"
        gate = f"{branch}.0.1" if has_norm else linear
        producer = embedding[0] if isinstance(embedding, nn.Sequential) else embedding
        assert isinstance(producer, nn.Linear)
        readers.append(Consumer(linear, absorbed_by=gate))
        classifier = Consumer(
            f"{branch}.1",
            constant=(Step((gate,), f"{branch}.0.2" if has_norm else ""),),
            absorbed_by=f"{branch}.1",
        )
        groups.append(
            plain_group(linear, kind="embedding", num_units=producer.out_features, gate=gate, consumer=classifier)
        )
    return HeadInputs(tuple(readers)), tuple(groups)


def _classifiers(head: nn.Module) -> tuple[Consumer, ...]:
    names = [f"heads.classifiers.{name}" for name, _ in head.get_submodule("classifiers").named_children()]
    return tuple(Consumer(name, absorbed_by=name) for name in names)


_HEADS: dict[type[nn.Module], Callable[[nn.Module], tuple[HeadInputs, tuple[Group, ...]]]] = {
    SingleConv: _single_conv,
    SingleShuffleConv: _single_shuffle_conv,
    MultiFc: _multi_fc,
    MultiSe: _multi_se,
    MultiSharedFc: _multi_shared_fc,
    MultiEmbedding: _multi_embedding,
}


def features_group(
    inputs: HeadInputs,
    *,
    producers: Sequence[str],
    gates: Sequence[str],
    num_units: int,
    spread: int = 1,
    constant: Sequence[Step] = (),
    readers: Sequence[Consumer] = (),
) -> Group:
    """spread: places of the flattened map per channel, 1 where the map is pooled. readers: consumers inside the
    backbone, before the heads. Without `constant`, constants are dropped."""
    consumers = tuple(
        replace(
            consumer,
            spread=spread,
            constant=tuple(constant) if consumer.absorbed_by else (),
        )
        for consumer in inputs.consumers
    )
    return Group(
        name=producers[0],
        kind="features",
        num_units=num_units,
        producers=tuple(Member(name) for name in producers),
        gates=tuple(Member(name) for name in gates),
        consumers=(*readers, *consumers),
        scalers=tuple(replace(scaler, spread=spread) for scaler in inputs.scalers),
        divisor=inputs.divisor // math.gcd(inputs.divisor, spread),
    )
