"""A real SLURM cluster of two nodes on this host: munged, slurmctld and two slurmd on free ports, in one folder.

with SlurmCluster(folder) as cluster: job = cluster.submit("train.sbatch"); cluster.wait_for(job, "COMPLETED")
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.conftest import REPOSITORY, rank_environment

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
NODES = ("n1", "n2")


def missing_programs() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class SlurmCluster:
    """Ends all that it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**rank_environment(), "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["PATH"] += ":/usr/sbin:/sbin"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "SlurmCluster":
        try:
            self._configure()
            self._start_munge()
            self._start("slurmctld", ["slurmctld", "-D", "-i", "-f", str(self.folder / "slurm.conf")])
            for node in NODES:
                self.start_node(node)
            self.wait_for_nodes("idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--state=RUNNING")
        for node in NODES:
            self.kill_node(node)
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def start_node(self, node: str) -> None:
        cores = sorted(os.sched_getaffinity(0))
        core = str(cores[NODES.index(node) % len(cores)])  # its own, as on a host of its own
        self._start(node, ["taskset", "-c", core, "slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf")])

    def kill_node(self, node: str) -> None:
        """slurmd, its job steps and all their processes, at once, as when the power fails."""
        daemon = self._daemons.pop(node, None)
        victims = [psutil.Process(daemon.pid)] if daemon is not None else []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                ours = variables.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if ours and variables.get("SLURMD_NODENAME") == node:
                    parent = process.parent()
                    victims += [process] + ([parent] if parent and "slurmstepd" in parent.name() else [])
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGSTOP)
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        if daemon is not None:
            daemon.wait()

    def run(self, *command: str, timeout: float = 60, env: Mapping[str, str] | None = None) -> str:
        """What the command prints."""
        result = subprocess.run(
            command,
            env={**self.environment, **(env or {})},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return result.stdout + result.stderr

    def submit(self, *arguments: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None) -> str:
        """The number of the job."""
        result = subprocess.run(
            ["sbatch", "--parsable", *options, *arguments],
            env={**self.environment, **(env or {})},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def state_of(self, job: str) -> dict[str, str]:
        return dict(re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "show", "job", job, "--oneliner")))

    def wait_for(self, job: str, *states: str, seconds: float = 90) -> dict[str, str]:
        """The job's fields once it is in one of the states."""
        deadline = time.monotonic() + seconds
        while (fields := self.state_of(job)).get("JobState") not in states:
            assert time.monotonic() < deadline, f"job {job} is not {states} but {fields}\n{self.logs()}"
            time.sleep(0.2)
        return fields

    def wait_for_nodes(self, state: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        command = ("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T")
        while (shown := self.run(*command).split()) != [state] * len(NODES):
            assert time.monotonic() < deadline, f"{shown}\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def _start(self, name: str, command: Sequence[str]) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self._daemons[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        log.close()

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        self._start("munged", ["munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files])
        deadline = time.monotonic() + 20
        while not (self.folder / "munge.socket").exists():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def _configure(self) -> None:
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o755)
        host = socket.gethostname()
        ports = _free_ports(len(NODES) + 1)
        # The address that Debian gives to a host's own name; nobody listens there who listens on 127.0.0.1.
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.1.1 Port={port} CPUs=1 State=UNKNOWN"
            for node, port in zip(NODES, ports, strict=False)
        )
        (self.folder / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[-1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits as long as its credential lives; 5 s is the least.
AuthInfo=socket={self.folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/linear
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=8
KillWait=5
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool-%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd-%n.pid
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=main Nodes={",".join(NODES)} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes={",".join(NODES)} MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""
        )


def _free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
