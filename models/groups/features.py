"""The last channels of a backbone, which are pooled or flattened into the feature that the heads read.

group = features_group(inputs, name="backbone.conv_head", num_units=1280, gates=("backbone.bn2",), constant=...)
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from models.groups.group import Consumer, Group, Member, Step
from models.groups.heads import HeadInputs


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
