"""The workers as the coordinator sees them: those that know the secret are let in, their messages come in one queue.

listener = Listener("0.0.0.0", 29400, secret); peer, message = listener.events.get(timeout=1)
"""

import contextlib
import errno
import queue
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from launch.channel import SILENT_SECONDS, Channel, ChannelClosed, accept
from launch.errors import LaunchError

_MOST_UNVERIFIED = 128  # connections at a time that have not shown yet that they know the secret
_BACKLOG = 1024


@dataclass(eq=False)
class Peer:
    """A worker with `num_ranks` ranks on `node`. metadata: what it reports of its host. leaving: it got a signal."""

    channel: Channel
    index: int
    count: int
    node: str
    num_ranks: int
    metadata: dict[str, Any] = field(default_factory=dict)
    leaving: bool = False

    def send(self, **message: Any) -> None:
        """A peer that cannot be reached is noticed by the thread that listens to it."""
        with contextlib.suppress(ChannelClosed):
            self.channel.send(message)


Event = tuple[Peer, dict[str, Any]]


class Listener:
    """Listens on one port. Events are {"kind": "join" | "lost" | ...}, in the order in which they came."""

    def __init__(self, address: str, port: int, secret: bytes) -> None:
        """port 0: any. Raises LaunchError."""
        self._secret = secret
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._unverified = threading.BoundedSemaphore(_MOST_UNVERIFIED)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((address, port))
        except OSError as error:
            self._socket.close()
            used = " (is another job's worker 0 on this host?)" if error.errno == errno.EADDRINUSE else ""
            raise LaunchError(
                f"cannot listen on {address}:{port}: {error.strerror}{used}; free it, "
                f"or set SLIMHEADS_PORT on all workers"
            ) from error
        self._socket.listen(_BACKLOG)
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, name="listener", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            if self._unverified.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(connection,), name="peer", daemon=True).start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            channel = accept(connection, self._secret)
            message = channel.receive()
            peer = Peer(
                channel,
                index=int(message["index"]),
                count=int(message["count"]),
                node=str(message["node"]),
                num_ranks=int(message["num_ranks"]),
                metadata={**message["metadata"], "clock": float(message["metadata"]["time"]) - time.time()},
            )
        except (ChannelClosed, KeyError, TypeError, ValueError):
            connection.close()
            return
        finally:
            self._unverified.release()
        channel.set_timeout(SILENT_SECONDS)
        self.events.put((peer, {"kind": "join"}))
        try:
            while True:
                self.events.put((peer, channel.receive()))
        except ChannelClosed as error:
            self.events.put((peer, {"kind": "lost", "why": str(error)}))
