"""The ways into a job: its rendezvous takes the job's hosts only and what the plan has; messages are signed."""

import contextlib
import http.client
import socket
import threading
import time

import pytest

from launch.channel import Channel, ChannelClosed, accept, join
from launch.coordinator.listener import Listener
from launch.coordinator.rendezvous import Rendezvous
from launch.coordinator.slots import assign


def ask(
    rendezvous: Rendezvous, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", rendezvous.port, timeout=5)
    password = {"Authorization": f"Bearer {rendezvous.secret}"}
    try:
        connection.request(method, path, body=body or None, headers=password | (headers or {}))
        return connection.getresponse().status
    finally:
        connection.close()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


SLOTS = [slot for worker in assign([("a", 1), ("b", 1)]) for slot in worker]


def test_keys_of_the_plan_are_set_once_and_read() -> None:
    with Rendezvous("127.0.0.1", SLOTS, hosts={"127.0.0.1"}) as rendezvous:
        assert ask(rendezvous, "GET", "/global/0") == 404
        assert ask(rendezvous, "PUT", "/global/0", b"address") == 200
        assert ask(rendezvous, "GET", "/global/0") == 200
        assert ask(rendezvous, "PUT", "/global/0", b"another") == 409
        assert ask(rendezvous, "PUT", "/cross_0_process_set_hash_1f/0", b"address") == 200


@pytest.mark.parametrize("path", ["/elsewhere/0", "/global", "/global/../x", "/global/" + "9" * 400, "/"])
def test_anything_else_is_refused(path: str) -> None:
    with Rendezvous("127.0.0.1", SLOTS, hosts={"127.0.0.1"}) as rendezvous:
        for method in ("GET", "PUT", "DELETE"):
            assert ask(rendezvous, method, path, b"x" if method == "PUT" else b"") == 403


def test_other_hosts_are_refused() -> None:
    with Rendezvous("127.0.0.1", SLOTS, hosts={"10.0.0.7"}) as rendezvous:
        assert ask(rendezvous, "GET", "/global/0") == 403
        assert ask(rendezvous, "PUT", "/global/0", b"x") == 403


@pytest.mark.parametrize("password", ["", "Bearer ", "Bearer 0123456789abcdef0123456789abcdef", "Bearer \xe9"])
def test_who_lacks_the_secret_is_refused(password: str) -> None:
    with Rendezvous("127.0.0.1", SLOTS, hosts={"127.0.0.1"}) as rendezvous:
        assert ask(rendezvous, "PUT", "/global/0", b"address") == 200
        for method in ("GET", "PUT", "DELETE"):
            assert ask(rendezvous, method, "/global/0", b"x", headers={"Authorization": password}) == 403


def test_each_start_has_a_secret_of_its_own() -> None:
    with (
        Rendezvous("127.0.0.1", SLOTS, hosts=set()) as first,
        Rendezvous("127.0.0.1", SLOTS, hosts=set()) as second,
    ):
        assert first.secret != second.secret


def test_large_values_are_refused_unread() -> None:
    with Rendezvous("127.0.0.1", SLOTS, hosts={"127.0.0.1"}) as rendezvous:
        assert ask(rendezvous, "PUT", "/global/0", headers={"Content-Length": "300000"}) == 413
        assert ask(rendezvous, "PUT", "/global/0", headers={"Content-Length": "-1"}) == 413


def test_the_rendezvous_closes_when_every_rank_has_signed_off() -> None:
    with Rendezvous("127.0.0.1", SLOTS, hosts={"127.0.0.1"}) as rendezvous:
        for path in ("/global/0", "/global/1", "/cross_0/0", "/cross_0/1"):
            assert ask(rendezvous, "DELETE", path) == 200
        assert ask(rendezvous, "DELETE", "/cross_0_process_set_hash_1f/0") == 200
        assert ask(rendezvous, "GET", "/global/0") == 404  # still there
        ask(rendezvous, "DELETE", "/cross_0_process_set_hash_1f/1")
        deadline = time.monotonic() + 5
        while is_open(rendezvous.port):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_ranks_are_numbered_in_the_workers_order_and_per_node() -> None:
    slots = [slot for worker in assign([("a", 1), ("b", 2), ("a", 1)]) for slot in worker]
    assert [(slot.hostname, slot.rank, slot.local_rank, slot.local_size) for slot in slots] == [
        ("node0", 0, 0, 2),
        ("node1", 1, 0, 2),
        ("node1", 2, 1, 2),
        ("node0", 3, 1, 2),
    ]
    assert {(slot.cross_rank, slot.cross_size, slot.size) for slot in slots} == {(0, 2, 4), (1, 2, 4)}


def connect(ours: bytes, theirs: bytes) -> tuple[Channel, Channel]:
    """The head's and the member's end of a connection over loopback."""
    members: list[Channel] = []

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(ChannelClosed):
            members.append(join(connection, theirs))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        member = threading.Thread(target=answer, args=(socket.create_connection(listener.getsockname()),))
        member.start()
        try:
            head = accept(listener.accept()[0], ours)
        finally:
            member.join()
    return head, members[0]


def test_both_sides_prove_the_secret_and_messages_arrive_in_order() -> None:
    head, member = connect(b"secret", b"secret")
    for number in range(3):
        member.send({"kind": "ended", "rank": number})
    assert [head.receive()["rank"] for _ in range(3)] == [0, 1, 2]
    head.send({"kind": "done"})
    assert member.receive() == {"kind": "done"}


def test_another_secret_is_found_out() -> None:
    with pytest.raises(ChannelClosed, match=r"not signed with this job's secret|closed"):
        connect(b"secret", b"other")


def test_a_forged_or_repeated_message_is_refused() -> None:
    head, member = connect(b"secret", b"secret")
    sent: list[bytes] = []
    real = member._connection

    class Recorder:
        def sendall(self, data: bytes) -> None:
            sent.append(data)
            real.sendall(data)

    member._connection = Recorder()  # type: ignore[assignment]
    member.send({"kind": "stop"})
    assert head.receive() == {"kind": "stop"}
    real.sendall(sent[0])
    with pytest.raises(ChannelClosed, match="not signed"):
        head.receive()


def test_a_message_longer_than_any_of_ours_is_refused_unread() -> None:
    head, member = connect(b"secret", b"secret")
    member._connection.sendall((10**9).to_bytes(4, "big"))
    with pytest.raises(ChannelClosed, match="1000000000 bytes; 65536 are allowed"):
        head.receive()


def test_strangers_that_say_nothing_do_not_keep_others_out() -> None:
    door = Listener("127.0.0.1", 0, b"secret")
    silent = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(50)]
    try:
        channel = join(socket.create_connection(("127.0.0.1", door.port)), b"secret")
        facts = {"time": 0.0}
        channel.send({"index": 0, "count": 1, "node": "a", "num_ranks": 1, "facts": facts})
        peer, message = door.events.get(timeout=5)
        assert (peer.node, message["kind"]) == ("a", "join")
    finally:
        for connection in silent:
            connection.close()
        door.close()
