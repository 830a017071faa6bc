"""Beside worker 0: gathers the workers, starts their ranks together, and decides what follows when one of them ends.

Coordinator(listener, Quorum(count=2, bounds=None), restarts=10, ...).run()

An *attempt* is one start of all ranks. An elastic job is a chain of attempts of different sizes, each from the last
checkpoint: sample order and batch do not depend on the number of ranks, so nothing is lost or seen twice and no state
has to be moved between living ranks.
"""

import queue
import time
from collections.abc import Callable
from typing import Any

from launch.channel import HEARTBEAT_SECONDS
from launch.coordinator.attempt import Attempt
from launch.coordinator.listener import Event, Listener, Peer
from launch.coordinator.membership import Quorum, num_ranks
from launch.coordinator.outcome import Outcome, RestartLimit, outcome_of
from launch.coordinator.slots import Slot, assign
from launch.exit_codes import HOPELESS, ExitCode
from launch.network import is_loopback, rank_addresses

_SETTLE_SECONDS = 5.0  # without a new worker, before an elastic job starts with fewer ranks than it could have


class Coordinator:
    """restarts: after failures. wait_seconds: for the workers of an attempt. grow_seconds: how long ranks run before a
    worker that came is taken in. workers_return: the scheduler starts a lost worker again. newest_checkpoint: names the
    run's newest, "" before the first. log: prints a line.
    """

    def __init__(
        self,
        listener: Listener,
        quorum: Quorum,
        *,
        restarts: int,
        wait_seconds: float,
        grow_seconds: float,
        workers_return: bool,
        newest_checkpoint: Callable[[], str],
        log: Callable[[str], None],
    ) -> None:
        self._listener, self._quorum = listener, quorum
        self._limit, self._wait_seconds, self._grow_seconds = RestartLimit(restarts), wait_seconds, grow_seconds
        self._workers_return, self._newest_checkpoint, self._log = workers_return, newest_checkpoint, log
        self._peers: dict[int, Peer] = {}
        self._stop_requested = False
        self._next_heartbeat = 0.0
        self._attempts = 0

    def run(self) -> None:
        """To the end of the job; tells every worker how it ended."""
        self._finish(self._run_attempts())

    def check(self, report: Callable[[list[Peer]], bool]) -> None:
        """Starts nothing: `report` says whether the workers that came are fit."""
        self.gather()
        fit = report([self._peers[index] for index in sorted(self._peers)])
        self._finish(Outcome(ExitCode.DONE, "") if fit else Outcome(1, "not fit to train yet, see above"))

    def _finish(self, outcome: Outcome) -> None:
        for peer in self._peers.values():
            peer.send(kind="done", code=outcome.code, reason=outcome.reason)
        self._listener.close()

    def gather(self) -> Outcome | list[Peer]:
        """The workers of the next attempt, by index, once there are enough, or why there will not be."""
        begin = joined = time.monotonic()
        refused: Outcome | None = None
        while refused is not None or not self._quorum.enough(
            self._peers, settled=time.monotonic() - joined > _SETTLE_SECONDS
        ):
            if shortage := self._quorum.shortage(self._peers):
                return Outcome(ExitCode.BAD_CONFIG, shortage)
            if refused is not None and 0 in self._peers:  # worker 0, on this host, is to hear it too
                return refused
            if self._stop_requested:
                return Outcome(ExitCode.PREEMPTED, "stopped by a signal while waiting for the workers")
            if time.monotonic() - begin > self._wait_seconds:
                return Outcome(ExitCode.RANK_LOST, self._missing_workers())
            event = self.next_event(0.5)
            if event is None:
                continue
            peer, message = event
            if message["kind"] == "join":
                refused = self._admit(peer) or refused
                joined = time.monotonic()
            elif message["kind"] == "lost":
                self._remove(peer)
            elif message["kind"] == "stop":
                self._stop(peer)
                if peer.leaving:
                    self._dismiss(peer)
        return self._quorum.fitting(self._peers)

    def next_event(self, seconds: float) -> Event | None:
        """None when nothing came in this time. Sends heartbeats meanwhile."""
        end = time.monotonic() + seconds
        while True:
            if time.monotonic() >= self._next_heartbeat:
                self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
                for peer in self._peers.values():
                    peer.send(kind="heartbeat")
            try:
                event = self._listener.events.get(timeout=max(0.0, min(HEARTBEAT_SECONDS, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end:
                    return None
                continue
            peer, message = event
            known = self._peers.get(peer.index) is peer
            if message["kind"] == "join" or (known and message["kind"] != "heartbeat"):
                return event

    def _run_attempts(self) -> Outcome:
        while True:
            peers = self.gather()
            if isinstance(peers, Outcome):
                return peers
            self._limit.begin(self._newest_checkpoint())
            finished = self._run_attempt(peers)
            outcome = outcome_of(finished.ends, stop_requested=self._stop_requested or finished.changing)
            for peer in [peer for peer in self._peers.values() if peer.leaving]:
                self._dismiss(peer)
            final = self._after(outcome, finished)
            if final is not None:
                return final

    def _run_attempt(self, peers: list[Peer]) -> Attempt:
        from launch.coordinator.rendezvous import Rendezvous  # a preflight must work where Horovod is missing

        self._attempts += 1
        slots = assign([(peer.node, peer.num_ranks) for peer in peers])
        address, hosts = rank_addresses([peer.channel for peer in peers])
        size = slots[0][0].size
        self._log_start(peers, size, address)
        with Rendezvous(address, [slot for worker in slots for slot in worker], hosts=hosts) as rendezvous:
            current = self._start_ranks(peers, slots, (address, rendezvous.port, rendezvous.secret))
            grow_at = time.monotonic() + self._grow_seconds
            while not current.over:
                event = self.next_event(current.patience())
                if event is not None:
                    self._handle(current, *event)
                settled = not current.changing and not current.ends and time.monotonic() > grow_at
                if settled and self._quorum.bounds is not None and num_ranks(self._quorum.fitting(self._peers)) > size:
                    self._log("a worker came: the ranks save and start again with it")
                    current.save_and_end()
        return current

    def _log_start(self, peers: list[Peer], size: int, address: str) -> None:
        nodes = len({peer.node for peer in peers})
        idle = [str(index) for index, peer in sorted(self._peers.items()) if peer not in peers]
        self._log(
            f"start {self._attempts}: {size} rank{'s' * (size > 1)} on {nodes} node{'s' * (nodes > 1)}, via {address}"
            + (f"; no room within elastic.max_ranks for worker {', '.join(idle)}" if idle else "")
        )

    def _start_ranks(self, peers: list[Peer], slots: list[list[Slot]], rendezvous: tuple[str, int, str]) -> Attempt:
        for peer, worker in zip(peers, slots, strict=True):
            remote = peer.channel.remote_address
            peer.send(
                kind="start",
                attempt=self._attempts,
                slots=[vars(slot) for slot in worker],
                rendezvous=rendezvous,
                address=rendezvous[0] if is_loopback(remote) else remote,
            )
        return Attempt([(peer, [slot.rank for slot in worker]) for peer, worker in zip(peers, slots, strict=True)])

    def _handle(self, current: Attempt, peer: Peer, message: dict[str, Any]) -> None:
        """What happens while ranks run."""
        if message["kind"] == "join":
            before = self._peers.get(peer.index)
            refused = self._admit(peer)
            if refused is not None:
                self._log(refused.reason)
            elif before is not None:
                current.lose(before, "another worker came with its index")
        elif message["kind"] == "lost":
            current.lose(peer, message["why"])
            self._remove(peer)
        elif message["kind"] == "ended" and message["attempt"] == self._attempts:
            current.end(peer, message["rank"], message["code"])
        elif message["kind"] == "stop":
            self._stop(peer)
            if peer.leaving and current.has(peer):
                current.changing = True
            elif peer.leaving:
                self._dismiss(peer)

    def _after(self, outcome: Outcome, finished: Attempt) -> Outcome | None:
        """The job's outcome, or None for another attempt."""
        if outcome.code == ExitCode.DONE or self._stop_requested or outcome.code in HOPELESS:
            return outcome
        if outcome.code == ExitCode.PREEMPTED:
            return None if finished.changing else outcome
        self._log(outcome.reason)
        if finished.workers_lost and self._quorum.bounds is not None:
            crash_loop = self._limit.crash_loop(self._newest_checkpoint())
            return Outcome(outcome.code, f"{outcome.reason}; {crash_loop}") if crash_loop else None
        if finished.workers_lost and not self._workers_return:
            return outcome
        again, why = self._limit.may_restart(self._newest_checkpoint())
        if not again:
            return Outcome(outcome.code, f"{outcome.reason}; {why}" if why else outcome.reason)
        self._log(why)
        return None

    def _admit(self, peer: Peer) -> Outcome | None:
        """A newcomer replaces a lost one with its index. An outcome where the job cannot go on."""
        if peer.count != self._quorum.count or peer.index >= self._quorum.count:
            reason = (
                f"worker {peer.index} on {peer.node} was told of {peer.count} workers, worker 0 of "
                f"{self._quorum.count}: start all with the same variables"
            )
            peer.send(kind="done", code=ExitCode.BAD_CONFIG, reason=reason)
            return Outcome(ExitCode.BAD_CONFIG, reason)
        before = self._peers.get(peer.index)
        if before is not None:
            before.send(kind="done", code=ExitCode.RANK_LOST, reason=f"another worker came with index {peer.index}")
        self._peers[peer.index] = peer
        return None

    def _stop(self, peer: Peer) -> None:
        """A signal from outside. One worker of an elastic job leaves; worker 0 takes all with it, as in other jobs."""
        if self._quorum.bounds is not None and peer.index != 0:
            peer.leaving = True
        else:
            self._stop_requested = True

    def _dismiss(self, peer: Peer) -> None:
        peer.send(kind="done", code=ExitCode.PREEMPTED, reason="stopped by a signal; the others go on")
        self._remove(peer)

    def _remove(self, peer: Peer) -> None:
        if self._peers.get(peer.index) is peer:
            del self._peers[peer.index]

    def _missing_workers(self) -> str:
        return (
            f"after {self._wait_seconds:.0f} s {len(self._peers)} of {self._quorum.count} workers are here; missing: "
            f"{self._quorum.missing(self._peers)}. Do they run, and do they reach this host's port "
            f"{self._listener.port}?"
        )
