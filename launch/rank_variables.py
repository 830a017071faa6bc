"""The environment of a rank: what Horovod wants to know, and nothing of the launch that a rank has no need of.

variables = rank_variables(os.environ, slot, rendezvous=("10.0.0.1", 40123, "secret"), interface="eth0")
"""

from collections.abc import Mapping
from typing import Any

_SECRETS = ("SLIMHEADS_SECRET", "SLIMHEADS_SECRET_FILE")
_LEAST_GLOO_SECONDS = 60  # a slow folder may delay one rank's start
_PAIRS_PER_SECOND = 200  # of ranks; a fifth of what the rendezvous manages, see docs/SCALING.md


def rank_variables(
    inherited: Mapping[str, str], slot: Mapping[str, Any], *, rendezvous: tuple[str, int, str], interface: str
) -> dict[str, str]:
    """`slot` holds the fields of a Slot. A Gloo timeout that the user set stays."""
    address, port, secret = rendezvous
    seconds = _LEAST_GLOO_SECONDS + slot["size"] ** 2 // _PAIRS_PER_SECOND
    return {
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(seconds),
        **{name: value for name, value in inherited.items() if name not in _SECRETS},
        "HOROVOD_RANK": str(slot["rank"]),
        "HOROVOD_SIZE": str(slot["size"]),
        "HOROVOD_LOCAL_RANK": str(slot["local_rank"]),
        "HOROVOD_LOCAL_SIZE": str(slot["local_size"]),
        "HOROVOD_CROSS_RANK": str(slot["cross_rank"]),
        "HOROVOD_CROSS_SIZE": str(slot["cross_size"]),
        "HOROVOD_HOSTNAME": slot["hostname"],
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_RENDEZVOUS_SECRET": secret,
        "HOROVOD_GLOO_IFACE": interface,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "NCCL_SOCKET_IFNAME": interface,
        "PYTHONUNBUFFERED": "1",
        # The stacks of a rank that is ended because it is stuck.
        "PYTHONFAULTHANDLER": "1",
    }
