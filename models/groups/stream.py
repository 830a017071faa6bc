"""The channels between blocks, which collect their members on a walk through a network.

stream = Stream("stream", 24, ["backbone.conv"], ["backbone.norm"]); stream.add("...conv", "...norm"); stream.group()
"""

from dataclasses import dataclass, field

from models.groups.group import Consumer, Group, Member, Step


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
