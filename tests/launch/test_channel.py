"""Messages between two workers are signed with the job's secret, in order, and of bounded length."""

import contextlib
import socket
import threading

import pytest

from launch.channel import Channel, ChannelClosed, accept, join


def connect(ours: bytes, theirs: bytes) -> tuple[Channel, Channel]:
    """The coordinator's and the agent's end of a connection over loopback."""
    agents: list[Channel] = []

    def join_in(connection: socket.socket) -> None:
        with contextlib.suppress(ChannelClosed):
            agents.append(join(connection, theirs))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=join_in, args=(socket.create_connection(listener.getsockname()),))
        thread.start()
        try:
            coordinator = accept(listener.accept()[0], ours)
        finally:
            thread.join()
    return coordinator, agents[0]


def test_both_sides_prove_the_secret_and_messages_arrive_in_order() -> None:
    coordinator, agent = connect(b"secret", b"secret")
    for number in range(3):
        agent.send({"kind": "ended", "rank": number})
    assert [coordinator.receive()["rank"] for _ in range(3)] == [0, 1, 2]
    coordinator.send({"kind": "done"})
    assert agent.receive() == {"kind": "done"}


def test_another_secret_is_refused() -> None:
    with pytest.raises(ChannelClosed, match=r"not signed with this job's secret|closed"):
        connect(b"secret", b"other")


def test_a_forged_or_repeated_message_is_refused() -> None:
    coordinator, agent = connect(b"secret", b"secret")
    sent: list[bytes] = []
    real = agent._connection

    class Recorder:
        def sendall(self, data: bytes) -> None:
            sent.append(data)
            real.sendall(data)

    agent._connection = Recorder()  # type: ignore[assignment]
    agent.send({"kind": "stop"})
    assert coordinator.receive() == {"kind": "stop"}
    real.sendall(sent[0])
    with pytest.raises(ChannelClosed, match="not signed"):
        coordinator.receive()


def test_a_message_longer_than_any_of_ours_is_refused_unread() -> None:
    coordinator, agent = connect(b"secret", b"secret")
    agent._connection.sendall((10**9).to_bytes(4, "big"))
    with pytest.raises(ChannelClosed, match="1000000000 bytes; 65536 are allowed"):
        coordinator.receive()
