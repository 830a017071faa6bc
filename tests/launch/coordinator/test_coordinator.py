"""The coordinator among workers that join, end and are lost at the worst moment; the workers are messages only."""

import queue
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from launch.coordinator import coordinator as coordinator_module
from launch.coordinator.coordinator import Coordinator
from launch.coordinator.listener import Event, Listener, Peer
from launch.coordinator.membership import Quorum

Message = dict[str, Any]
Response = Callable[["Workers", Peer, Message], None]


class Workers:
    """Stands in for the listener and its channels. respond(workers, peer, message): to one of the coordinator."""

    port = 1

    def __init__(self, respond: Response) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.sent: list[tuple[int, Message]] = []  # (index of the worker, message), without heartbeats
        self._respond = respond

    def join(self, index: int) -> Peer:
        """A worker with one rank."""
        peer = Peer(cast(Any, None), index, 2, "a", 1)
        peer.channel = cast(Any, _Channel(lambda message: self._hear(peer, message)))
        self.events.put((peer, {"kind": "join"}))
        return peer

    def ended(self, peer: Peer, start: Message, code: int) -> None:
        """All ranks of a start."""
        for slot in start["slots"]:
            message = {"kind": "ended", "attempt": start["attempt"], "rank": slot["rank"], "code": code}
            self.events.put((peer, message))

    def lost(self, peer: Peer) -> None:
        self.events.put((peer, {"kind": "lost", "why": "its host is off"}))

    def close(self) -> None:
        """As a listener has it."""

    def _hear(self, peer: Peer, message: Message) -> None:
        if message["kind"] != "heartbeat":
            self.sent.append((peer.index, message))
            self._respond(self, peer, message)


class _Channel:
    local_address = remote_address = "127.0.0.1"

    def __init__(self, send: Callable[[Message], None]) -> None:
        self.send = send


def run(workers: Workers, logged: list[str], *, grow_seconds: float = 60.0) -> None:
    """An elastic job of one to two ranks, to its end."""
    Coordinator(
        cast(Listener, workers),
        Quorum(2, (1, 2)),
        restarts=0,
        wait_seconds=10,
        grow_seconds=grow_seconds,
        workers_return=True,
        newest_checkpoint=lambda: "",
        log=logged.append,
    ).run()


@pytest.fixture
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_module, "_SETTLE_SECONDS", 0.0)


@pytest.mark.usefixtures("no_settling")
def test_a_job_that_ends_just_as_it_would_grow_is_done() -> None:
    def respond(workers: Workers, peer: Peer, message: Message) -> None:
        if message["kind"] == "start":
            workers.join(1)
            # After the moment to grow, and before the coordinator, which looks every half second, has seen it.
            threading.Timer(0.4, workers.ended, (peer, message, 0)).start()

    workers, logged = Workers(respond), list[str]()
    workers.join(0)
    run(workers, logged, grow_seconds=0.3)
    done = {index: message["code"] for index, message in workers.sent if message["kind"] == "done"}
    assert done == {0: 0, 1: 0}
    assert len([line for line in logged if line.startswith("start ")]) == 1


def test_workers_that_are_lost_again_and_again_without_progress_end_an_elastic_job() -> None:
    def respond(workers: Workers, peer: Peer, message: Message) -> None:
        if message["kind"] != "start":
            return
        if message["attempt"] > 9:
            workers.ended(peer, message, 0)
        elif peer.index == 0:
            workers.ended(peer, message, 77)
        else:
            workers.lost(peer)
            workers.join(1)

    workers, logged = Workers(respond), list[str]()
    workers.join(0)
    workers.join(1)
    run(workers, logged)
    message = next(message for index, message in reversed(workers.sent) if index == 0)
    assert (message["kind"], message["code"]) == ("done", 77)
    assert "was lost with its worker (its host is off)" in message["reason"]
    assert "3 starts in a row brought no new checkpoint (there is none): a crash loop" in message["reason"]
    assert len([line for line in logged if line.startswith("start ")]) == 3
