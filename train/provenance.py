"""Where a model comes from: config, versions, data.

provenance(config, index, step=1200, ranks=8)
"""

import importlib.metadata
import platform
from typing import Any

from data.index import Index
from train.config import Config, describe

_PACKAGES = ("torch", "torchvision", "timm", "horovod", "webdataset", "numpy")


def provenance(config: Config, index: Index, *, step: int, ranks: int) -> dict[str, Any]:
    """JSON-able; the artifact keeps it."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    data = {"train": config.data.train, "samples": index.num_samples, "shards": len(index.shards)}
    return {"config": describe(config), "versions": versions, "data": data, "step": step, "ranks": ranks}
