"""How much each layer hurts when it alone is quantised.

damages = measure_sensitivity(graph, ranges, photos); print(worst_layers(damages, "age", count=5))
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from onnx import ModelProto

from models.deploy.graph import layer_nodes, save_graph
from models.deploy.int8 import Ranges, quantise
from models.deploy.runtime import OnnxModel

Damages = Mapping[str, Mapping[str, float]]  # layer -> task -> mean KL divergence


def measure_sensitivity(
    graph: ModelProto,
    ranges: Ranges,
    photos: Sequence[np.ndarray],
    *,
    progress: Callable[[int], None] = lambda count: None,
) -> Damages:
    """For each layer with weights: KL(float || that layer in int8) of the class probabilities, mean over the photos.

    graph: prepared, float. photos: batches float32 [N, 3, S, S]. progress: called with 1 after each layer.
    """
    before = _log_probabilities(graph, photos)
    damages = {}
    for layer in layer_nodes(graph):
        after = _log_probabilities(quantise(graph, ranges, only=[layer]), photos)
        damages[layer] = {
            task: float((before[task].exp() * (before[task] - after[task])).sum(dim=1).mean()) for task in before
        }
        progress(1)
    return damages


def worst_layers(damages: Damages, tasks: Sequence[str], *, count: int) -> list[str]:
    """The layers that hurt these tasks most (by the sum over them), worst first."""
    return sorted(damages, key=lambda layer: -sum(damages[layer][task] for task in tasks))[:count]


def _log_probabilities(graph: ModelProto, photos: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory(prefix="sensitivity-") as folder:
        save_graph(graph, f"{folder}/graph.onnx")
        model = OnnxModel(f"{folder}/graph.onnx")
    answers = [model(torch.from_numpy(batch)) for batch in photos]
    return {task: torch.cat([answer[task] for answer in answers]).log_softmax(dim=1) for task in model.tasks}
