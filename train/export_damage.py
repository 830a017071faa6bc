"""Which parts of a network hurt a task most, for the exported files that miss the gate.

worst = worst_parts(lost, int8=choice, model=model, batches=batches); worst["onnx int8"]["age"]
"""

from collections.abc import Mapping, Sequence

import numpy as np

from models.deploy.sensitivity import Damages, measure_storage_sensitivity, worst_layers
from models.student import Student
from train.int8_choice import Int8Choice, layer_damages
from train.photo_progress import photo_progress

_NAMED = 5


def worst_parts(
    lost: Mapping[str, Mapping[str, float]], *, int8: Int8Choice | None, model: Student, batches: Sequence[np.ndarray]
) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """variant -> task -> (layer or tensor, KL divergence of it alone), worst first; without the variants whose parts
    cannot be told apart. lost: variant -> tasks. batches: photos float32 [N, 3, S, S]; 8-bit storage sees the first."""
    found = {}
    for variant, tasks in lost.items():
        damages: Damages = {}
        if variant == "onnx int8" and int8 is not None:
            known = int8.damages or layer_damages(int8.prepared, int8.ranges, batches)
            damages = {layer: one for layer, one in known.items() if layer not in int8.float_layers}
        if variant == "uint8 storage":
            with photo_progress("Tensors", total=len(model.state_dict())) as advance:
                damages = measure_storage_sensitivity(model, batches[:1], progress=advance)
        if damages:
            found[variant] = {
                task: [(name, damages[name][task]) for name in worst_layers(damages, [task], count=_NAMED)]
                for task in tasks
            }
    return found
