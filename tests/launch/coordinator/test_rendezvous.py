"""Horovod's rendezvous takes the job's hosts only, with the secret of this start, and what the plan has."""

import http.client
import socket
import time

import pytest

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
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it closed while we connected
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
