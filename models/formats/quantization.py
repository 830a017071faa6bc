"""An ONNX graph in int8: static quantisation by the activations that real photos cause.

    ranges = measure_ranges(graph, images, method="entropy")
    small = quantise(graph, ranges, keep_float=["heads.branches.task_age.1"])

Weights are signed 8-bit with one scale per output channel, activations unsigned 8-bit (on x86 signed ones run slower
than float), biases 32-bit (Jacob et al. 2018). The graph holds QuantizeLinear/DequantizeLinear pairs around float
operators, which every runtime may fuse.
"""

import json
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, checker, helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from models.errors import ModelError
from models.formats.onnx_graph import CALIBRATION, INPUT, METADATA, layer_nodes, name_outputs, output_names
from models.formats.quiet import quiet

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
MIN_IMAGES = 16  # fewer say nothing about the range of a channel
_PERCENTILE = 99.99
# Logits stay float: rounding them to 256 steps would tie classes. Hidden linear layers get theirs from the next one.
_FLOAT_OUTPUTS = ["Gemm", "MatMul"]


@dataclass(frozen=True)
class Ranges:
    """The range of every activation of one graph, found by `method`."""

    method: str
    tensors: TensorsData


def measure_ranges(graph: ModelProto, images: Sequence[np.ndarray], *, method: str) -> Ranges:
    """images: batches as the graph takes them, float32 [N, 3, S, S]. method: one of METHODS.

    minmax takes the extremes, percentile leaves out the outermost 0.01 %, entropy cuts where the rounded histogram is
    nearest to the whole one (Migacz 2017).
    """
    options = {"percentile": _PERCENTILE, "symmetric": False} if method == "percentile" else {}
    with quiet(""), tempfile.TemporaryDirectory(prefix="int8-") as folder:
        onnx.save(graph, f"{folder}/graph.onnx")
        calibrator = create_calibrator(
            f"{folder}/graph.onnx",
            augmented_model_path=f"{folder}/observed.onnx",
            calibrate_method=METHODS[method],
            extra_options=options,
        )
        for batch in images:  # one at a time: it keeps all activations of what it is given
            calibrator.collect_data(_OneBatch(batch))
        return Ranges(method, calibrator.compute_data())


def require_enough_images(images: Sequence[np.ndarray]) -> None:
    """ModelError below MIN_IMAGES images in all batches, whatever they are to calibrate."""
    if (count := sum(len(batch) for batch in images)) < MIN_IMAGES:
        raise ModelError(f"{count} photos are too few to calibrate int8; give at least {MIN_IMAGES}")


def prepare(graph: ModelProto) -> ModelProto:
    """The graph with all shapes written down and constants folded, as quantising and its calibration need it.

    Its outputs are numbered until it is quantised: that makes names of theirs, which other tasks may have.
    """
    numbered = ModelProto()
    numbered.CopyFrom(graph)
    name_outputs(numbered, [f"//{number}" for number in range(len(graph.graph.output))])
    with quiet(""), tempfile.TemporaryDirectory(prefix="int8-") as folder:
        onnx.save(numbered, f"{folder}/graph.onnx")
        quant_pre_process(f"{folder}/graph.onnx", f"{folder}/prepared.onnx", skip_symbolic_shape=True)
        return onnx.load(f"{folder}/prepared.onnx")


def quantise(
    graph: ModelProto, ranges: Ranges, *, keep_float: Collection[str] = (), only: Collection[str] | None = None
) -> ModelProto:
    """The prepared graph in int8. keep_float: layers of the student that stay as they are; only: those to quantise."""
    nodes = layer_nodes(graph)
    options = {"OpTypesToExcludeOutputQuantization": _FLOAT_OUTPUTS}
    for layer in only or ():
        graph, ranges = _with_own_input(graph, ranges, nodes[layer])
    with quiet(""), tempfile.TemporaryDirectory(prefix="int8-") as folder:
        save_tensors_data(ranges.tensors, f"{folder}/ranges.json")
        onnx.save(graph, f"{folder}/graph.onnx")
        quantize_static(
            f"{folder}/graph.onnx",
            f"{folder}/int8.onnx",
            calibration_data_reader=None,
            calibration_cache_path=f"{folder}/ranges.json",
            calibrate_method=METHODS[ranges.method],
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=None if only is None else _with_activations(graph, [nodes[layer] for layer in only]),
            nodes_to_exclude=[nodes[layer] for layer in keep_float],
            extra_options=options,
        )
        small = onnx.load(f"{folder}/int8.onnx")
    kept = (*METADATA, *CALIBRATION)
    properties = {entry.key: entry.value for entry in graph.metadata_props if entry.key in kept}
    changes = {"precision": "int8", "calibration": ranges.method, "float_layers": sorted(keep_float)}
    name_outputs(small, output_names(list(json.loads(properties["tasks"]))))
    helper.set_model_props(small, {**properties, **{key: json.dumps(value) for key, value in changes.items()}})
    used = {"", *(node.domain for node in small.graph.node)}
    for unused in [entry for entry in small.opset_import if entry.domain not in used]:
        small.opset_import.remove(unused)  # the optimiser names all that it could have used
    checker.check_model(small, full_check=True)
    return small


def choose_layers(graph: ModelProto, names: Sequence[str]) -> list[str]:
    """The layers that the names mean: a layer's own name, or that of a part with all its layers. Others: ModelError."""
    layers = layer_nodes(graph)
    chosen: list[str] = []
    for name in names:
        found = [layer for layer in layers if layer == name or layer.startswith(f"{name}.")]
        if not found:
            raise ModelError(f"--keep-float: there is no layer {name!r}; layers are {', '.join(layers)}")
        chosen += found
    return list(dict.fromkeys(chosen))


class _OneBatch(CalibrationDataReader):
    def __init__(self, batch: np.ndarray) -> None:
        self._left: Iterable[dict[str, np.ndarray]] = iter([{INPUT: batch}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(iter(self._left), None)


def _with_own_input(graph: ModelProto, ranges: Ranges, name: str) -> tuple[ModelProto, Ranges]:
    """A rounded tensor is rounded for all that read it; a layer to be quantised alone reads a copy."""
    made = ModelProto()
    made.CopyFrom(graph)
    place, node = next((place, node) for place, node in enumerate(made.graph.node) if node.name == name)
    shared, own = node.input[0], f"{node.input[0]}_for_{name}"
    node.input[0] = own
    made.graph.node.insert(place, helper.make_node("Identity", [shared], [own], f"copy_for_{name}"))
    for info in [*made.graph.value_info, *made.graph.input]:
        if info.name == shared:
            copied = made.graph.value_info.add()
            copied.CopyFrom(info)
            copied.name = own
            break
    tensors = dict(ranges.tensors.items())
    tensors[own] = tensors[shared]
    return made, Ranges(ranges.method, TensorsData(METHODS[ranges.method], tensors))


def _with_activations(graph: ModelProto, nodes: Collection[str]) -> list[str]:
    """A layer and its ReLU are one operator in int8; alone, the layer's outputs would be rounded over a range that
    the ReLU cuts off."""
    outputs = {output for node in graph.graph.node if node.name in nodes for output in node.output}
    following = [
        node.name for node in graph.graph.node if node.op_type in ("Relu", "Clip") and node.input[0] in outputs
    ]
    return [*nodes, *following]
