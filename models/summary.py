"""Parameters and multiply-accumulates (MACs) of a model, per layer and in total.

`python -m models.summary runs/attributes/best` or `python -m models.summary mobilenetv2_050 --image-size 224`
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.arguments import positive
from models.model_path import exit_if_missing

if __name__ == "__main__":  # before torch is loaded; names of backbones have no separator
    exit_if_missing(*(word for word in sys.argv[1:] if os.sep in word))

import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from models.artifact import META_NAME, load_artifact
from models.cost import macs_of
from models.errors import ModelError
from models.heads import task_module
from models.student import Student, build_student
from models.terminal import print_table


@dataclass(frozen=True)
class LayerSummary:
    """One module that has parameters of its own; output_shape without the batch, macs for one image."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class ModelSummary:
    """Layers in order of execution. parts: {part: (parameters, macs)} with the rows of one task's layers apart."""

    layers: tuple[LayerSummary, ...]
    parts: dict[str, tuple[int, int]]
    parameters: int
    macs: int


def summarize(model: Student, *, image_size: int) -> ModelSummary:
    """Count by running one zero image [1, 3, image_size, image_size] in eval mode; the model is left as it was.

    MACs are those of convolutions and linear layers. Norms fold into them, and products of two activations (attention)
    are not counted.
    """
    calls: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {}  # name: module, output shape, MACs so far

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            before = calls[name][2] if name in calls else 0
            calls[name] = (module, tuple(output.shape[1:]), before + macs_of(module, output))

        return hook

    own = {
        name: module for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))
    }
    handles = [module.register_forward_hook(record(name)) for name, module in own.items()]
    was_training = model.training
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    except (AssertionError, RuntimeError) as error:
        raise ModelError(f"the network does not run on {image_size}x{image_size} images: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    layers = tuple(
        LayerSummary(name, type(module).__name__, shape, _own_parameters(module), macs)
        for name, (module, shape, macs) in calls.items()
    )
    idle = tuple(
        LayerSummary(name, type(module).__name__, (), _own_parameters(module), 0)
        for name, module in own.items()
        if name not in calls
    )
    layers += idle
    return ModelSummary(
        layers=layers,
        parts=_parts(model, layers),
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(layer.macs for layer in layers),
    )


def _own_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def _parts(model: Student, layers: Sequence[LayerSummary]) -> dict[str, tuple[int, int]]:
    parts = {"backbone": (0, 0), "heads, shared": (0, 0), **{f"heads, {task}": (0, 0) for task in model.tasks}}
    for layer in layers:
        words = layer.name.split(".")
        task = next((task for task in model.tasks if task_module(task) in words), "shared")
        part = "backbone" if words[0] == "backbone" else f"heads, {task}"
        parameters, macs = parts[part]
        parts[part] = (parameters + layer.parameters, macs + layer.macs)
    return {part: counts for part, counts in parts.items() if any(counts)}


def _print(summary: ModelSummary, *, title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("layer", "kind", "output"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "MACs"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in summary.layers:
        shape = "x".join(str(size) for size in layer.output_shape) or "not run"
        table.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.macs:,}")
    table.add_section()
    for part, (parameters, macs) in summary.parts.items():
        table.add_row(escape(part), "", "", f"{parameters:,}", f"{macs:,}")
    table.add_section()
    table.add_row("total", "", "", f"{summary.parameters:,}", f"{summary.macs:,}")
    print_table(table)


@dataclass(frozen=True)
class SummaryOptions:
    """model: a folder, its model.json or the name of a backbone. head and classes: over a backbone."""

    model: str
    image_size: int | None
    head: str
    classes: int

    @property
    def is_saved(self) -> bool:
        return Path(self.model).is_dir() or os.sep in self.model or self.model.endswith(META_NAME)


def parse_options(arguments: Sequence[str] | None) -> SummaryOptions:
    """None: those of the process."""
    parser = argparse.ArgumentParser(prog="python -m models.summary", description="Parameters and MACs per layer.")
    parser.add_argument("model", help="a model folder (or its model.json), or the name of a backbone")
    parser.add_argument("--image-size", type=positive, help="default: the folder's eval size, or 224")
    parser.add_argument("--head", default="multi-fc", help="head over a named backbone (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=1000, help="classes of that head (default: %(default)s)")
    return SummaryOptions(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    try:
        if options.is_saved:
            model, meta = load_artifact(options.model)
            default_size = meta.preprocessing["eval_size"]
        else:
            tasks = {"class": options.classes}
            model = build_student(backbone=options.model, head={"kind": options.head}, tasks=tasks)
            default_size = 224
        image_size = options.image_size or default_size
        summary = summarize(model, image_size=image_size)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print(summary, title=f"{options.model} at {image_size}x{image_size}, one image")
    return 0


if __name__ == "__main__":
    sys.exit(main())
