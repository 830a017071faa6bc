"""Start this scheduler task's ranks of a Horovod job, without ssh and MPI; run it once per task or pod.

    srun python -m launch.worker -- python train/main.py --config FILE [key=value ...]
    python -m launch.worker --ranks 2 --restarts 10 -- python train/main.py --config FILE
    srun python -m launch.worker --check

Ranks come from SLURM's variables, from those of a Kubernetes Indexed Job (JOB_COMPLETION_INDEX, with SLIMHEADS_WORKERS,
SLIMHEADS_JOB and SLIMHEADS_SERVICE), or from RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Several workers share a
secret in SLIMHEADS_SECRET or the file SLIMHEADS_SECRET_FILE. SLIMHEADS_PORT replaces the port of worker 0. SIGTERM and
SIGUSR1 make the ranks finish their step, save, and end with 75.
"""

import argparse
import contextlib
import math
import os
import resource
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from data.loading.step_memory import SLOTS
from launch.agent.agent import WorkerAgent
from launch.cluster import WorkerEnv, read_secret, read_worker_env
from launch.coordinator.coordinator import Coordinator
from launch.coordinator.listener import Listener, Peer
from launch.coordinator.membership import Quorum
from launch.coordinator.outcome import Codes, Outcome
from launch.errors import LaunchError
from launch.exit_codes import MEANING, ExitCode
from launch.horovod.compatibility import HorovodError
from launch.horovod.patches import check_horovod_is_patched
from launch.network import address_of, head_address, interfaces, listening_address, own_address
from launch.preflight import Host, collect, judge, mark_of
from train.config.loading import load_config
from train.config.schema import Config
from train.errors import ConfigError

