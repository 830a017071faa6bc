"""A student as an ONNX graph: one named output per task, any batch size, all that an input needs in its metadata.

graph = export_graph(model, meta, image_size=224); save_graph(graph, "export/model.onnx")
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto, TensorProto, checker, helper
from torch import Tensor, nn

from models.artifact import ArtifactMeta
from models.errors import ModelError
from models.formats.fusing import TaskOutputs, fused
from models.formats.quiet import quiet
from models.heads import task_module
from models.student import Student

INPUT = "image"
FORMAT = "slimheads-onnx/1"
METADATA = ("format", "precision", "input", "image_size", "mean", "std", "tasks", "model_sha256")
CALIBRATION = ("temperatures", "thresholds")  # in the metadata, too, but not of earlier versions
FLOAT_INPUT = "float32 [N, 3, S, S], RGB in 0..1, mean taken out, divided by std"
PIXEL_INPUT = "uint8 [N, S, S, 3], RGB"
# Newer operators bring nothing to these networks, and the runtimes on phones are slow to follow.
OPSET = 18


def export_graph(model: Student, meta: ArtifactMeta, *, image_size: int) -> ModelProto:
    """The checked graph of a model in eval mode on the CPU; batch norms are folded into the layers before them, and
    branches that only training needs into one layer.

    Input `image` as FLOAT_INPUT says, S = image_size; outputs lie in the order of the tasks and are named by
    `output_names`. Layers that ONNX has no words for raise ModelError with their names.
    """
    image = torch.zeros(2, 3, image_size, image_size)
    try:
        graph = _export(TaskOutputs(fused(model)).eval(), image)
    except Exception as error:  # torch's exporter, its decompositions and onnx share no base class
        layers = ", ".join(_layers_without_export(model, image)) or "none of its layers alone"
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{meta.path}: the network does not export to ONNX; layers that do not: {layers} ({reason})"
        ) from error
    _set_values_apart(graph)
    name_outputs(graph, output_names(list(model.tasks)))
    helper.set_model_props(graph, graph_metadata(meta, image_size=image_size))
    checker.check_model(graph, full_check=True)
    return graph


def output_names(tasks: Sequence[str]) -> list[str]:
    """A name for each task's output: its own, but where a runtime might not take it, or where it is the input's, that
    of the task's module."""
    names = {task: task for task in tasks if task != INPUT and task_module(task) == f"task_{task}"}
    for task in tasks:
        if task not in names:
            name = task_module(task)
            while name in names.values():
                name += "_"
            names[task] = name
    return [names[task] for task in tasks]


def graph_metadata(meta: ArtifactMeta, *, image_size: int) -> dict[str, str]:
    """What the file says of itself; every value is JSON."""
    values = {
        "format": FORMAT,
        "precision": "fp32",
        "input": FLOAT_INPUT,
        "image_size": image_size,
        "mean": meta.preprocessing["mean"],
        "std": meta.preprocessing["std"],
        "tasks": {task: list(classes) for task, classes in meta.tasks.items()},
        "model_sha256": meta.sha256,
        # The outputs are logits: who makes probabilities of them divides by these first.
        "temperatures": meta.temperatures,
        "thresholds": meta.thresholds,
    }
    return {key: json.dumps(value) for key, value in values.items()}


def read_metadata(path: str | Path, properties: Mapping[str, str]) -> dict[str, Any]:
    """The values that `graph_metadata` wrote. ModelError for a graph of another origin."""
    try:
        values = {key: json.loads(properties[key]) for key in METADATA}
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: its metadata is not that of models.export ({error})") from error
    if values["format"] != FORMAT:
        raise ModelError(f"{path}: its format is {values['format']!r}, this version reads {FORMAT!r}")
    return values


