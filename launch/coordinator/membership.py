"""How many workers an attempt needs, and which of those that are here it takes.

quorum = Quorum(count=2, bounds=(1, 2)); quorum.enough(peers, settled=True) and quorum.fitting(peers)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from launch.coordinator.listener import Peer

_MOST_NAMED = 20


@dataclass(frozen=True)
class Quorum:
    """`bounds`: fewest and most ranks of an elastic job; None where all `count` workers are needed.

    `peers` are always the workers that are here, by index.
    """

    count: int
    bounds: tuple[int, int] | None

    def fitting(self, peers: Mapping[int, Peer]) -> list[Peer]:
        """In order of their indices, the first whose ranks together are at most max_ranks."""
        chosen: list[Peer] = []
        for index in sorted(peers):
            if self.bounds is None or num_ranks([*chosen, peers[index]]) <= self.bounds[1]:
                chosen.append(peers[index])
        return chosen

    def enough(self, peers: Mapping[int, Peer], *, settled: bool) -> bool:
        """Whether to start. settled: nobody came for a while; an elastic job then makes do with those that are here."""
        if self.bounds is None:
            return len(peers) == self.count
        fewest, most = self.bounds
        ranks = num_ranks(self.fitting(peers))
        last = settled or len(peers) == self.count
        return 0 in peers and (ranks == most or (ranks >= fewest and last))

    def shortage(self, peers: Mapping[int, Peer]) -> str:
        """Why there can never be enough: all workers are here, and nobody will bring the ranks that lack; else ""."""
        if self.bounds is None or len(peers) < self.count or self.enough(peers, settled=True):
            return ""
        fewest, most = self.bounds
        ranks = num_ranks(self.fitting(peers))
        bring = ", ".join(str(peers[index].num_ranks) for index in sorted(peers))
        return (
            f"elastic.min_ranks is {fewest}, but the workers bring {bring} ranks, of which {ranks} fit into "
            f"elastic.max_ranks {most}, and no more workers will come: lower min_ranks, or start others or larger ones"
        )

    def missing(self, peers: Mapping[int, Peer]) -> str:
        """The indices of the workers that are not here."""
        indices = [str(index) for index in range(self.count) if index not in peers]
        return ", ".join(indices[:_MOST_NAMED]) + (" ..." if len(indices) > _MOST_NAMED else "")


def num_ranks(peers: Iterable[Peer]) -> int:
    return sum(peer.num_ranks for peer in peers)
