"""Which worker of how many this is, as its scheduler's variables say, and the secret that all workers share.

worker_env = read_worker_env(os.environ, hostname="a")
"""

import re
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from launch.errors import LaunchError

_KUBERNETES_PORT = 29400
# Below the ports that Linux gives to clients, so that no connection can be there first.
_SLURM_PORTS = range(15000, 32000)
_NUM_TASKS = "SLURM_STEP_NUM_TASKS"
_SHORTEST_SECRET = 16  # characters


@dataclass(frozen=True)
class WorkerEnv:
    """Worker `index` of `count`, on the node called `node`; worker 0 listens on `port` of `coordinator`.

    num_nodes is None where the scheduler does not say. port 0: any, for a worker that is alone.
    """

    index: int
    count: int
    node: str
    coordinator: str
    port: int
    scheduler: str
    num_nodes: int | None = None


def read_worker_env(environment: Mapping[str, str], *, hostname: str) -> WorkerEnv:
    """From SLURM's step, a Kubernetes Indexed Job, or RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; else alone.
    SLIMHEADS_PORT goes before the port that follows from these.

    Raises LaunchError where variables are missing or contradict each other.
    """
    if "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment:
        worker_env = _slurm(environment, hostname)
    elif "JOB_COMPLETION_INDEX" in environment:
        worker_env = _kubernetes(environment, hostname)
    elif "RANK" in environment or "WORLD_SIZE" in environment:
        worker_env = _plain(environment, hostname)
    else:
        worker_env = WorkerEnv(0, 1, hostname, "127.0.0.1", 0, "no scheduler", 1)
    return (
        replace(worker_env, port=_port(environment, "SLIMHEADS_PORT"))
        if "SLIMHEADS_PORT" in environment
        else worker_env
    )


def _slurm(environment: Mapping[str, str], hostname: str) -> WorkerEnv:
    index, count = _number(environment, "SLURM_PROCID"), _number(environment, _NUM_TASKS)
    tasks = environment.get("SLURM_NTASKS", str(count))
    if tasks != str(count):
        raise LaunchError(
            f"{_NUM_TASKS}={count} and SLURM_NTASKS={tasks} contradict each other; unset SLURM_NTASKS, or start the "
            f"worker with `srun` alone"
        )
    _check_index("SLURM_PROCID", index, _NUM_TASKS, count)
    nodes, num_nodes = environment.get("SLURM_STEP_NODELIST", ""), _number(environment, "SLURM_STEP_NUM_NODES")
    if not nodes:
        raise LaunchError("SLURM_STEP_NODELIST is not set: start the worker with `srun`")
    if num_nodes > count:
        raise LaunchError(
            f"SLURM_STEP_NUM_NODES={num_nodes} nodes but {_NUM_TASKS}={count} tasks contradict each other"
        )
    job, step = _number(environment, "SLURM_JOB_ID"), _number(environment, "SLURM_STEP_ID")
    port = _SLURM_PORTS[(job * 31 + step) % len(_SLURM_PORTS)]
    node = environment.get("SLURMD_NODENAME", hostname)
    return WorkerEnv(index, count, node, first_host(nodes), port, "SLURM", num_nodes)


def _kubernetes(environment: Mapping[str, str], hostname: str) -> WorkerEnv:
    index, count = _number(environment, "JOB_COMPLETION_INDEX"), _number(environment, "SLIMHEADS_WORKERS")
    _check_index("JOB_COMPLETION_INDEX", index, "SLIMHEADS_WORKERS", count)
    job, service = environment.get("SLIMHEADS_JOB", ""), environment.get("SLIMHEADS_SERVICE", "")
    if not job or not service:
        raise LaunchError(
            "JOB_COMPLETION_INDEX is set, so SLIMHEADS_JOB and SLIMHEADS_SERVICE must name job and service"
        )
    return WorkerEnv(index, count, f"{job}-{index}", f"{job}-0.{service}", _KUBERNETES_PORT, "Kubernetes", count)


def _plain(environment: Mapping[str, str], hostname: str) -> WorkerEnv:
    index, count = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    _check_index("RANK", index, "WORLD_SIZE", count)
    if count == 1:
        return WorkerEnv(0, 1, hostname, "127.0.0.1", 0, "variables", 1)
    coordinator = environment.get("MASTER_ADDR", "")
    if not coordinator:
        raise LaunchError(f"WORLD_SIZE={count}, so MASTER_ADDR must name the host of the worker with RANK=0")
    return WorkerEnv(index, count, hostname, coordinator, _port(environment, "MASTER_PORT"), "variables")


def _port(environment: Mapping[str, str], name: str) -> int:
    port = _number(environment, name)
    if not 0 < port < 65536:
        raise LaunchError(f"{name}={port} is not a port (1 to 65535)")
    return port


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None:
        raise LaunchError(f"{name} is not set, but other variables of the same launcher are")
    if not text.isdigit():
        raise LaunchError(f"{name}={text!r} is not a number")
    return int(text)


def _check_index(name: str, index: int, total_name: str, total: int) -> None:
    if index >= total:
        raise LaunchError(f"{name}={index} and {total_name}={total} contradict each other: indices run from 0")


def first_host(nodes: str) -> str:
    """The first host of SLURM's list, `gpu[003-004,7],x` -> `gpu003`. Raises LaunchError."""
    found = re.match(r"([^,\[\]]+)(?:\[(\w+)[^\]]*\]([^,\[\]]*))?", nodes)
    if found is None:
        raise LaunchError(f"SLURM_STEP_NODELIST={nodes!r} is not a list of hosts")
    return found[1] + (found[2] or "") + (found[3] or "")


def slurm_address(node: str) -> str:
    """The address under which SLURM itself reaches a node whose name no name server knows. Raises LaunchError."""
    try:
        command = ["scontrol", "show", "node", node, "--oneliner"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        shown = ""
    found = re.search(r"\bNodeAddr=(\S+)", shown)
    if found is None:
        raise LaunchError(f"node {node}: neither a name server nor `scontrol show node` knows its address")
    return found[1]


def read_secret(environment: Mapping[str, str], *, alone: bool) -> bytes:
    """SLIMHEADS_SECRET, or the content of the file SLIMHEADS_SECRET_FILE; a new one for a worker that is alone.

    Raises LaunchError.
    """
    path = environment.get("SLIMHEADS_SECRET_FILE")
    text = environment.get("SLIMHEADS_SECRET", "")
    if path:
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise LaunchError(f"SLIMHEADS_SECRET_FILE={path}: {error.strerror}") from error
    if not text and alone:
        return secrets.token_bytes(32)
    if len(text) < _SHORTEST_SECRET:
        raise LaunchError(
            f"several workers need a secret of {_SHORTEST_SECRET} characters or more, the same for all: "
            f"export SLIMHEADS_SECRET=$(openssl rand -hex 16) before they start, or name a file in "
            f"SLIMHEADS_SECRET_FILE"
        )
    return text.encode()
