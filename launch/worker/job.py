"""One worker from its arguments to its exit code: who it is, what it is to run, the coordinator beside worker 0.

code = main(["--ranks", "2", "--", "python", "train/main.py", "--config", "run.yaml"])
"""

import contextlib
import os
import resource
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from launch.agent.agent import WorkerAgent
from launch.cluster import WorkerEnv, read_secret, read_worker_env
from launch.coordinator.coordinator import Coordinator
from launch.coordinator.listener import Listener, Peer
from launch.coordinator.membership import Quorum
from launch.coordinator.outcome import Outcome
from launch.errors import LaunchError
from launch.exit_codes import ExitCode
from launch.horovod.compatibility import HorovodError
from launch.horovod.patches import check_horovod_is_patched
from launch.network import address_of, coordinator_address, interfaces, listening_address, own_address
from launch.worker.options import WorkerOptions, parse_options
from launch.worker.preflight import Host, check_hosts, collect, probe_file
from launch.worker.training_config import read_training_config
from train.setup.launch_needs import LaunchNeeds

_FAREWELL_SECONDS = 30.0  # for the coordinator to tell the other workers how the job ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of the job, or 75 for a worker that left an elastic one."""
    options = parse_options(arguments)
    # Gloo keeps connections between all ranks; at 256 of them they are more than the usual 1024 files.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    prints_reason = True
    try:
        worker_env = read_worker_env(os.environ, hostname=socket.gethostname())
        outcome = _run(options, worker_env, read_training_config(options.command))
        prints_reason = worker_env.index == 0 or outcome.code not in (ExitCode.DONE, ExitCode.PREEMPTED)
    except (LaunchError, HorovodError) as error:
        outcome = Outcome(ExitCode.BAD_CONFIG, str(error))
    except OSError as error:
        outcome = Outcome(ExitCode.CANNOT_WRITE, str(error))
    if outcome.code != ExitCode.DONE and prints_reason:
        print(f"worker: exit {int(outcome.code)}: {outcome.reason}", file=sys.stderr, flush=True)
    return int(outcome.code)


def _run(options: WorkerOptions, worker_env: WorkerEnv, training: LaunchNeeds | None) -> Outcome:
    """To the end of the job. Raises LaunchError, HorovodError, OSError."""
    if not options.check:
        check_horovod_is_patched()
    interface = _existing_interface(options)
    if training and training.rank_bounds and options.num_ranks > training.rank_bounds[1]:
        raise LaunchError(
            f"--ranks {options.num_ranks} is more than elastic.max_ranks {training.rank_bounds[1]}: start fewer"
        )
    secret = read_secret(os.environ, alone=worker_env.count == 1)
    folder = training.run_folder if training else options.folder
    metadata = collect(folder, index=worker_env.index, interface=options.interface) if options.check else {}
    address, port, coordinator = coordinator_address(worker_env), worker_env.port, None
    if worker_env.index == 0:
        listening = listening_address(worker_env, interface=interface)
        listener = Listener(listening, worker_env.port, secret)
        address, port = own_address(listening), listener.port
        coordinator = _start_coordinator(options, worker_env, training, listener, folder)
    agent = WorkerAgent(
        worker_env,
        options.command,
        coordinator=(address, port),
        secret=secret,
        num_ranks=options.num_ranks,
        metadata=metadata,
        log_folder=options.log_folder or folder / "logs",
        interface=interface,
        wait_seconds=options.wait_seconds,
        reconnects=0 if coordinator else options.restarts,
        log=lambda text: print(f"worker {worker_env.index}: {text}", file=sys.stderr, flush=True),
    )
    try:
        return agent.run()
    finally:
        if coordinator is not None:
            coordinator.join(_FAREWELL_SECONDS)
        if options.check:
            with contextlib.suppress(OSError):  # it could not be written
                probe_file(folder, worker_env.index).unlink()


def _existing_interface(options: WorkerOptions) -> str | None:
    """The one to use, where one was named; the preflight itself reports that a host has none of this name.

    Raises LaunchError.
    """
    if options.interface is None or (options.check and options.interface not in interfaces()):
        return None
    address_of(options.interface)  # refuses one that is not there, before anybody waits
    return options.interface


def _start_coordinator(
    options: WorkerOptions, worker_env: WorkerEnv, training: LaunchNeeds | None, listener: Listener, folder: Path
) -> threading.Thread:
    coordinator = Coordinator(
        listener,
        _quorum(options, worker_env.count, training),
        restarts=options.restarts,
        wait_seconds=options.wait_seconds,
        grow_seconds=options.grow_seconds,
        workers_return=worker_env.scheduler != "SLURM",
        newest_checkpoint=lambda: _newest_checkpoint(folder),
        log=lambda text: print(f"worker: {text}", flush=True),
    )

    def check() -> None:
        coordinator.check(lambda peers: _print_preflight(peers, worker_env.count, folder, training))

    thread = threading.Thread(target=check if options.check else coordinator.run, name="coordinator", daemon=True)
    thread.start()
    return thread


def _quorum(options: WorkerOptions, num_workers: int, training: LaunchNeeds | None) -> Quorum:
    """The preflight is for all hosts that were promised, also where a job could do with fewer."""
    return Quorum(num_workers, training.rank_bounds if training and not options.check else None)


def _print_preflight(peers: Sequence[Peer], promised: int, folder: Path, training: LaunchNeeds | None) -> bool:
    """Whether every check passed."""

    def read_probe(number: int) -> str:
        try:
            return probe_file(folder, peers[number].index).read_text(encoding="utf-8")
        except OSError:
            return ""

    hosts = [Host(peer.node, peer.num_ranks, peer.metadata) for peer in peers]
    loader_gb = training.loader_bytes(sum(host.num_ranks for host in hosts)) / 1e9 if training else None
    results = check_hosts(hosts, promised=promised, read_probe=read_probe, loader_gb=loader_gb)
    for result in results:
        print(result, flush=True)
    return all(result.ok for result in results)


def _newest_checkpoint(folder: Path) -> str:
    """Its file's name; "" before the first."""
    return max((path.name for path in (folder / "checkpoints").glob("step-*.safetensors")), default="")
