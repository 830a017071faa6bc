"""A worker: joins the head, starts the ranks of this worker when told to, passes signals on, reports how ranks end.

code, reason = WorkerAgent(place, command, secret=secret, ...).run()
"""

import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from launch.agent.rank_process import RankProcess, rank_variables
from launch.channel import Channel, ChannelClosed, join
from launch.cluster import WorkerEnv
from launch.coordinator.listener import BEAT_SECONDS, SILENT_SECONDS
from launch.coordinator.outcome import Codes, Outcome
from launch.network import interface_of

_TRY_SECONDS = 3.0  # one attempt to connect
_FIRST_WORD_SECONDS = 10.0  # of waiting before it is said
_ABORTED_SECONDS = 1.0  # to write the stacks
_CUT_OFF_SECONDS = 5.0  # for ranks whose head is gone
_STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class WorkerAgent:
    """`head`: address and port of worker 0. reconnects: how often it joins anew when the head was lost.

    interface: the one for the ranks' traffic, or None for the one that leads to the head.
    """

    def __init__(
        self,
        worker_env: WorkerEnv,
        command: Sequence[str],
        *,
        coordinator: tuple[str, int],
        secret: bytes,
        num_ranks: int,
        facts: Mapping[str, Any],
        logs: Path,
        interface: str | None,
        wait_seconds: float,
        reconnects: int,
        codes: Codes,
        say: Callable[[str], None],
    ) -> None:
        self._place, self._command, self._head, self._secret = worker_env, command, coordinator, secret
        self._num_ranks, self._facts, self._logs, self._interface = num_ranks, facts, logs, interface
        self._wait_seconds, self._reconnects, self._codes, self._say = wait_seconds, reconnects, codes, say
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ranks: dict[int, RankProcess] = {}  # by local number, those that run
        self._ends: list[int] = []  # codes of this worker's ranks in the round
        self._number = 0  # of the start that they belong to
        self._stopped = False
        self._passed_on: signal.Signals | None = None  # to the ranks

    def run(self) -> Outcome:
        """To the end of the job. Signals that ask to stop are taken from now on."""
        for number in _STOPS:
            signal.signal(number, self._remember)
        while True:
            channel = self._connect()
            if isinstance(channel, Outcome):
                return channel
            try:
                outcome = self._follow(channel)
            finally:
                channel.close()
            if outcome is not None:
                return outcome
            lost = Outcome(self._codes.lost, f"worker 0 at {self._head[0]} was lost")
            if self._stopped or self._reconnects == 0:
                return self._own_failure() or lost
            self._reconnects -= 1

    def _connect(self) -> Channel | Outcome:
        begin, told, why = time.monotonic(), False, ""
        address = "{}:{}".format(*self._head)
        while time.monotonic() - begin < self._wait_seconds:
            if self._stopped:
                return Outcome(self._codes.stopped, "stopped by a signal before the ranks started")
            try:
                channel = join(socket.create_connection(self._head, timeout=_TRY_SECONDS), self._secret)
                channel.set_timeout(SILENT_SECONDS)
                channel.send(
                    {
                        "index": self._place.index,
                        "count": self._place.count,
                        "node": self._place.node,
                        "num_ranks": self._num_ranks,
                        "facts": {**self._facts, "time": time.time()},
                    }
                )
            except ChannelClosed as error:
                why = f"something answers, but does not know this job's secret ({error})"
            except OSError as error:
                why = error.strerror or str(error)
            else:
                self._listen(channel)
                return channel
            if not told and time.monotonic() - begin > _FIRST_WORD_SECONDS:
                told = True
                self._say(f"waiting for worker 0 at {address} ({why})")
            time.sleep(0.3)
        return Outcome(
            self._codes.lost,
            f"no rendezvous at {address} within {self._wait_seconds:.0f} s: {why}. Does worker 0 run there, and may "
            f"this host reach its port?",
        )

    def _listen(self, channel: Channel) -> None:
        """Threads of this connection: what the head says, and a sign of life to it."""

        def receive() -> None:
            try:
                while True:
                    message = channel.receive()
                    if message["kind"] != "beat":
                        self._events.put({**message, "channel": channel})
            except ChannelClosed:
                self._events.put({"kind": "lost", "channel": channel})

        def beat() -> None:
            try:
                while True:
                    channel.send({"kind": "beat"})
                    time.sleep(BEAT_SECONDS)
            except ChannelClosed:
                return

        for work in (receive, beat):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def _follow(self, channel: Channel) -> Outcome | None:
        """Until the job is done; None when the head was lost."""
        while True:
            event = self._events.get()
            if event.get("channel", channel) is not channel:
                continue  # of an earlier head
            match event["kind"]:
                case "start":
                    self._start(event)
                case "ended":
                    self._take_note(event)
                    _tell(channel, kind="ended", number=event["number"], rank=event["rank"], code=event["code"])
                case "save":
                    self._signal_ranks(signal.SIGUSR1)
                case "stop":
                    self._passed_on = event["signal"]
                    _tell(channel, kind="stop")
                    self._signal_ranks(event["signal"])
                case "end":
                    self._end_ranks()
                case "done":
                    self._end_ranks()
                    return Outcome(event["code"], event["reason"])
                case "lost":
                    self._wait_for_own_ranks()
                    return None

    def _start(self, event: Mapping[str, Any]) -> None:
        self._end_ranks()
        self._number, self._ends = event["number"], []
        interface = self._interface or interface_of(event["address"])
        self._logs.mkdir(parents=True, exist_ok=True)
        size = event["slots"][0]["size"]
        width, now = len(str(max(1, size - 1))), time.strftime("%Y-%m-%d %H:%M:%S")
        for slot in event["slots"]:
            rank, local_rank = slot["rank"], slot["local_rank"]
            self._ranks[local_rank] = RankProcess(
                self._command,
                rank_variables(os.environ, slot, rendezvous=tuple(event["rendezvous"]), interface=interface),
                rank=rank,
                log=self._logs / f"rank-{rank:0{width}d}.log",
                headline=f"start {event['number']}: rank {rank} of {size} on {self._place.node}, {now}",
                on_end=partial(self._report_end, event["number"], rank, local_rank),
            )
        if self._passed_on is not None:  # before the ranks were there; a signal that comes now is still to be passed on
            self._signal_ranks(self._passed_on)

    def _report_end(self, number: int, rank: int, local_rank: int, code: int) -> None:
        self._events.put({"kind": "ended", "number": number, "rank": rank, "local_rank": local_rank, "code": code})

    def _take_note(self, event: Mapping[str, Any]) -> None:
        if event["number"] == self._number:
            self._ranks.pop(event["local_rank"], None)
            self._ends.append(event["code"])

    def _signal_ranks(self, number: signal.Signals) -> None:
        for process in self._ranks.values():
            process.signal(number)

    def _end_ranks(self) -> None:
        """Ranks that still run are stuck: they write their stacks and die."""
        for process in self._ranks.values():
            process.signal(signal.SIGABRT)
            process.signal(signal.SIGCONT)  # a stopped one, too
        deadline = time.monotonic() + _ABORTED_SECONDS
        while any(process.runs for process in self._ranks.values()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for process in self._ranks.values():
            process.kill()

    def _wait_for_own_ranks(self) -> None:
        """Without a head they fail, or their own watchdog ends them, within seconds; else this does."""
        deadline = time.monotonic() + _CUT_OFF_SECONDS
        while self._ranks and time.monotonic() < deadline:
            try:
                event = self._events.get(timeout=0.1)
            except queue.Empty:
                continue
            if event["kind"] == "ended":
                self._take_note(event)
            elif event["kind"] == "stop":
                self._stopped = True
        self._end_ranks()

    def _own_failure(self) -> Outcome | None:
        for code in self._ends:
            if code > 0 and code != self._codes.lost:
                return Outcome(
                    code, f"worker 0 was lost; a rank here ended with {code}: {self._codes.meaning.get(code)}"
                )
        return None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        forwarded = signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM
        self._events.put({"kind": "stop", "signal": forwarded})


def _tell(channel: Channel, **message: Any) -> None:
    """A head that cannot be told is lost, which the listening thread reports."""
    try:
        channel.send(message)
    except ChannelClosed:
        return