CODES = Codes(
    stopped=ExitCode.PREEMPTED,
    lost=ExitCode.RANK_LOST,
    refused=ExitCode.BAD_CONFIG,
    hopeless=frozenset(
        {ExitCode.BAD_CONFIG, ExitCode.BAD_DATA, ExitCode.EXPLODED, ExitCode.CANNOT_WRITE, ExitCode.DIVERGED}
    ),
    meaning={int(code): text for code, text in MEANING.items()},
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(sys.argv[1:] if arguments is None else list(arguments))
    # Gloo keeps connections between all ranks; at 256 of them they are more than the usual 1024 files.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    speaks = True
    try:
        worker_env = read_worker_env(os.environ, hostname=socket.gethostname())
        outcome = _work(options, worker_env, _config_of(options.command))
        speaks = worker_env.index == 0 or outcome.code not in (0, CODES.stopped)
    except (LaunchError, ConfigError, HorovodError) as error:
        outcome = Outcome(ExitCode.BAD_CONFIG, str(error))
    except OSError as error:
        outcome = Outcome(ExitCode.CANNOT_WRITE, str(error))
    if outcome.code != 0 and speaks:
        print(f"worker: exit {int(outcome.code)}: {outcome.reason}", file=sys.stderr, flush=True)
    return int(outcome.code)


def _work(options: argparse.Namespace, worker_env: WorkerEnv, config: Config | None) -> Outcome:
    if not options.check:
        check_horovod_is_patched()
    interface = _interface(options)
    if config and config.elastic and options.ranks > config.elastic.max_ranks:
        raise LaunchError(
            f"--ranks {options.ranks} is more than elastic.max_ranks {config.elastic.max_ranks}: start fewer"
        )
    secret = read_secret(os.environ, alone=worker_env.count == 1)
    folder = Path(config.run.dir) if config else Path(options.folder)
    facts = collect(folder, index=worker_env.index, interface=options.interface) if options.check else {}
    address, port, coordinator = head_address(worker_env), worker_env.port, None
    if worker_env.index == 0:
        listening = listening_address(worker_env, interface=interface)
        listener = Listener(listening, worker_env.port, secret)
        address, port = own_address(listening), listener.port
        coordinator = _start_head(options, worker_env, config, listener, folder)
    agent = WorkerAgent(
        worker_env,
        options.command,
        coordinator=(address, port),
        secret=secret,
        num_ranks=options.ranks,
        facts=facts,
        logs=Path(options.logs) if options.logs else folder / "logs",
        interface=interface,
        wait_seconds=options.wait,
        reconnects=0 if coordinator else options.restarts,
        codes=CODES,
        say=lambda text: print(f"worker {worker_env.index}: {text}", file=sys.stderr, flush=True),
    )
    try:
        return agent.run()
    finally:
        if coordinator is not None:
            coordinator.join(30)  # it still tells the others
        if options.check:
            with contextlib.suppress(OSError):  # it could not be written
                mark_of(folder, worker_env.index).unlink()


def _interface(options: argparse.Namespace) -> str | None:
    """The one to use, where one was named; the preflight itself tells that a host has none of this name.

    Raises LaunchError.
    """
    if options.interface is None or (options.check and options.interface not in interfaces()):
        return None
    address_of(options.interface)  # refuses one that is not there, before anybody waits
    return str(options.interface)


def _start_head(
    options: argparse.Namespace, worker_env: WorkerEnv, config: Config | None, listener: Listener, folder: Path
) -> threading.Thread:
    elastic = config.elastic if config else None
    # The preflight is for all hosts that were promised, also where a job could do with fewer.
    bounds = (elastic.min_ranks, elastic.max_ranks) if elastic and not options.check else None
    coordinator = Coordinator(
        listener,
        Quorum(worker_env.count, bounds),
        restarts=options.restarts,
        wait_seconds=options.wait,
        grow_seconds=options.grow_after,
        workers_return=worker_env.scheduler != "SLURM",
        codes=CODES,
        progress=lambda: _newest_checkpoint(folder),
        say=lambda text: print(f"worker: {text}", flush=True),
    )

    def check() -> None:
        coordinator.check(lambda peers: _print_findings(peers, worker_env, folder, config))

    thread = threading.Thread(target=check if options.check else coordinator.run, name="head", daemon=True)
    thread.start()
    return thread


def _print_findings(peers: Sequence[Peer], worker_env: WorkerEnv, folder: Path, config: Config | None) -> bool:
    """Whether all is well."""

    def read(number: int) -> str:
        try:
            return mark_of(folder, peers[number].index).read_text(encoding="utf-8")
        except OSError:
            return ""

    hosts = [Host(peer.node, peer.num_ranks, peer.facts) for peer in peers]
    loader_gb = _loader_bytes(config, sum(host.num_ranks for host in hosts)) / 1e9 if config else None
    findings = judge(hosts, promised=worker_env.count, read=read, loader_gb=loader_gb)
    for finding in findings:
        print(finding, flush=True)
    return all(finding.ok for finding in findings)


def _loader_bytes(config: Config, num_ranks: int) -> float:
    """About what the images take that a rank's loader processes share with it."""
    if config.data.workers == 0:
        return 0.0
    sizes = {config.data.image_size, (config.teacher and config.teacher.image_size) or config.data.image_size}
    return SLOTS * -(-config.batch_size // num_ranks) * sum(3 * size * size for size in sizes)


def _config_of(command: Sequence[str]) -> Config | None:
    """The config of a training command; a mistake in it is told once, before ranks start.

    Raises ConfigError, LaunchError.
    """
    starts = [number for number, word in enumerate(command) if Path(word).name == "main.py" or word == "train.main"]
    if not starts:
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--config")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("overrides", nargs="*")
    try:
        found, _ = parser.parse_known_args(command[starts[0] + 1 :])
    except argparse.ArgumentError as error:
        raise LaunchError(f"the command after --: {error}") from error
    return load_config(found.config, found.overrides) if found.config else None


def _newest_checkpoint(folder: Path) -> str:
    return max((path.name for path in (folder / "checkpoints").glob("step-*.safetensors")), default="")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m launch.worker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="only look at the hosts; one line each, exit 1 with the fix"
    )
    parser.add_argument("--ranks", type=_positive, default=1, metavar="N", help="ranks of this worker (default 1)")
    parser.add_argument(
        "--restarts",
        type=int,
        default=0,
        metavar="N",
        help="start the ranks again so often after a failure (default 0)",
    )
    parser.add_argument(
        "--wait", type=_seconds, default=300.0, metavar="SECONDS", help="for the other workers (default %(default).0f)"
    )
    parser.add_argument(
        "--grow-after",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="elastic: how long ranks run before a worker that came is taken in (default %(default).0f)",
    )
    parser.add_argument(
        "--interface", metavar="NAME", help="network interface (default: the one that leads to worker 0)"
    )
    parser.add_argument("--logs", metavar="DIR", help="one file per rank (default: logs/ in run.dir, else in --folder)")
    parser.add_argument(
        "--folder", default=".", metavar="DIR", help="folder that all hosts share, where no config names it"
    )
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="what each rank runs")
    options = parser.parse_args(arguments)
    if not options.command and not options.check:
        parser.error("say after -- what each rank runs: python -m launch.worker -- python train/main.py --config FILE")
    return options


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:  # a wait of NaN seconds would never end
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds")
    return value


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number of ranks")
    return number


if __name__ == "__main__":
    sys.exit(main())
