"""The port of worker 0 lets in those that know the secret."""

import socket

from launch.channel import join
from launch.coordinator.listener import Listener


def test_connections_that_send_nothing_do_not_keep_others_out() -> None:
    listener = Listener("127.0.0.1", 0, b"secret")
    silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(50)]
    try:
        channel = join(socket.create_connection(("127.0.0.1", listener.port)), b"secret")
        metadata = {"time": 0.0}
        channel.send({"index": 0, "count": 1, "node": "a", "num_ranks": 1, "metadata": metadata})
        peer, message = listener.events.get(timeout=5)
        assert (peer.node, message["kind"]) == ("a", "join")
    finally:
        for connection in silent:
            connection.close()
        listener.close()
