"""Where worker 0 listens, where the others find it, and where the ranks then meet.

door = Door(listening_address(place, interface=None), place.port, secret); address = head_address(place)
"""

import socket
from collections.abc import Collection

from launch.channel import Channel
from launch.errors import LaunchError
from launch.network import address_of, is_loopback
from launch.place import Place, slurm_address

_EVERYWHERE = "0.0.0.0"


def head_address(place: Place) -> str:
    """A name or address of worker 0 that every host can use: loopback where there is only one. Raises LaunchError."""
    if place.num_nodes == 1:
        return "127.0.0.1"
    if place.scheduler != "SLURM" or _resolve(place.head):
        return place.head
    return slurm_address(place.head)


def listening_address(place: Place, *, interface: str | None) -> str:
    """The address of this host that worker 0 listens on: only that which the others use. Raises LaunchError.

    Where the host knows its own name as a loopback address (Debian does so) and others may be elsewhere, that is every
    interface; --interface narrows it.
    """
    if place.num_nodes == 1:
        return "127.0.0.1"
    if interface is not None:
        return address_of(interface)
    head = head_address(place)
    address = _resolve(head)
    if address is None:
        raise LaunchError(f"worker 0 is to be found at {head}, which this host cannot resolve")
    if not is_loopback(address):
        return address
    return "127.0.0.1" if head in ("127.0.0.1", "localhost") and place.num_nodes is None else _EVERYWHERE


def own_address(listening: str) -> str:
    """How worker 0 reaches itself."""
    return "127.0.0.1" if listening == _EVERYWHERE else listening


def where_ranks_meet(channels: Collection[Channel]) -> tuple[str, set[str]]:
    """(address of this host that all ranks reach, addresses that they come from); loopback where all are here."""
    remote = {channel.remote_address for channel in channels}
    outside = [channel.local_address for channel in channels if not is_loopback(channel.remote_address)]
    address = outside[0] if outside else "127.0.0.1"
    return address, remote | {address}


def _resolve(name: str) -> str | None:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None
