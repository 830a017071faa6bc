"""The workers as the head sees them: it lets in those that know the secret and hands their messages on in one queue.

door = Listener("0.0.0.0", 29400, secret); peer, message = door.events.get(timeout=1)
"""

import contextlib
import errno
import queue
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from launch.channel import Channel, ChannelClosed, accept
from launch.errors import LaunchError

BEAT_SECONDS = 1.0
SILENT_SECONDS = 15.0  # after which a peer counts as gone: its host is off or the link is cut
_MOST_STRANGERS = 128  # connections that have not proved anything yet
_BACKLOG = 1024


@dataclass(eq=False)
class Peer:
    """A worker with `num_ranks` ranks on `node`; facts: what it says of its host."""

    channel: Channel
    index: int
    count: int
    node: str
    num_ranks: int
    facts: dict[str, Any] = field(default_factory=dict)
    leaving: bool = False

    def tell(self, **message: Any) -> None:
        """A peer that cannot be told is noticed by the thread that listens to it."""
        with contextlib.suppress(ChannelClosed):
            self.channel.send(message)


Event = tuple[Peer, dict[str, Any]]


class Listener:
    """Listens on one port. Events are {"kind": "join" | "lost" | ...}, in the order in which they came."""

    def __init__(self, address: str, port: int, secret: bytes) -> None:
        self._secret = secret
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._strangers = threading.BoundedSemaphore(_MOST_STRANGERS)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((address, port))
        except OSError as error:
            self._listener.close()
            used = " (is another job's worker 0 on this host?)" if error.errno == errno.EADDRINUSE else ""
            raise LaunchError(
                f"cannot listen on {address}:{port}: {error.strerror}{used}; free it, "
                f"or set SLIMHEADS_PORT on all workers"
            ) from error
        self._listener.listen(_BACKLOG)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="door", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self._strangers.acquire(blocking=False):
                threading.Thread(target=self._welcome, args=(connection,), name="peer", daemon=True).start()
            else:
                connection.close()

    def _welcome(self, connection: socket.socket) -> None:
        try:
            channel = accept(connection, self._secret)
            message = channel.receive()
            peer = Peer(
                channel,
                index=int(message["index"]),
                count=int(message["count"]),
                node=str(message["node"]),
                num_ranks=int(message["num_ranks"]),
                facts={**message["facts"], "clock": float(message["facts"]["time"]) - time.time()},
            )
        except (ChannelClosed, KeyError, TypeError, ValueError):
            connection.close()
            return
        finally:
            self._strangers.release()
        channel.set_timeout(SILENT_SECONDS)
        self.events.put((peer, {"kind": "join"}))
        try:
            while True:
                self.events.put((peer, channel.receive()))
        except ChannelClosed as error:
            self.events.put((peer, {"kind": "lost", "why": str(error)}))
