"""Weights as 8-bit numbers on disk: a quarter of the bytes, the same time to compute.

write_uint8(model, "export/model.uint8.safetensors", model_sha256=meta.sha256)

Per tensor W' = round((W - min) / (max - min) * 255) as uint8, with min and max beside it. A constant tensor, for which
the formula divides by zero, is all 0 with min = max = the constant. Integer tensors are stored as they are, and so are
vectors (norms, biases): they are few bytes, and a running variance of few large values would lose all the others.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.errors import ModelError
from models.student import Student

FORMAT = "slimheads-uint8/1"
SUFFIX = ".uint8.safetensors"
_RANGES = "__ranges__"  # float32 [num_tensors, 2]: min and max of the tensors in the order of the header's "stored"


def is_stored_in_8_bits(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 1


def encode(tensor: Tensor, *, name: str) -> tuple[Tensor, float, float]:
    """uint8 of the same shape, min and max. ModelError for a tensor with NaN or infinity."""
    values = tensor.detach().double()
    if not values.isfinite().all():
        raise ModelError(f"{name}: holds numbers that are not finite and cannot be stored in 8 bits")
    low, high = values.min().item(), values.max().item()
    if low == high:
        return torch.zeros(tensor.shape, dtype=torch.uint8), low, high
    return ((values - low) / (high - low) * 255).round().to(torch.uint8), low, high


def decode(stored: Tensor, low: float, high: float) -> Tensor:
    """float32 of the same shape; off by at most (high - low) / 510."""
    share = stored.double() / 255
    return (low * (1 - share) + high * share).float()  # the ends come back exactly


def write_uint8(model: Student, path: str | Path, *, model_sha256: str) -> int:
    """Write the weights; returns the file's bytes. model_sha256: of the weights that they were made from."""
    tensors: dict[str, Tensor] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for name, tensor in model.state_dict().items():
        if is_stored_in_8_bits(tensor):
            tensors[name], low, high = encode(tensor, name=name)
            ranges[name] = (low, high)
        else:
            tensors[name] = tensor.detach().cpu().contiguous()
    tensors[_RANGES] = torch.tensor(list(ranges.values()), dtype=torch.float32)
    header = {"format": FORMAT, "model_sha256": model_sha256, "stored": json.dumps(list(ranges))}
    content = safetensors.torch.save(tensors, metadata=header)
    Path(path).write_bytes(content)
    return len(content)


def read_uint8(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """The state as float tensors, and the hash of the weights that they were made from. ModelError for other files."""
    try:
        with safe_open(path, framework="pt") as file:
            header: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors, it is missing or cut ({error})") from error
    if header.get("format") != FORMAT:
        raise ModelError(
            f"{path}: its format is {header.get('format')!r}, not {FORMAT!r}; of a model in full, name the folder"
        )
    ranges = tensors.pop(_RANGES)
    for name, (low, high) in zip(json.loads(header["stored"]), ranges.tolist(), strict=True):
        tensors[name] = decode(tensors[name], low, high)
    return tensors, header["model_sha256"]