def with_pixel_input(graph: ModelProto) -> ModelProto:
    """The same graph behind the preprocessing: its input is PIXEL_INPUT."""
    made = ModelProto()
    made.CopyFrom(graph)
    properties = {entry.key: entry.value for entry in made.metadata_props}
    size = json.loads(properties["image_size"])
    # (pixel / 255 - mean) / std, as one subtraction and one product per channel
    mean = [255 * value for value in json.loads(properties["mean"])]
    factor = [1 / (255 * value) for value in json.loads(properties["std"])]
    # Behind a slash, where no output's name begins.
    own = {name: f"/preprocess_{name}" for name in ("mean", "factor", "planes", "float", "centred", "normalised")}
    for name, values in {"mean": mean, "factor": factor}.items():
        made.graph.initializer.append(helper.make_tensor(own[name], TensorProto.FLOAT, [3, 1, 1], values))
    for node in made.graph.node:
        node.input[:] = [own["normalised"] if name == INPUT else name for name in node.input]
    nodes = [
        helper.make_node("Transpose", [INPUT], [own["planes"]], "preprocess_transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [own["planes"]], [own["float"]], "preprocess_cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", [own["float"], own["mean"]], [own["centred"]], "preprocess_centre"),
        helper.make_node("Mul", [own["centred"], own["factor"]], [own["normalised"]], "preprocess_scale"),
    ]
    rest = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*nodes, *rest])
    del made.graph.input[:]
    made.graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", size, size, 3]))
    helper.set_model_props(made, {**properties, "input": json.dumps(PIXEL_INPUT)})
    checker.check_model(made, full_check=True)
    return made


def layer_nodes(graph: ModelProto) -> dict[str, str]:
    """Layer of the student -> name of its node, for every layer with weights (convolutions, linear layers)."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    nodes = {}
    for node in graph.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in weights:
            nodes[node.input[1].removeprefix("model.").removesuffix(".weight")] = node.name
    return nodes


def save_graph(graph: ModelProto, path: str | Path) -> int:
    """Write it; returns its bytes."""
    content = graph.SerializeToString()
    Path(path).write_bytes(content)
    return len(content)


def name_outputs(graph: ModelProto, outputs: Sequence[str]) -> None:
    """Give the outputs these names, in place."""
    _rename(graph, dict(zip([output.name for output in graph.graph.output], outputs, strict=True)))


def _set_values_apart(graph: ModelProto) -> None:
    """Put a slash before the names of all values inside, in place: torch calls them `view`, `val_3` and the like, as a
    task may be called, too."""
    outputs = {output.name for output in graph.graph.output}
    values = {name for node in graph.graph.node for name in node.output if name}
    values |= {tensor.name for tensor in graph.graph.initializer if "." not in tensor.name}
    _rename(graph, {name: f"/{name}" for name in values - outputs})


def _rename(graph: ModelProto, names: Mapping[str, str]) -> None:
    for node in graph.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in [*graph.graph.initializer, *graph.graph.value_info, *graph.graph.output]:
        value.name = names.get(value.name, value.name)


def _export(module: nn.Module, image: Tensor) -> ModelProto:
    with quiet("torch.onnx"):
        program = torch.onnx.export(
            module,
            (image,),
            dynamo=True,
            input_names=[INPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph: ModelProto = program.model_proto
    for function in graph.functions:
        raise ModelError(f"the graph kept a function of its own: {function.name}")
    for node in graph.graph.node:  # paths and stack traces of the machine that exported
        del node.metadata_props[:]
    for info in [*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        del info.metadata_props[:]
    del graph.graph.metadata_props[:]
    return onnx.shape_inference.infer_shapes(graph)


def _layers_without_export(model: Student, image: Tensor) -> list[str]:
    """Names and kinds of the innermost modules that do not export on their own."""
    inputs: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name] = given[0]

        return hook

    leaves = {name: module for name, module in model.named_modules() if not any(module.children())}
    handles = [module.register_forward_hook(record(name)) for name, module in leaves.items()]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return [f"{name} ({type(leaves[name]).__name__})" for name in inputs if not _exports(leaves[name], inputs[name])]


def _exports(module: nn.Module, given: Tensor) -> bool:
    try:
        _export(module, given)
    except Exception:  # see export_graph
        return False
    return True
