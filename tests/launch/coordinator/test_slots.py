"""Which rank runs where."""

from launch.coordinator.slots import assign


def test_ranks_are_numbered_in_the_workers_order_and_per_node() -> None:
    slots = [slot for worker in assign([("a", 1), ("b", 2), ("a", 1)]) for slot in worker]
    assert [(slot.hostname, slot.rank, slot.local_rank, slot.local_size) for slot in slots] == [
        ("node0", 0, 0, 2),
        ("node1", 1, 0, 2),
        ("node1", 2, 1, 2),
        ("node0", 3, 1, 2),
    ]
    assert {(slot.cross_rank, slot.cross_size, slot.size) for slot in slots} == {(0, 2, 4), (1, 2, 4)}
