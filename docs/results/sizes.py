"""What models cost, measured in turn on one thread of ONNX Runtime: python docs/results/sizes.py MODEL...

MODEL: folder of a saved model, or an exported .onnx file.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.table import Table

from models.artifact import WEIGHTS_NAME, load_artifact
from models.cost import count_cost
from models.formats.latency import inference, measure_milliseconds
from models.formats.onnx_model import OnnxModel
from models.terminal import print_table


def main() -> None:
    table = Table()
    for column in ("model", "parameters", "MACs", "bytes", "ms"):
        table.add_column(column, justify="left" if column == "model" else "right")
    models = {path: _exported(path) if path.endswith(".onnx") else _saved(path) for path in sys.argv[1:]}
    milliseconds = measure_milliseconds({path: way for path, (_, way) in models.items()}, rounds=30, seconds=60)
    for path, (columns, _) in models.items():
        table.add_row(path, *columns, f"{milliseconds[path]:.3f}")
    print_table(table)


def _saved(path: str) -> tuple[list[str], Callable[[], object]]:
    student, meta = load_artifact(path)
    size = int(meta.preprocessing["eval_size"])
    cost = count_cost(student, image_size=size)
    num_bytes = (meta.path / WEIGHTS_NAME).stat().st_size
    way, _ = inference(student, image_size=size, threads=1)
    return [f"{cost.parameters:,}", f"{cost.macs:,}", f"{num_bytes:,}"], way


def _exported(path: str) -> tuple[list[str], Callable[[], object]]:
    model = OnnxModel(path, threads=1)
    image = torch.zeros(1, 3, model.image_size, model.image_size)
    return ["", "", f"{Path(path).stat().st_size:,}"], partial(model, image)


if __name__ == "__main__":
    main()
