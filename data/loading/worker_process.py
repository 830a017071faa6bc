"""One forked process that makes its part of every step that it is asked for, as its parent and as it sees itself.

    process = LoaderProcess(work, 0, 4, memory, others=[])
    process.request((0, 17), slot=2); part = process.reply((0, 17), limit=600)

Requests and replies go through two pipes; the arrays of a step go into a slot of shared memory. A reply is written
by the process itself, so none can be dropped on the way: one that cannot be sent is a process that ended.
"""

import contextlib
import faulthandler
import os
import select
import signal
import struct
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn, Protocol, TypeVar

import cv2
import torch

from data.errors import LoaderLost
from data.loading.step_memory import Arrays, Layout, StepMemory

StepIn = TypeVar("StepIn", contravariant=True)
PartOut = TypeVar("PartOut", covariant=True)

LEAVE_SECONDS = 1.0  # for a process to end by itself
_PARENT_SECONDS = 1.0  # between two looks whether the parent is still there
_STANDARD_ERROR = 2  # what is sys.stderr in the parent may be an object that the process cannot share
_STACK_SIGNAL = signal.SIGUSR2
_LENGTH = struct.Struct("<Q")


class Maker(Protocol[StepIn, PartOut]):
    """One process's part of the work; may hold open files."""

    def make(self, step: StepIn, arrays: Arrays) -> PartOut:
        """The part of a step; its rows of `arrays` are written in place."""
        ...

    def close(self) -> None: ...


class Work(Protocol[StepIn, PartOut]):
    """What is to be done, before anything is open."""

    @property
    def layout(self) -> Layout:
        """The arrays of one step."""
        ...

    def start(self, worker: int, num_workers: int) -> Maker[StepIn, PartOut]: ...


@dataclass(frozen=True)
class _Failed:
    """What a process says instead of a part."""

    error: Exception


class LoaderProcess:
    """One forked process, as its parent sees it. A fork copies the work as it is and takes milliseconds."""

    def __init__(
        self, work: Work[Any, Any], number: int, count: int, memory: StepMemory, others: Sequence["LoaderProcess"]
    ) -> None:
        self._number = number
        self.descriptors: list[int] = []  # the parent's ends
        requests, self._request = os.pipe()
        self._replies, replies = os.pipe()
        parent = os.getpid()
        self._id = os.fork()
        if self._id == 0:
            for descriptor in (self._request, self._replies, *(end for other in others for end in other.descriptors)):
                os.close(descriptor)
            _work(work, number, count, memory, requests, replies, parent)
        os.close(requests)
        os.close(replies)
        self._ended = os.pidfd_open(self._id)
        self.descriptors = [self._request, self._replies, self._ended]

    def request(self, step: object, slot: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it ended: told where its reply is awaited
            _send(self._request, (step, slot))

    def reply(self, step: object, *, limit: float) -> Any:
        """Its part of the step. Raises LoaderLost and what the work raised."""
        deadline = time.monotonic() + limit
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline, step, limit))
        content = ForkingPickler.loads(self._read(length, deadline, step, limit))
        if isinstance(content, _Failed):
            raise content.error
        return content

    def _read(self, size: int, deadline: float, step: object, limit: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            ready = _wait([self._replies, self._ended], deadline - time.monotonic())
            if self._replies in ready:
                piece = os.read(self._replies, size - len(received))
                received += piece
                if piece:
                    continue
            if not ready:
                self._show_stack()
                raise LoaderLost(f"loader process {self._number} was silent for {limit:g} s, at {_told(step)}")
            raise LoaderLost(f"loader process {self._number} {self._fate()}, at {_told(step)}")
        return bytes(received)

    def _show_stack(self) -> None:
        os.kill(self._id, _STACK_SIGNAL)
        time.sleep(0.2)

    def _fate(self) -> str:
        """How it ended."""
        _wait([self._ended], LEAVE_SECONDS)
        try:
            _, status = os.waitpid(self._id, os.WNOHANG)
        except ChildProcessError:
            return "ended"
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            return f"was killed by {name}" + (", often for lack of memory" if name == "SIGKILL" else "")
        return f"ended with exit code {os.waitstatus_to_exitcode(status)}"

    def hang_up(self) -> None:
        os.close(self._request)
        os.close(self._replies)

    def end(self, deadline: float) -> None:
        _wait([self._ended], deadline - time.monotonic())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._id, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._id, 0)
        os.close(self._ended)


def _told(step: object) -> str:
    return "epoch {} step {}".format(*step) if isinstance(step, tuple) else f"step {step}"


def _work(
    work: Work[Any, Any], number: int, count: int, memory: StepMemory, requests: int, replies: int, parent: int
) -> NoReturn:
    """What a forked process does. It never returns to its parent's code."""
    code = 1
    try:
        # A signal to the whole group asks the parent, which ends its loaders when it is done with them.
        for number_of_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number_of_signal, signal.SIG_IGN)
        faulthandler.register(_STACK_SIGNAL, file=_STANDARD_ERROR)
        # One process per core is the parallelism; threads inside would fight with the training step.
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        _reply_to_all(work, number, count, memory, requests, replies, parent)
        code = 0
    except BaseException:  # nothing may escape into the parent's code; the parent sees the exit code
        os.write(_STANDARD_ERROR, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _reply_to_all(
    work: Work[Any, Any], number: int, count: int, memory: StepMemory, requests: int, replies: int, parent: int
) -> None:
    maker: Maker[Any, Any] | None = None
    while (request := _next_request(requests, parent)) is not None:
        step, slot = request
        try:
            maker = maker or work.start(number, count)
            reply: object = maker.make(step, memory.arrays(slot))
        except Exception as error:  # the parent's to judge
            reply = _Failed(_portable(error))
        try:
            _send(replies, reply)
        except BrokenPipeError:
            break
    if maker is not None:
        maker.close()


def _next_request(requests: int, parent: int) -> Any:
    """None when the parent hung up or is gone. Its end alone does not close the pipe where a process that was forked
    later still has it."""
    while not _wait([requests], _PARENT_SECONDS):
        if os.getppid() != parent:
            return None
    head = os.read(requests, _LENGTH.size)
    if not head:
        return None
    (length,) = _LENGTH.unpack(head)
    return ForkingPickler.loads(os.read(requests, length))


def _wait(descriptors: Sequence[int], seconds: float) -> list[int]:
    """Those that can be read or are at their end, none of them after `seconds`."""
    poll = select.poll()  # select() itself knows no descriptor above 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(1000 * max(0.0, seconds))]


def _send(descriptor: int, content: object) -> None:
    body = ForkingPickler.dumps(content)
    message = memoryview(_LENGTH.pack(len(body)) + bytes(body))
    while message:
        message = message[os.write(descriptor, message) :]


def _portable(error: Exception) -> Exception:
    """The error with its stack, if it survives the journey; else its words."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # whatever its own class raises when it is copied; its words are kept
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note("in a loader process:\n" + traceback.format_exc())
    return error
