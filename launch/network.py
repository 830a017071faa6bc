"""The interfaces of this host, and the addresses under which workers and ranks reach each other.

name = interface_of("10.0.0.7")
"""

import ipaddress
import socket
from collections.abc import Collection

import psutil

from launch.channel import Channel
from launch.cluster import WorkerEnv, slurm_address
from launch.errors import LaunchError

_ALL_INTERFACES = "0.0.0.0"


def interfaces() -> dict[str, str]:
    """Name -> IPv4 address of every interface that is up."""
    running = {name for name, state in psutil.net_if_stats().items() if state.isup}
    return {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in reversed(entries)
        if entry.family == socket.AF_INET and name in running
    }


def interface_of(address: str) -> str:
    """The interface that has an address of this host. Raises LaunchError."""
    if is_loopback(address):
        address = "127.0.0.1"
    for name, own in interfaces().items():
        if own == address:
            return name
    raise LaunchError(f"no interface of this host has the address {address}; name one with --interface")


def address_of(interface: str) -> str:
    """The IPv4 address of an interface. Raises LaunchError naming those that exist."""
    found = interfaces()
    if interface not in found:
        having = ", ".join(sorted(found))
        raise LaunchError(
            f"--interface {interface}: this host has no such interface with an IPv4 address, but {having}"
        )
    return found[interface]


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def coordinator_address(worker_env: WorkerEnv) -> str:
    """A name or address of worker 0 that every host can use: loopback where there is only one. Raises LaunchError."""
    if worker_env.num_nodes == 1:
        return "127.0.0.1"
    if worker_env.scheduler != "SLURM" or _resolve(worker_env.coordinator):
        return worker_env.coordinator
    return slurm_address(worker_env.coordinator)


def listening_address(worker_env: WorkerEnv, *, interface: str | None) -> str:
    """The address of this host that worker 0 listens on: only that which the others use. Raises LaunchError.

    Where the host knows its own name as a loopback address (Debian does so) and others may be elsewhere, that is every
    interface; --interface narrows it.
    """
    if worker_env.num_nodes == 1:
        return "127.0.0.1"
    if interface is not None:
        return address_of(interface)
    coordinator = coordinator_address(worker_env)
    address = _resolve(coordinator)
    if address is None:
        raise LaunchError(f"worker 0 is to be found at {coordinator}, which this host cannot resolve")
    if not is_loopback(address):
        return address
    return (
        "127.0.0.1" if coordinator in ("127.0.0.1", "localhost") and worker_env.num_nodes is None else _ALL_INTERFACES
    )


def own_address(listening: str) -> str:
    """How worker 0 reaches itself."""
    return "127.0.0.1" if listening == _ALL_INTERFACES else listening


def rank_addresses(channels: Collection[Channel]) -> tuple[str, set[str]]:
    """(address of this host that all ranks reach, addresses that they come from); loopback where all are here.

    channels: to the workers of the ranks.
    """
    remote = {channel.remote_address for channel in channels}
    outside = [channel.local_address for channel in channels if not is_loopback(channel.remote_address)]
    address = outside[0] if outside else "127.0.0.1"
    return address, remote | {address}


def _resolve(name: str) -> str | None:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None
