"""Checkpoints: one safetensors file each, written atomically, verified on load, the older one kept as a fallback.

store = CheckpointStore("runs/a/checkpoints", keep=2)
store.save(tensors, state, step=500); tensors, state = store.load(500)
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from data.files import sweep, write_atomically
from train.errors import CheckpointError

_NAME = re.compile(r"^step-(\d{10})\.safetensors$")
_PARTIAL = re.compile(r"^step-\d{10}\.part$")  # of versions before data.files
FORMAT = "slimheads-checkpoint/1"


class CheckpointStore:
    """The checkpoints of one run folder. `step` counts finished updates."""

    def __init__(self, directory: str | Path, *, keep: int = 2) -> None:
        self.directory, self.keep = Path(directory), keep

    def steps(self) -> list[int]:
        """Steps that have a file, newest first (not verified)."""
        if not self.directory.is_dir():
            return []
        return sorted(
            (int(found[1]) for path in self.directory.iterdir() if (found := _NAME.match(path.name))), reverse=True
        )

    def path(self, step: int) -> Path:
        return self.directory / f"step-{step:010d}.safetensors"

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, step: int) -> Path:
        """Write and then drop the oldest beyond `keep`. OSError (a full disk) leaves the older files as they were."""
        self.directory.mkdir(parents=True, exist_ok=True)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {
            "format": FORMAT,
            "state": json.dumps(state),
            "crc32c": json.dumps({name: _crc32c(tensor) for name, tensor in plain.items()}),
        }
        metadata["described"] = _description(plain, metadata)
        path = self.path(step)
        write_atomically(path, save(plain, metadata=metadata))
        for old in self.steps()[self.keep :]:
            self.path(old).unlink(missing_ok=True)
        return path

    def load(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors on the CPU, state). Raises CheckpointError when the file is cut, changed or of another kind."""
        path = self.path(step)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: not a whole checkpoint ({error})") from error
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path}: its format is {metadata.get('format')!r}, this version reads {FORMAT!r}")
        try:
            checksums, state = json.loads(metadata["crc32c"]), json.loads(metadata["state"])
            is_as_saved = metadata.get("described") in (None, _description(tensors, metadata))
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: its header is not what was saved (damaged file: {error!r})") from error
        if not is_as_saved:
            raise CheckpointError(f"{path}: its header is not what was saved (damaged file)")
        for name, expected in checksums.items():
            if name not in tensors or _crc32c(tensors[name]) != expected:
                raise CheckpointError(f"{path}: tensor {name!r} is not what was saved (damaged file)")
        return tensors, state

    def newest_good(self) -> tuple[int | None, list[str]]:
        """(step of the newest checkpoint that verifies, what is wrong with newer ones); (None, ...) without any."""
        errors = []
        for step in self.steps():
            try:
                self.load(step)
            except CheckpointError as error:
                errors.append(str(error))
            else:
                return step, errors
        return None, errors

    def remove_partial(self) -> None:
        """Temporary files of a save that was killed; for the one that alone may save here."""
        sweep(self.directory, alone=True)
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                if _PARTIAL.match(path.name):
                    path.unlink()


def flatten_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's tensors by `optimizer.<parameter's name>.<state>`; its settings come from the config.

    By name, because a parameter's number changes with the groups that the config makes.
    """
    state = optimizer.state
    return {
        f"optimizer.{parameter_name}.{name}": torch.as_tensor(value)
        for parameter_name, parameter in model.named_parameters()
        for name, value in state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of flatten_optimizer. A parameter that was frozen when the checkpoint was written starts afresh."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {parameter: number for number, parameter in enumerate(parameters)}
    plain = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {number: dict(entry) for number, entry in plain["state"].items()}
    for parameter_name, parameter in model.named_parameters():
        prefix = f"optimizer.{parameter_name}."
        saved = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        if saved and parameter in numbers:
            state[numbers[parameter]] = {name: _like(parameter, tensor) for name, tensor in saved.items()}
    optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """In the parameter's own strides: the fused kernels walk both in memory order and would otherwise pair a
    channels_last weight with the momentum of another one. Numbers, as the count of steps, stay as they are."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and bits, to compare ranks or runs."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(_bytes_of(tensors[name]))
    return total.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _crc32c(tensor: Tensor) -> int:
    return int(google_crc32c.value(_bytes_of(tensor)))


def _description(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A checksum of all but the tensors' bytes: the state, and each tensor's name, type and shape."""
    shapes = {name: (str(tensors[name].dtype), list(tensors[name].shape)) for name in sorted(tensors)}
    text = json.dumps([metadata["state"], metadata["crc32c"], shapes])
    return f"{google_crc32c.value(text.encode()):08x}"
