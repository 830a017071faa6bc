"""Beside worker 0: gathers the workers, starts their ranks together, and decides what follows when one of them ends.

Head(door, Quorum(count=2, bounds=None), ...).run()

A *round* is one start of all ranks. An elastic job is a chain of rounds of different sizes, each from the last
checkpoint: sample order and batch do not depend on the number of ranks, so nothing is lost or seen twice and no state
has to be moved between living ranks.
"""

import queue
import time
from collections.abc import Callable
from typing import Any

from launch.coordinator.attempt import Attempt
from launch.coordinator.listener import BEAT_SECONDS, Event, Listener, Peer
from launch.coordinator.membership import Quorum, num_ranks
from launch.coordinator.outcome import Codes, Outcome, RestartLimit, judge
from launch.coordinator.slots import assign
from launch.network import is_loopback, where_ranks_meet

_SETTLE_SECONDS = 5.0  # without a new worker, before an elastic job starts with fewer ranks than it could have


class Coordinator:
    """progress: names the run's newest checkpoint. say: prints.

    workers_return: the scheduler starts a lost worker again.
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
        codes: Codes,
        progress: Callable[[], str],
        say: Callable[[str], None],
    ) -> None:
        self._door, self._quorum = listener, quorum
        self._limit, self._wait_seconds, self._grow_seconds = RestartLimit(restarts), wait_seconds, grow_seconds
        self._workers_return, self._codes, self._progress, self._say = workers_return, codes, progress, say
        self._peers: dict[int, Peer] = {}
        self._stop_asked = False
        self._next_beat = 0.0
        self._rounds = 0

    def run(self) -> None:
        """To the end of the job; tells every worker how it ended."""
        self._end(self._rounds_until_the_end())

    def check(self, report: Callable[[list[Peer]], bool]) -> None:
        """Starts nothing: `report` says whether the workers that came are well."""
        self.gather()
        well = report([self._peers[index] for index in sorted(self._peers)])
        self._end(Outcome(0, "") if well else Outcome(1, "not fit to train yet, see above"))

    def _end(self, outcome: Outcome) -> None:
        for peer in self._peers.values():
            peer.tell(kind="done", code=outcome.code, reason=outcome.reason)
        self._door.close()

    def gather(self) -> Outcome | list[Peer]:
        """The workers of the next round, in order of their indices, once there are enough, or why there will not be."""
        begin = joined = time.monotonic()
        refused: Outcome | None = None
        while refused is not None or not self._quorum.enough(
            self._peers, settled=time.monotonic() - joined > _SETTLE_SECONDS
        ):
            if shortage := self._quorum.shortage(self._peers):
                return Outcome(self._codes.refused, shortage)
            if refused is not None and 0 in self._peers:  # worker 0, on this host, is to hear it too
                return refused
            if self._stop_asked:
                return Outcome(self._codes.stopped, "stopped by a signal while waiting for the workers")
            if time.monotonic() - begin > self._wait_seconds:
                return Outcome(self._codes.lost, self._who_is_missing())
            event = self.next_event(0.5)
            if event is None:
                continue
            peer, message = event
            if message["kind"] == "join":
                refused = self._let_in(peer) or refused
                joined = time.monotonic()
            elif message["kind"] == "lost":
                self._forget(peer)
            elif message["kind"] == "stop":
                self._stop(peer)
                if peer.leaving:
                    self._send_away(peer)
        return self._quorum.fitting(self._peers)

    def next_event(self, seconds: float) -> Event | None:
        """None when nothing came in this time. Lets the workers know that the head lives."""
        end = time.monotonic() + seconds
        while True:
            if time.monotonic() >= self._next_beat:
                self._next_beat = time.monotonic() + BEAT_SECONDS
                for peer in self._peers.values():
                    peer.tell(kind="beat")
            try:
                event = self._door.events.get(timeout=max(0.0, min(BEAT_SECONDS, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end:
                    return None
                continue
            peer, message = event
            known = self._peers.get(peer.index) is peer
            if message["kind"] == "join" or (known and message["kind"] != "beat"):
                return event

    def _rounds_until_the_end(self) -> Outcome:
        while True:
            peers = self.gather()
            if isinstance(peers, Outcome):
                return peers
            self._limit.begin(self._progress())
            finished = self._one_round(peers)
            outcome = judge(finished.ends, self._codes, stop_asked=self._stop_asked or finished.changing)
            for peer in [peer for peer in self._peers.values() if peer.leaving]:
                self._send_away(peer)
            final = self._after(outcome, finished)
            if final is not None:
                return final

    def _one_round(self, peers: list[Peer]) -> Attempt:
        from launch.coordinator.rendezvous import Rendezvous

        self._rounds += 1
        slots = assign([(peer.node, peer.num_ranks) for peer in peers])
        address, hosts = where_ranks_meet([peer.channel for peer in peers])
        size = slots[0][0].size
        nodes = len({peer.node for peer in peers})
        idle = [str(index) for index, peer in sorted(self._peers.items()) if peer not in peers]
        self._say(
            f"start {self._rounds}: {size} rank{'s' * (size > 1)} on {nodes} node{'s' * (nodes > 1)}, via {address}"
            + (f"; no room within elastic.max_ranks for worker {', '.join(idle)}" if idle else "")
        )
        with Rendezvous(address, [slot for worker in slots for slot in worker], hosts=hosts) as rendezvous:
            for peer, worker in zip(peers, slots, strict=True):
                remote = peer.channel.remote_address
                peer.tell(
                    kind="start",
                    number=self._rounds,
                    slots=[vars(slot) for slot in worker],
                    rendezvous=[address, rendezvous.port, rendezvous.secret],
                    address=address if is_loopback(remote) else remote,
                )
            current = Attempt(
                [(peer, [slot.rank for slot in worker]) for peer, worker in zip(peers, slots, strict=True)], self._codes
            )
            grow_at = time.monotonic() + self._grow_seconds
            while not current.over:
                event = self.next_event(current.patience())
                if event is not None:
                    self._during(current, *event)
                settled = not current.changing and not current.ends and time.monotonic() > grow_at
                if settled and self._quorum.bounds is not None and num_ranks(self._quorum.fitting(self._peers)) > size:
                    self._say("a worker came: the ranks save and start again with it")
                    current.save_and_end()
        return current

    def _during(self, current: Attempt, peer: Peer, message: dict[str, Any]) -> None:
        """What happens while ranks run."""
        if message["kind"] == "join":
            before = self._peers.get(peer.index)
            refused = self._let_in(peer)
            if refused is not None:
                self._say(refused.reason)
            elif before is not None:
                current.lose(before, "another worker came with its index")
        elif message["kind"] == "lost":
            current.lose(peer, message["why"])
            self._forget(peer)
        elif message["kind"] == "ended" and message["number"] == self._rounds:
            current.end(peer, message["rank"], message["code"])
        elif message["kind"] == "stop":
            self._stop(peer)
            if peer.leaving and current.has(peer):
                current.changing = True
            elif peer.leaving:
                self._send_away(peer)

    def _after(self, outcome: Outcome, finished: Attempt) -> Outcome | None:
        """The job's outcome, or None for another round."""
        if outcome.code == 0 or self._stop_asked or outcome.code in self._codes.hopeless:
            return outcome
        if outcome.code == self._codes.stopped:
            return None if finished.changing else outcome
        self._say(outcome.reason)
        if finished.workers_lost and self._quorum.bounds is not None:
            loop = self._limit.loop(self._progress())
            return Outcome(outcome.code, f"{outcome.reason}; {loop}") if loop else None
        if finished.workers_lost and not self._workers_return:
            return outcome
        again, why = self._limit.another(self._progress())
        if not again:
            return Outcome(outcome.code, f"{outcome.reason}; {why}" if why else outcome.reason)
        self._say(why)
        return None

    def _let_in(self, peer: Peer) -> Outcome | None:
        """A newcomer takes the place of a lost one with its index. An outcome where the job cannot go on."""
        if peer.count != self._quorum.count or peer.index >= self._quorum.count:
            reason = (
                f"worker {peer.index} on {peer.node} was told of {peer.count} workers, worker 0 of "
                f"{self._quorum.count}: start all with the same variables"
            )
            peer.tell(kind="done", code=self._codes.refused, reason=reason)
            return Outcome(self._codes.refused, reason)
        before = self._peers.get(peer.index)
        if before is not None:
            before.tell(kind="done", code=self._codes.lost, reason=f"another worker came with index {peer.index}")
        self._peers[peer.index] = peer
        return None

    def _stop(self, peer: Peer) -> None:
        """A signal from outside. One worker of an elastic job leaves; worker 0 takes all with it, as in other jobs."""
        if self._quorum.bounds is not None and peer.index != 0:
            peer.leaving = True
        else:
            self._stop_asked = True

    def _send_away(self, peer: Peer) -> None:
        peer.tell(kind="done", code=self._codes.stopped, reason="stopped by a signal; the others go on")
        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        if self._peers.get(peer.index) is peer:
            del self._peers[peer.index]

    def _who_is_missing(self) -> str:
        return (
            f"after {self._wait_seconds:.0f} s {len(self._peers)} of {self._quorum.count} workers are here; missing: "
            f"{self._quorum.missing(self._peers)}. Do they run, and do they reach this host's port {self._door.port}?"
        )
