"""How much each layer hurts when it alone is quantised, and each tensor when it alone is stored in 8 bits.

sensitivity = measure_sensitivity(graph, ranges, images); worst_layers(sensitivity, ["age"], count=5)
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from models.formats.onnx_graph import layer_nodes, save_graph
from models.formats.onnx_model import OnnxModel
from models.formats.quantization import Ranges, quantise
from models.formats.weight_storage import decode, encode, is_stored_in_8_bits
from models.student import Student

Sensitivity = Mapping[str, Mapping[str, float]]  # layer or tensor -> task -> mean KL divergence


def measure_sensitivity(
    graph: ModelProto,
    ranges: Ranges,
    images: Sequence[np.ndarray],
    *,
    progress: Callable[[int], None] = lambda count: None,
) -> Sensitivity:
    """For each layer with weights: KL(float || that layer in int8) of the class probabilities, mean over the images.

    graph: prepared, float. images: batches float32 [N, 3, S, S]. progress: called with 1 after each layer.
    """
    before = _log_probabilities(_runnable(graph), images)
    sensitivity = {}
    for layer in layer_nodes(graph):
        sensitivity[layer] = _divergence(before, _runnable(quantise(graph, ranges, only=[layer])), images)
        progress(1)
    return sensitivity


@torch.no_grad()
def measure_storage_sensitivity(
    model: Student, images: Sequence[np.ndarray], *, progress: Callable[[int], None] = lambda count: None
) -> Sensitivity:
    """The same for each tensor of the state that is stored in 8 bits; the model is in eval mode and ends as it
    was. progress: called with 1 after each tensor."""
    before = _log_probabilities(model, images)
    sensitivity = {}
    for name, tensor in model.state_dict().items():  # the tensors share the model's memory
        if is_stored_in_8_bits(tensor):
            exact = tensor.clone()
            tensor.copy_(decode(*encode(exact, name=name)))
            sensitivity[name] = _divergence(before, model, images)
            tensor.copy_(exact)
        progress(1)
    return sensitivity


def worst_layers(sensitivity: Sensitivity, tasks: Sequence[str], *, count: int) -> list[str]:
    """The layers that hurt these tasks most (by the sum over them), worst first."""
    return sorted(sensitivity, key=lambda layer: -sum(sensitivity[layer][task] for task in tasks))[:count]


def _runnable(graph: ModelProto) -> OnnxModel:
    with tempfile.TemporaryDirectory(prefix="sensitivity-") as folder:
        save_graph(graph, f"{folder}/graph.onnx")
        return OnnxModel(f"{folder}/graph.onnx")


def _log_probabilities(model: OnnxModel | Student, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
    outputs = [model(torch.from_numpy(batch)) for batch in images]
    return {task: torch.cat([logits[task] for logits in outputs]).log_softmax(dim=1) for task in model.tasks}


def _divergence(
    before: Mapping[str, Tensor], model: OnnxModel | Student, images: Sequence[np.ndarray]
) -> dict[str, float]:
    after = _log_probabilities(model, images)
    return {task: float((before[task].exp() * (before[task] - after[task])).sum(dim=1).mean()) for task in before}
