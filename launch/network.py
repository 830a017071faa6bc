"""The interfaces of this host, and the one that leads to an address.

name = interface_of("10.0.0.7")
"""

import ipaddress
import socket

import psutil

from launch.errors import LaunchError


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
