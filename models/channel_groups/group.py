"""Channels that live and die together, and every module that holds them: what pruning may take, and how.

    Group(name="backbone.blocks.1.0.conv_pw", kind="hidden", num_units=96, producers=..., gates=..., consumers=...)

A group is counted in units. As a rule a unit is one channel; where channels may only go together (the halves of a
grouped convolution, the radix of a split attention) it is several, as `Member.copies` says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.errors import ModelError

KINDS = ("stem", "hidden", "stream", "features", "embedding")


@dataclass(frozen=True)
class Member:
    """A module that holds the channels of a group, and where in its inputs or outputs each unit lies.

    copies: unit u is at u, u + U, u + 2U, ... for U units. spread: each of these is a flattened map of so many
    neighbouring places. shuffle: a channel shuffle into that many groups lies between the unit and the module.
    """

    module: str
    copies: int = 1
    spread: int = 1
    shuffle: int = 1

    def positions(self, num_units: int) -> Tensor:
        """int64 [num_units, copies * spread]."""
        units = torch.arange(num_units).view(-1, 1, 1)
        copies = torch.arange(self.copies).view(1, -1, 1) * num_units
        places = ((units + copies) * self.spread + torch.arange(self.spread)).flatten(1)
        per_group = num_units * self.copies * self.spread // self.shuffle
        return places % per_group * self.shuffle + places // per_group


@dataclass(frozen=True)
class Step:
    """A place on a silenced channel's way: the biases of these gates are added to what came before, then comes the
    activation (empty: none)."""

    gates: tuple[str, ...]
    activation: str = ""


@dataclass(frozen=True)
class Consumer(Member):
    """A module that reads the channels.

    A silenced channel still passes on a constant, which is 0 before the first of the `constant` steps. `absorbed_by`
    takes it up exactly: the consumer itself by its bias, or the norm behind it by its running mean. Where the constant
    does not reach every output alike (padding) or is scaled by other inputs, `absorbed_by` is empty.
    """

    constant: tuple[Step, ...] = ()
    absorbed_by: str = ""


@dataclass(frozen=True)
class Group:
    """producers: their outputs are the channels. gates: where weight = bias = 0 silences a channel: the norms on its
    way, or the producer itself where no norm follows. followers: depthwise convolutions. scalers: their outputs
    multiply the channels (excitation, attention). divisor: the number of channels must stay a multiple of it.
    """

    name: str  # of the first producer
    kind: str  # one of KINDS
    num_units: int
    producers: tuple[Member, ...]
    gates: tuple[Member, ...]
    consumers: tuple[Consumer, ...]
    followers: tuple[Member, ...] = ()
    scalers: tuple[Member, ...] = ()
    divisor: int = 1

    @property
    def copies(self) -> int:
        """Channels of a unit."""
        return self.producers[0].copies

    @property
    def num_channels(self) -> int:
        return self.num_units * self.copies

    @property
    def unit_step(self) -> int:
        """The number of units must stay a multiple of this."""
        return self.divisor // math.gcd(self.divisor, self.copies)

    @property
    def foldable(self) -> bool:
        """Whether every consumer can take up the constants of silenced channels exactly."""
        return all(consumer.absorbed_by and consumer.constant for consumer in self.consumers)


def require_gate(module: nn.Module, name: str) -> None:
    """Raises ModelError for other norms (of groups, of layers): they make one channel of several, so that none can be
    silenced alone."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm | nn.Conv2d | nn.Linear):
        raise ModelError(
            f"{name} is a {type(module).__name__}; only channels behind batch norms can be pruned, so this network "
            "cannot be pruned"
        )


def reader(conv: nn.Conv2d, name: str, constant: Sequence[Step], *, norm: str) -> Consumer:
    """A convolution and the norm behind it. One wider than 1x1 is padded: at the edges it sees less of a constant."""
    if conv.kernel_size != (1, 1):
        return Consumer(name)
    return Consumer(name, constant=tuple(constant), absorbed_by=norm)


def plain_group(
    name: str, *, num_units: int, gate: str, consumer: Consumer, kind: str = "hidden", copies: int = 1
) -> Group:
    """One producer, one gate, one consumer."""
    return Group(
        name=name,
        kind=kind,
        num_units=num_units,
        producers=(Member(name, copies=copies),),
        gates=(Member(gate, copies=copies),),
        consumers=(consumer,),
    )


@dataclass
class Stream:
    kind: str
    num_units: int
    producers: list[str]
    gates: list[str]
    followers: list[str] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    constant: tuple[Step, ...] = ()  # what a silenced channel holds at the present place of the walk

    def add(self, producer: str, gate: str) -> None:
        """Another producer, whose output is added to the channels."""
        self.producers.append(producer)
        self.gates.append(gate)

    def group(self) -> Group:
        return Group(
            name=self.producers[0],
            kind=self.kind,
            num_units=self.num_units,
            producers=tuple(Member(name) for name in self.producers),
            gates=tuple(Member(name) for name in self.gates),
            consumers=tuple(self.consumers),
            followers=tuple(Member(name) for name in self.followers),
        )
