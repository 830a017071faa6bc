"""A worker: joins the coordinator, starts the ranks of this worker when told to, passes signals on, reports exit codes.

outcome = WorkerAgent(worker_env, command, coordinator=("10.0.0.1", 29400), secret=secret, ...).run()
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
from launch.channel import HEARTBEAT_SECONDS, SILENT_SECONDS, Channel, ChannelClosed, join
from launch.cluster import WorkerEnv
from launch.coordinator.outcome import Outcome
from launch.exit_codes import MEANING, ExitCode
from launch.network import interface_of

_CONNECT_SECONDS = 3.0  # one attempt to connect
_RETRY_SECONDS = 0.3
_QUIET_SECONDS = 10.0  # of waiting before it is logged
_ABORT_SECONDS = 1.0  # for a stuck rank to write its stacks
_CUT_OFF_SECONDS = 5.0  # for ranks whose coordinator is gone
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class WorkerAgent:
    """coordinator: address and port of worker 0. metadata: what this host reports of itself, JSON-able. log_folder:
    gets a file per rank. interface: of the ranks' traffic, or None for the one that leads to the coordinator.
    wait_seconds: for the coordinator. reconnects: how often it joins anew when the coordinator was lost.
    """

    def __init__(
        self,
        worker_env: WorkerEnv,
        command: Sequence[str],
        *,
        coordinator: tuple[str, int],
        secret: bytes,
        num_ranks: int,
        metadata: Mapping[str, Any],
        log_folder: Path,
        interface: str | None,
        wait_seconds: float,
        reconnects: int,
        log: Callable[[str], None],
    ) -> None:
        self._worker_env, self._command, self._coordinator, self._secret = worker_env, command, coordinator, secret
        self._num_ranks, self._metadata, self._log_folder, self._interface = num_ranks, metadata, log_folder, interface
        self._wait_seconds, self._reconnects, self._log = wait_seconds, reconnects, log
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ranks: dict[int, RankProcess] = {}  # by local rank, those that run
        self._exit_codes: list[int] = []  # of this worker's ranks in the attempt
        self._attempt = 0  # its number
        self._stopped = False
        self._forwarded: signal.Signals | None = None  # to the ranks

    def run(self) -> Outcome:
        """To the end of the job. Signals that ask to stop are taken from now on."""
        for number in _STOP_SIGNALS:
            signal.signal(number, self._on_signal)
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
            lost = Outcome(ExitCode.RANK_LOST, f"worker 0 at {self._coordinator[0]} was lost")
            if self._stopped or self._reconnects == 0:
                return self._own_failure() or lost
            self._reconnects -= 1

    def _connect(self) -> Channel | Outcome:
        begin, logged, why = time.monotonic(), False, ""
        address = "{}:{}".format(*self._coordinator)
        while time.monotonic() - begin < self._wait_seconds:
            if self._stopped:
                return Outcome(ExitCode.PREEMPTED, "stopped by a signal before the ranks started")
            try:
                channel = join(socket.create_connection(self._coordinator, timeout=_CONNECT_SECONDS), self._secret)
                channel.set_timeout(SILENT_SECONDS)
                channel.send(
                    {
                        "index": self._worker_env.index,
                        "count": self._worker_env.count,
                        "node": self._worker_env.node,
                        "num_ranks": self._num_ranks,
                        "metadata": {**self._metadata, "time": time.time()},
                    }
                )
            except ChannelClosed as error:
                why = f"something answers, but does not know this job's secret ({error})"
            except OSError as error:
                why = error.strerror or str(error)
            else:
                self._start_threads(channel)
                return channel
            if not logged and time.monotonic() - begin > _QUIET_SECONDS:
                logged = True
                self._log(f"waiting for worker 0 at {address} ({why})")
            time.sleep(_RETRY_SECONDS)
        return Outcome(
            ExitCode.RANK_LOST,
            f"no rendezvous at {address} within {self._wait_seconds:.0f} s: {why}. Does worker 0 run there, and may "
            f"this host reach its port?",
        )

    def _start_threads(self, channel: Channel) -> None:
        """Of this connection: one receives what the coordinator sends, one sends it heartbeats."""

        def receive() -> None:
            try:
                while True:
                    message = channel.receive()
                    if message["kind"] != "heartbeat":
                        self._events.put({**message, "channel": channel})
            except ChannelClosed:
                self._events.put({"kind": "lost", "channel": channel})

        def send_heartbeats() -> None:
            try:
                while True:
                    channel.send({"kind": "heartbeat"})
                    time.sleep(HEARTBEAT_SECONDS)
            except ChannelClosed:
                return

        for work in (receive, send_heartbeats):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def _follow(self, channel: Channel) -> Outcome | None:
        """Until the job is done; None when the coordinator was lost."""
        while True:
            event = self._events.get()
            if event.get("channel", channel) is not channel:
                continue  # of an earlier coordinator
            match event["kind"]:
                case "start":
                    self._start_ranks(event)
                case "ended":
                    self._record_end(event)
                    _send(channel, kind="ended", attempt=event["attempt"], rank=event["rank"], code=event["code"])
                case "save":
                    self._signal_ranks(signal.SIGUSR1)
                case "stop":
                    self._forwarded = event["signal"]
                    _send(channel, kind="stop")
                    self._signal_ranks(event["signal"])
                case "abort":
                    self._abort_ranks()
                case "done":
                    self._abort_ranks()
                    return Outcome(event["code"], event["reason"])
                case "lost":
                    self._wait_for_own_ranks()
                    return None

    def _start_ranks(self, event: Mapping[str, Any]) -> None:
        self._abort_ranks()
        self._attempt, self._exit_codes = event["attempt"], []
        interface = self._interface or interface_of(event["address"])
        self._log_folder.mkdir(parents=True, exist_ok=True)
        size = event["slots"][0]["size"]
        width, now = len(str(max(1, size - 1))), time.strftime("%Y-%m-%d %H:%M:%S")
        for slot in event["slots"]:
            rank, local_rank = slot["rank"], slot["local_rank"]
            self._ranks[local_rank] = RankProcess(
                self._command,
                rank_variables(os.environ, slot, rendezvous=tuple(event["rendezvous"]), interface=interface),
                rank=rank,
                log=self._log_folder / f"rank-{rank:0{width}d}.log",
                headline=f"start {event['attempt']}: rank {rank} of {size} on {self._worker_env.node}, {now}",
                on_end=partial(self._report_end, event["attempt"], rank, local_rank),
            )
        if self._forwarded is not None:  # before the ranks were there; a signal that comes now is still to be forwarded
            self._signal_ranks(self._forwarded)

    def _report_end(self, attempt: int, rank: int, local_rank: int, code: int) -> None:
        self._events.put({"kind": "ended", "attempt": attempt, "rank": rank, "local_rank": local_rank, "code": code})

    def _record_end(self, event: Mapping[str, Any]) -> None:
        if event["attempt"] == self._attempt:
            self._ranks.pop(event["local_rank"], None)
            self._exit_codes.append(event["code"])

    def _signal_ranks(self, number: signal.Signals) -> None:
        for process in self._ranks.values():
            process.signal(number)

    def _abort_ranks(self) -> None:
        """Ranks that still run are stuck: they write their stacks and die."""
        for process in self._ranks.values():
            process.signal(signal.SIGABRT)
            process.signal(signal.SIGCONT)  # a stopped one, too
        deadline = time.monotonic() + _ABORT_SECONDS
        while any(process.runs for process in self._ranks.values()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for process in self._ranks.values():
            process.kill()

    def _wait_for_own_ranks(self) -> None:
        """Without a coordinator they fail, or their own watchdog ends them, within seconds; else this does."""
        deadline = time.monotonic() + _CUT_OFF_SECONDS
        while self._ranks and time.monotonic() < deadline:
            try:
                event = self._events.get(timeout=0.1)
            except queue.Empty:
                continue
            if event["kind"] == "ended":
                self._record_end(event)
            elif event["kind"] == "stop":
                self._stopped = True
        self._abort_ranks()

    def _own_failure(self) -> Outcome | None:
        for code in self._exit_codes:
            if code > 0 and code != ExitCode.RANK_LOST:
                return Outcome(code, f"worker 0 was lost; a rank here ended with {code}: {MEANING.get(code)}")
        return None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        forwarded = signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM
        self._events.put({"kind": "stop", "signal": forwarded})


def _send(channel: Channel, **message: Any) -> None:
    """A coordinator that cannot be reached is lost, which the receiving thread reports."""
    try:
        channel.send(message)
    except ChannelClosed:
        return
