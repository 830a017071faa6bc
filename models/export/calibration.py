"""The int8 graph that loses least: calibration methods compared by accuracy, the worst layers left in float.

choice = choose_int8(graph, meta, batches, labelled, tasks, methods=["minmax", "entropy"], keep_float="2", ...)
"""

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from data.errors import DataError
from data.index.labels import MISSING
from data.loading.image_sets import ImageSet
from models.artifact import META_NAME, ArtifactMeta
from models.errors import ModelError
from models.export.measurement import measure_files
from models.export.sensitivity import Sensitivity, measure_sensitivity, measure_storage_sensitivity, worst_layers
from models.formats.onnx_graph import layer_nodes, save_graph
from models.formats.quantization import Ranges, choose_layers, measure_ranges, prepare, quantise
from models.student import Student
from train.evaluation.comparison import Comparison
from train.tracking.console import image_progress

_FLOAT = "float"
_SENSITIVITY_BATCHES = 2


@dataclass(frozen=True)
class Int8Choice:
    """prepared: the float graph. candidates: method -> mean top-1. sensitivity: known when layers
    were chosen by it."""

    graph: ModelProto
    prepared: ModelProto
    ranges: Ranges
    candidates: Mapping[str, float | None]
    float_layers: Sequence[str]
    sensitivity: Sensitivity | None

    def metadata(self) -> dict[str, Any]:
        """What export.json says of it."""
        return {
            "method": self.ranges.method,
            "mean_top1_by_method": dict(self.candidates),
            "float_layers": list(self.float_layers),
        }


def choose_int8(
    graph: ModelProto,
    meta: ArtifactMeta,
    batches: Sequence[np.ndarray],
    labelled: ImageSet,
    tasks: Mapping[str, Sequence[str]],
    *,
    methods: Sequence[str],
    keep_float: str,
    image_size: int,
    workers: int,
) -> Int8Choice:
    """batches: images to calibrate with. labelled, tasks: the images that methods are compared on, and their classes.
    keep_float: empty, a number of layers, or names parted by commas. Raises ModelError for unknown names and where
    no layer would be in int8, DataError where methods are to be compared on images without a label."""
    if len(methods) > 1:
        _require_labels(labelled, meta)
    prepared = prepare(graph)
    named = [] if keep_float.isdecimal() else choose_layers(prepared, [name for name in keep_float.split(",") if name])
    _require_int8_layers(keep_float, kept=int(keep_float) if keep_float.isdecimal() else len(named), graph=prepared)
    ranges = {method: measure_ranges(prepared, batches, method=method) for method in methods}
    graphs = {method: quantise(prepared, ranges[method], keep_float=named) for method in methods}
    results: dict[str, Comparison] = {}
    best = methods[0]
    if len(methods) > 1:
        results = _compare(prepared, graphs, meta, labelled, tasks, image_size=image_size, workers=workers)
        best = best_method({method: results[method] for method in methods})
    sensitivity = None
    if keep_float.isdecimal() and int(keep_float):
        sensitivity = layer_sensitivity(prepared, ranges[best], batches)
        named = worst_layers(sensitivity, list(meta.tasks), count=int(keep_float))
        graphs[best] = quantise(prepared, ranges[best], keep_float=named)
    candidates = {method: results[method].mean_top1 for method in methods if method in results}
    return Int8Choice(graphs[best], prepared, ranges[best], candidates, named, sensitivity)


def _require_int8_layers(keep_float: str, *, kept: int, graph: ModelProto) -> None:
    total = len(layer_nodes(graph))
    if kept >= total:
        raise ModelError(f"--keep-float {keep_float}: would leave none of the {total} layers in int8; keep fewer")


def best_method(results: Mapping[str, Comparison]) -> str:
    """The highest mean top-1; among equals the lowest mean loss. All were measured on the same labelled images."""
    return max(results, key=lambda method: _rank(results[method]))


def _rank(result: Comparison) -> tuple[float, float]:
    assert result.mean_top1 is not None
    assert result.mean_loss is not None
    # A mean that is not a number compares as neither more nor less, and would win by its place.
    return result.mean_top1, -result.mean_loss if math.isfinite(result.mean_loss) else -math.inf


def _require_labels(images: ImageSet, meta: ArtifactMeta) -> None:
    """Said before the work; the first image has one as a rule."""
    columns = [place for place, task in enumerate(images.tasks) if task in meta.tasks]
    numbers = ((group, number) for group, total in enumerate(images.counts.tolist()) for number in range(total))
    if not any((images.labels(*place)[columns] != MISSING).any() for place in numbers):
        raise DataError(
            "--method best compares methods by accuracy, and none of the photos has a label: name labelled ones with "
            "--data, or one method, such as --method minmax"
        )


def layer_sensitivity(prepared: ModelProto, ranges: Ranges, batches: Sequence[np.ndarray]) -> Sensitivity:
    """What each layer alone costs, on a few of the images that the ranges come from."""
    with image_progress("Layers", total=len(layer_nodes(prepared))) as advance:
        return measure_sensitivity(prepared, ranges, batches[:_SENSITIVITY_BATCHES], progress=advance)


def _compare(
    prepared: ModelProto,
    graphs: Mapping[str, ModelProto],
    meta: ArtifactMeta,
    labelled: ImageSet,
    tasks: Mapping[str, Sequence[str]],
    *,
    image_size: int,
    workers: int,
) -> dict[str, Comparison]:
    with tempfile.TemporaryDirectory(prefix="int8-") as folder:
        shutil.copyfile(meta.path / META_NAME, Path(folder, META_NAME))
        files = {name: Path(folder, f"{name}.onnx") for name in (_FLOAT, *graphs)}
        for name, graph in {_FLOAT: prepared, **graphs}.items():
            save_graph(graph, files[name])
        return measure_files(
            files, labelled, tasks, image_size=image_size, workers=workers, what="Comparing calibrations"
        )


_NAMED = 5


def worst_parts(
    lost: Mapping[str, Mapping[str, float]], *, int8: Int8Choice | None, model: Student, batches: Sequence[np.ndarray]
) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """variant -> task -> (layer or tensor, KL divergence of it alone), worst first; without the variants whose parts
    cannot be told apart. lost: variant -> tasks. batches: images float32 [N, 3, S, S]; 8-bit storage sees the first."""
    found = {}
    for variant, tasks in lost.items():
        sensitivity: Sensitivity = {}
        if variant == "onnx int8" and int8 is not None:
            known = int8.sensitivity or layer_sensitivity(int8.prepared, int8.ranges, batches)
            sensitivity = {layer: one for layer, one in known.items() if layer not in int8.float_layers}
        if variant == "uint8 storage":
            with image_progress("Tensors", total=len(model.state_dict())) as advance:
                sensitivity = measure_storage_sensitivity(model, batches[:1], progress=advance)
        if sensitivity:
            found[variant] = {
                task: [(name, sensitivity[name][task]) for name in worst_layers(sensitivity, [task], count=_NAMED)]
                for task in tasks
            }
    return found
