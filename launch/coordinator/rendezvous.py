"""Horovod's own rendezvous server for one start of the ranks, open to the job's hosts only and only while they start.

with Rendezvous("10.0.0.1", slots, hosts={"10.0.0.1", "10.0.0.2"}) as rendezvous: rendezvous.port, rendezvous.secret

It takes requests that carry the secret of this start, from the hosts whose workers proved that they know the job's, in
the scopes that the plan has, each key set once; and it ends when every rank has signed off, seconds after the start.
"""

import hmac
import re
import secrets
import threading
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any

from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

from launch.coordinator.slots import Slot

_LONGEST_VALUE = 262_144  # bytes; a rank's Gloo addresses towards all others, 64 bytes each
_LONGEST_PATH = 300
_MOST_REQUESTS = 256  # at a time; the rest queue
_QUEUE_SECONDS = 10.0  # a request that sends nothing is dropped after 3
_FORBIDDEN, _TOO_LARGE, _CONFLICT = 403, 413, 409
_SET_MARK = "_process_set_hash_"  # what follows it names a set of processes


def _base(scope: str) -> str:
    return scope.partition(_SET_MARK)[0]


class _Handler(RendezvousHandler):
    """Horovod's, behind checks."""

    def do_GET(self) -> None:
        if self._allowed():
            super().do_GET()

    def do_PUT(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self._allowed():
            return
        if not length.isdigit() or int(length) > _LONGEST_VALUE:
            self._refuse(_TOO_LARGE)
        elif self._get_value(*self.path.split("/")[1:]) is not None:
            self._refuse(_CONFLICT)
        else:
            super().do_PUT()

    def do_DELETE(self) -> None:
        if self._allowed():
            super().do_DELETE()
            self.server.sign_off(*self.path.split("/")[1:])

    def _allowed(self) -> bool:
        found = re.fullmatch(r"/([\w.-]+)/[\w.-]+", self.path)
        known = found and len(self.path) <= _LONGEST_PATH and _base(found[1]) in self.server.scope_size
        sent = self.headers.get("Authorization", "").encode()
        trusted = self.client_address[0] in self.server.hosts and hmac.compare_digest(sent, self.server.password)
        if not known or not trusted:
            self._refuse(_FORBIDDEN)
            return False
        return True

    def _refuse(self, status: int) -> None:
        self.close_connection = True
        self.send_status_code(status)


class _Server(RendezvousHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: str, slots: Sequence[Slot], hosts: Collection[str], secret: str) -> None:
        self.hosts, self.password = frozenset(hosts), f"Bearer {secret}".encode()
        self._request_slots = threading.BoundedSemaphore(_MOST_REQUESTS)
        self.all_signed_off = threading.Event()
        super().__init__((address, 0), _Handler, 0)
        self.init(slots)
        # Each rank goes through global, local and cross, then the same again for the set of all processes.
        self._missing = {(f"cross_{slot.local_rank}", str(slot.cross_rank)) for slot in slots}

    def sign_off(self, scope: str, key: str) -> None:
        if _SET_MARK in scope:
            self._missing.discard((_base(scope), key))
        if not self._missing:
            self.all_signed_off.set()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._request_slots.acquire(timeout=_QUEUE_SECONDS):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._request_slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no error of this server."""


class Rendezvous:
    """Listens from its creation to `close`, or until the last rank has signed off."""

    def __init__(self, address: str, slots: Sequence[Slot], *, hosts: Collection[str]) -> None:
        self.secret = secrets.token_hex(16)
        self._server = _Server(address, slots, hosts, self.secret)
        self.port = int(self._server.server_address[1])
        self._closing = threading.Lock()
        self._open = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="rendezvous", daemon=True).start()
        threading.Thread(target=self._close_when_done, name="rendezvous end", daemon=True).start()

    def close(self) -> None:
        with self._closing:
            if self._open:
                self._open = False
                self._server.all_signed_off.set()
                self._server.shutdown()
                self._server.server_close()

    def __enter__(self) -> "Rendezvous":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_when_done(self) -> None:
        self._server.all_signed_off.wait()
        self.close()
