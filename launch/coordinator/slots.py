"""Which rank runs where: ranks in the order of the workers' indices, local ones counted per node.

slots = assign([("a", 2), ("b", 2)])
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """A rank's numbers, named as in Horovod's SlotInfo, for which it stands in."""

    hostname: str
    rank: int
    local_rank: int
    cross_rank: int
    size: int
    local_size: int
    cross_size: int


def assign(workers: Sequence[tuple[str, int]]) -> list[list[Slot]]:
    """For every worker (node, number of its ranks) the slots of its ranks. Nodes need not be next to each other."""
    on_node: dict[str, int] = defaultdict(int)
    local_ranks: list[list[tuple[str, int]]] = []  # of each worker: (node, local rank)
    for node, num_ranks in workers:
        local_ranks.append([(node, on_node[node] + number) for number in range(num_ranks)])
        on_node[node] += num_ranks
    numbers = {node: f"node{number}" for number, node in enumerate(on_node)}
    size = sum(on_node.values())
    slots: list[list[Slot]] = []
    rank = 0
    for worker in local_ranks:
        slots.append([])
        for node, local_rank in worker:
            peers = [other for other, count in on_node.items() if count > local_rank]
            slots[-1].append(
                Slot(
                    hostname=numbers[node],
                    rank=rank,
                    local_rank=local_rank,
                    cross_rank=peers.index(node),
                    size=size,
                    local_size=on_node[node],
                    cross_size=len(peers),
                )
            )
            rank += 1
    return slots
