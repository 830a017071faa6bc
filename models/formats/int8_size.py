"""The bytes of a network's int8 ONNX file, predicted from its shapes: exporting and calibrating take minutes.

size = predicted_int8_bytes(student, meta.tasks, image_size=224)

What the file holds, byte by byte, as `models.formats.quantization` makes it:

- of each weight one byte; of each output channel of a layer 17: the scale (4) and zero point (1) of its weights, its
  bias (4) with scale (4) and zero point (4). Batch norms are part of the layer before them.
- of each layer its nodes (operator, QuantizeLinear and DequantizeLinear of its output, DequantizeLinear of weights and
  of biases): the layer's name 20 times, and what does not depend on it. The same of other operations, such as the sum
  of a shortcut.
- the metadata, in which the names of the classes are what is long.

Only the sizes of nodes are no exact count; they were fitted to exported files (docs/PRUNING.md has the errors).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.cost import without_weights
from models.formats.fusing import fused
from models.student import Student

_PER_CHANNEL = 17
_NAMED_PER_LAYER = 20
_PER_CONVOLUTION, _PER_LINEAR, _PER_OPERATION = 1410, 1040, 418  # of nodes; least squares over 13 exported files
_PER_FILE = 1270  # with 900 more than the fit has, so that none of the 13 is larger than predicted
_FLOAT_LAYER = 300  # of a layer that is left in float: one node, two names
# Operations without weights that have a rounded output of their own.
_OPERATIONS = (
    *("add", "mul", "sigmoid", "cat", "mean", "max_pool2d_with_indices", "avg_pool2d", "constant_pad_nd", "slice"),
    "split_with_sizes",
)


def predicted_int8_bytes(
    model: Student, class_names: Mapping[str, Sequence[str]], *, image_size: int, keep_float: Collection[str] = ()
) -> int:
    """Of `model.int8.onnx` as `python -m models.export --int8` writes it. class_names: task -> classes, in their order.
    image_size: one that the network takes; the file does not grow with it. keep_float: layers that stay as they are.
    The model may have shapes and no numbers (torch's meta device)."""
    network = without_weights(fused(model))
    total = _PER_FILE + _metadata_bytes(class_names, keep_float) + _PER_OPERATION * _num_operations(network, image_size)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weights, channels = module.weight.numel(), module.weight.shape[0]
            if name in keep_float:
                total += 4 * (weights + channels) + _FLOAT_LAYER
            else:
                per_layer = _PER_LINEAR if isinstance(module, nn.Linear) else _PER_CONVOLUTION
                total += weights + _PER_CHANNEL * channels + _NAMED_PER_LAYER * len(name) + per_layer
    return total


def _metadata_bytes(class_names: Mapping[str, Sequence[str]], keep_float: Collection[str]) -> int:
    tasks = json.dumps({task: list(names) for task, names in class_names.items()})
    return len(tasks) + len(json.dumps(sorted(keep_float)))


def _num_operations(network: nn.Module, size: int) -> int:
    counted = _Operations()
    with torch.no_grad(), counted:
        network(torch.zeros(1, 3, size, size, device="meta"))
    return counted.number


class _Operations(TorchDispatchMode):
    """Counts those of _OPERATIONS on feature maps and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.removesuffix("_")  # in place or not
        if name in _OPERATIONS:
            self.number += len(result) if name == "split_with_sizes" else 1
        return result
