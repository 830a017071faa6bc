"""What `python -m launch.worker` is asked to do.

options = parse_options(["--ranks", "2", "--", "python", "train/main.py", "--config", "run.yaml"])
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.arguments import duration, not_negative, positive

_DESCRIPTION = """\
Start this scheduler task's ranks of a Horovod job, without ssh and MPI; run it once per task or pod.

    srun python -m launch.worker -- python train/main.py --config FILE [key=value ...]
    python -m launch.worker --ranks 2 --restarts 10 -- python train/main.py --config FILE
    srun python -m launch.worker --check

Ranks come from SLURM's variables, from those of a Kubernetes Indexed Job (JOB_COMPLETION_INDEX, with SLIMHEADS_WORKERS,
SLIMHEADS_JOB and SLIMHEADS_SERVICE), or from RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Several workers share a
secret in SLIMHEADS_SECRET or the file SLIMHEADS_SECRET_FILE. SLIMHEADS_PORT replaces the port of worker 0. SIGTERM and
SIGUSR1 make the ranks finish their step, save, and end with 75.
"""


@dataclass(frozen=True)
class WorkerOptions:
    """check: only look at the hosts. num_ranks: of this worker. wait_seconds: for the other workers. grow_seconds: how
    long ranks of an elastic job run before a worker that came is taken in. interface: None for the one that leads to
    worker 0. log_folder: None for logs/ in the run folder. folder: shared by all hosts, where no config names one.
    command: what each rank runs; empty only with `check`.
    """

    check: bool
    num_ranks: int
    restarts: int
    wait_seconds: float
    grow_seconds: float
    interface: str | None
    log_folder: Path | None
    folder: Path
    command: tuple[str, ...]


def parse_options(arguments: Sequence[str] | None = None) -> WorkerOptions:
    """Of this process by default. Ends it with 2 where they are wrong."""
    parser = _parser()
    found = parser.parse_args(arguments)
    if not found.command and not found.check:
        parser.error("say after -- what each rank runs: python -m launch.worker -- python train/main.py --config FILE")
    return WorkerOptions(
        check=found.check,
        num_ranks=found.ranks,
        restarts=found.restarts,
        wait_seconds=found.wait,
        grow_seconds=found.grow_after,
        interface=found.interface,
        log_folder=found.logs,
        folder=found.folder,
        command=tuple(found.command),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.worker", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--check", action="store_true", help="only look at the hosts; one line each, exit 1 with the fix")
    add("--ranks", type=positive, default=1, metavar="N", help="ranks of this worker (default 1)")
    add(
        "--restarts",
        type=not_negative,
        default=0,
        metavar="N",
        help="start the ranks again so often after a failure (default 0)",
    )
    add("--wait", type=duration, default=300.0, metavar="SECONDS", help="for the other workers (default %(default).0f)")
    add(
        "--grow-after",
        type=duration,
        default=60.0,
        metavar="SECONDS",
        help="elastic: how long ranks run before a worker that came is taken in (default %(default).0f)",
    )
    add("--interface", metavar="NAME", help="network interface (default: the one that leads to worker 0)")
    add("--logs", type=Path, metavar="DIR", help="one file per rank (default: logs/ in run.dir, else in --folder)")
    add(
        "--folder",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder that all hosts share, where no config names it",
    )
    add("command", nargs="*", metavar="-- COMMAND", help="what each rank runs")
    return parser
