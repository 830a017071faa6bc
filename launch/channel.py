"""A connection between two workers that carries short JSON messages, each signed with the job's secret.

channel = join(connection, secret); channel.send({"kind": "heartbeat"}); message = channel.receive()

The secret itself never travels: each side sends a random number, and both numbers go into the key of this connection. A
message that was changed, repeated or left out has another signature. Nothing is encrypted: whoever can listen on the
network reads it, as they do Horovod's own traffic.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import threading
from typing import Any

_LONGEST = 65_536  # bytes of a message
_NONCE = 16  # bytes
_SIGNATURE = 32  # bytes
_COORDINATOR, _AGENT = b"coordinator", b"agent"
HANDSHAKE_SECONDS = 5.0
HEARTBEAT_SECONDS = 1.0  # between the signs of life that both sides send
SILENT_SECONDS = 15.0  # after which the other side counts as gone: its host is off or the link is cut


class ChannelClosed(ConnectionError):
    """The other side is gone, silent, or does not know the secret."""


class Channel:
    """Send from any thread; receive from one."""

    def __init__(self, connection: socket.socket, key: bytes, *, ours: bytes, theirs: bytes) -> None:
        self._connection, self._key = connection, key
        self._ours, self._theirs = ours, theirs
        self._sent = self._received = 0
        self._sending = threading.Lock()

    @property
    def local_address(self) -> str:
        return str(self._connection.getsockname()[0])

    @property
    def remote_address(self) -> str:
        return str(self._connection.getpeername()[0])

    def set_timeout(self, seconds: float) -> None:
        """Silence for this long counts as the end."""
        self._connection.settimeout(seconds)

    def send(self, message: dict[str, Any]) -> None:
        """Raises ChannelClosed."""
        body = json.dumps(message).encode()
        with self._sending:
            frame = len(body).to_bytes(4, "big") + self._sign(self._ours, self._sent, body) + body
            self._sent += 1
            try:
                self._connection.sendall(frame)
            except OSError as error:
                raise ChannelClosed(str(error)) from error

    def receive(self) -> dict[str, Any]:
        """The next message. Raises ChannelClosed, also for one that is too long or wrongly signed."""
        length = int.from_bytes(_exactly(self._connection, 4), "big")
        if length > _LONGEST:
            raise ChannelClosed(f"a message of {length} bytes; {_LONGEST} are allowed")
        signature = _exactly(self._connection, _SIGNATURE)
        body = _exactly(self._connection, length)
        if not hmac.compare_digest(signature, self._sign(self._theirs, self._received, body)):
            raise ChannelClosed("a message is not signed with this job's secret")
        self._received += 1
        message: dict[str, Any] = json.loads(body)
        return message

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _sign(self, side: bytes, number: int, body: bytes) -> bytes:
        return hmac.digest(self._key, side + number.to_bytes(8, "big") + body, hashlib.sha256)


def accept(connection: socket.socket, secret: bytes) -> Channel:
    """The coordinator's side. Raises ChannelClosed when the other does not know the secret."""
    return _shake_hands(connection, secret, ours=_COORDINATOR, theirs=_AGENT)


def join(connection: socket.socket, secret: bytes) -> Channel:
    """An agent's side. Raises ChannelClosed when the other does not know the secret."""
    return _shake_hands(connection, secret, ours=_AGENT, theirs=_COORDINATOR)


def _shake_hands(connection: socket.socket, secret: bytes, *, ours: bytes, theirs: bytes) -> Channel:
    connection.settimeout(HANDSHAKE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    nonce = secrets.token_bytes(_NONCE)
    try:
        connection.sendall(nonce)
    except OSError as error:
        raise ChannelClosed(str(error)) from error
    other = _exactly(connection, _NONCE)
    both = nonce + other if ours == _COORDINATOR else other + nonce
    channel = Channel(connection, hmac.digest(secret, both, hashlib.sha256), ours=ours, theirs=theirs)
    channel.send({"kind": "hello"})
    channel.receive()
    return channel


def _exactly(connection: socket.socket, count: int) -> bytes:
    """This many bytes. Raises ChannelClosed."""
    data = bytearray()
    while len(data) < count:
        try:
            part = connection.recv(count - len(data))
        except OSError as error:
            raise ChannelClosed(str(error) or type(error).__name__) from error
        if not part:
            raise ChannelClosed("the other side closed the connection")
        data += part
    return bytes(data)
