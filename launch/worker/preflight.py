"""Whether hosts are fit for a run: what each finds, and what that means for all of them together.

metadata = collect(Path("runs"), index=0, interface="eth0")
results = check_hosts([Host("a", 2, metadata)], promised=1, read_probe=lambda number: metadata["token"])
"""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.free_memory import free_memory
from launch.horovod.compatibility import HorovodError, check_horovod_matches_torch
from launch.horovod.patches import check_horovod_is_patched
from launch.machine import package_versions
from launch.network import interfaces

_COMPARED = ("python", "torch", "horovod", "numpy", "timm")
_LEAST_DISK_GB = 5.0
# What NCCL's makers advise where ranks of one host talk through shared memory; nothing else of a run uses it.
_LEAST_SHARED_MEMORY_GB = 1.0
_LARGEST_LOADER_SHARE = 0.5  # of the free memory
_LARGEST_CLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class Host:
    """One worker: its node, the number of its ranks, what it collected."""

    node: str
    num_ranks: int
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class CheckResult:
    """Prints as one line."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok    ' if self.ok else 'FAILED'} {self.text}"


def collect(folder: Path, *, index: int, interface: str | None) -> dict[str, Any]:
    """What `check_hosts` needs to know of this host, JSON-able. Leaves a `probe_file` in `folder` for worker 0."""
    import torch  # takes seconds, and a worker that only launches has no need of it

    versions = package_versions(("torch", "horovod", "numpy", "timm"), missing="missing")
    versions["torch"] = torch.__version__  # with what it was built for
    try:
        check_horovod_matches_torch(torch_version=torch.__version__)
        check_horovod_is_patched()
        horovod = ""
    except HorovodError as error:
        horovod = str(error)
    token, write_error, free = secrets.token_hex(8), "", 0.0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe_file(folder, index).write_text(token)
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        write_error = f"{error.strerror}"
    memory = os.statvfs("/dev/shm")
    return {
        "versions": versions,
        "horovod": horovod,
        "interfaces": interfaces(),
        "interface": interface,
        "folder": str(folder),
        "token": token,
        "write_error": write_error,
        "disk_gb": free,
        "memory_gb": free_memory() / 1e9,
        "shared_memory_gb": memory.f_frsize * memory.f_bavail / 1e9,
        "gpus": torch.cuda.device_count(),
    }


def probe_file(folder: Path, index: int) -> Path:
    """The file by which a worker shows that it can write."""
    return folder / f".preflight-{index}"


def check_hosts(
    hosts: Sequence[Host], *, promised: int, read_probe: Callable[[int], str], loader_gb: float | None = None
) -> list[CheckResult]:
    """One result for each thing that a run needs.

    promised: workers that were to come. read_probe(number): what worker 0 reads in the probe file of hosts[number], ""
    where it cannot. loader_gb: what the batches of one rank's loader processes take; None where no config says.
    """
    return [
        _ranks(hosts, promised),
        _versions(hosts),
        _horovod(hosts),
        _network(hosts),
        _folder(hosts, read_probe),
        _enough(hosts, "disk_gb", "free disk", _LEAST_DISK_GB, "free some, or take another run.dir"),
        _memory(hosts, loader_gb),
        _shared_memory(hosts),
        _gpus(hosts),
        _clock(hosts),
    ]


def _ranks(hosts: Sequence[Host], promised: int) -> CheckResult:
    ranks = sum(host.num_ranks for host in hosts)
    nodes = len({host.node for host in hosts})
    text = f"ranks: {ranks} by {len(hosts)} of {promised} promised workers on {nodes} nodes"
    if len(hosts) == promised:
        return CheckResult(True, text)
    return CheckResult(False, f"{text}; see the logs of the workers that did not come")


def _versions(hosts: Sequence[Host]) -> CheckResult:
    first = hosts[0].metadata["versions"]
    shown = ", ".join(f"{name} {first[name]}" for name in _COMPARED)
    other = [
        f"{host.node} has {name} {host.metadata['versions'][name]}"
        for host in hosts
        for name in _COMPARED
        if host.metadata["versions"][name] != first[name]
    ]
    if other:
        return CheckResult(
            False, f"versions: {hosts[0].node} has {shown}, but {'; '.join(other)}; install one set everywhere"
        )
    return CheckResult(True, f"versions: {shown}")


def _horovod(hosts: Sequence[Host]) -> CheckResult:
    wrong = [f"{host.node}: {host.metadata['horovod']}" for host in hosts if host.metadata["horovod"]]
    return CheckResult(not wrong, f"Horovod build: {'; '.join(wrong) or 'made for the torch beside it'}")


def _network(hosts: Sequence[Host]) -> CheckResult:
    shown, missing = [], []
    for host in hosts:
        found, wanted = host.metadata["interfaces"], host.metadata["interface"]
        names = sorted(found) if wanted is None else [wanted]
        shown.append(" ".join([host.node, *(f"{name}={found[name]}" for name in names if name in found)]))
        if wanted is not None and wanted not in found:
            missing.append(f"{host.node} has no {wanted} with an IPv4 address, but {', '.join(sorted(found))}")
    if missing:
        return CheckResult(False, f"network: --interface: {'; '.join(missing)}; name one that all hosts have")
    return CheckResult(True, f"network: {'; '.join(shown)}")


def _folder(hosts: Sequence[Host], read_probe: Callable[[int], str]) -> CheckResult:
    wrong = []
    for index, host in enumerate(hosts):
        if host.metadata["write_error"]:
            wrong.append(f"{host.node} cannot write there ({host.metadata['write_error']})")
        elif read_probe(index) != host.metadata["token"]:
            wrong.append(f"{hosts[0].node} does not see what {host.node} wrote: not the same folder")
    text = f"folder {hosts[0].metadata['folder']}"
    if wrong:
        return CheckResult(False, f"{text}: {'; '.join(wrong)}; put run.dir where all hosts can write")
    return CheckResult(True, f"{text}: all can write there and see each other's files")


def _enough(hosts: Sequence[Host], name: str, what: str, least: float, fix: str) -> CheckResult:
    smallest = min(hosts, key=lambda host: float(host.metadata[name]))
    text = f"{what}: {smallest.metadata[name]:.1f} GB on {smallest.node}, at least {least:g} wanted"
    return CheckResult(True, text) if smallest.metadata[name] >= least else CheckResult(False, f"{text}; {fix}")


def _memory(hosts: Sequence[Host], loader_gb: float | None) -> CheckResult:
    """Of the node whose loaders take the largest share of what is free."""
    ranks = _ranks_of_nodes(hosts)
    free = {host.node: float(host.metadata["memory_gb"]) for host in hosts}
    tightest = max(free, key=lambda node: ranks[node] / max(free[node], 1e-9))
    text = f"memory: {free[tightest]:.1f} GB free on {tightest}"
    if loader_gb is None:
        return CheckResult(True, f"{text}; name the training command after -- to see what its loaders need")
    need = ranks[tightest] * loader_gb
    text += f", the batches of its {ranks[tightest]} ranks' loaders take {need:.2f} GB"
    if need <= _LARGEST_LOADER_SHARE * free[tightest]:
        return CheckResult(True, text)
    return CheckResult(False, f"{text}; take a smaller batch_size, fewer ranks on a host, or data.workers=0")


def _shared_memory(hosts: Sequence[Host]) -> CheckResult:
    ranks = _ranks_of_nodes(hosts)
    users = [host for host in hosts if host.metadata["gpus"] and ranks[host.node] > 1]
    if not users:
        return CheckResult(True, "/dev/shm: not used (only GPUs of one host talk through it)")
    fix = "mount a larger one (docker run --shm-size 1g; an emptyDir of medium Memory)"
    return _enough(users, "shared_memory_gb", "/dev/shm", _LEAST_SHARED_MEMORY_GB, fix)


def _ranks_of_nodes(hosts: Sequence[Host]) -> dict[str, int]:
    nodes = dict.fromkeys((host.node for host in hosts), 0)
    for host in hosts:
        nodes[host.node] += host.num_ranks
    return nodes


def _gpus(hosts: Sequence[Host]) -> CheckResult:
    counts = {host.node: int(host.metadata["gpus"]) for host in hosts}
    if not any(counts.values()):
        return CheckResult(True, "GPUs: none, the ranks use the CPU")
    shown = ", ".join(f"{node} {count}" for node, count in counts.items())
    for node, ranks in _ranks_of_nodes(hosts).items():
        if counts[node] < ranks:
            return CheckResult(False, f"GPUs: {shown}; {node} has {ranks} ranks: start one rank a GPU")
    return CheckResult(True, f"GPUs: {shown}")


def _clock(hosts: Sequence[Host]) -> CheckResult:
    furthest = max(hosts, key=lambda host: abs(float(host.metadata["clock"])))
    text = f"clock: {furthest.node} differs by {furthest.metadata['clock']:+.1f} s from {hosts[0].node}"
    if abs(furthest.metadata["clock"]) <= _LARGEST_CLOCK_SECONDS:
        return CheckResult(True, text)
    return CheckResult(False, f"{text}; start a time service (chrony) there")
