"""Whether all ranks run the same: code, versions of what computes, config. Asked once, before anything is written.

check_consistency(comm, config=describe(config))
"""

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.machine import package_versions
from train.distributed.comm import Comm
from train.errors import CommError

_ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("data", "models", "prune", "train", "launch")
_PACKAGES = ("torch", "torchvision", "timm", "horovod", "numpy", "simplejpeg", "opencv-python-headless")
_SHOWN = 4


def check_consistency(comm: Comm, *, config: Mapping[str, Any]) -> None:
    """Raises CommError on every rank, naming the hosts that differ from rank 0's and in what."""
    mine = {"host": socket.gethostname(), **fingerprints(config)}
    ranks = comm.allgather_object(mine, name="agreement")
    if differences := compare(ranks):
        raise CommError(differences)


def fingerprints(config: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-able: what is compared, by name."""
    versions = package_versions(_PACKAGES, missing="missing")
    flat = {key: json.dumps(value, sort_keys=True) for key, value in config.items()}
    return {"code": _hash_of_code(), "versions": versions, "config": flat}


def compare(ranks: Sequence[Mapping[str, Any]]) -> str:
    """What differs from rank 0, in words; "" where nothing does."""
    first, told = ranks[0], []
    for rank, other in enumerate(ranks):
        who = f"rank {rank} on {other['host']}"
        if other["code"] != first["code"]:
            told.append(f"{who} runs other code than rank 0 on {first['host']}: update both to the same")
        for kind in ("versions", "config"):
            for name in sorted(first[kind].keys() | other[kind].keys()):
                ours, theirs = first[kind].get(name), other[kind].get(name)
                if ours != theirs:
                    told.append(f"{who} has {name} {theirs}, rank 0 on {first['host']} has {ours}")
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more


def _hash_of_code() -> str:
    total = hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            total.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]
