"""What saved models cost: python docs/results/sizes.py MODEL...

Milliseconds of one image on one thread of ONNX Runtime, measured in turn.
"""

import sys

from rich.table import Table

from models.artifact import WEIGHTS_NAME, load_artifact
from models.cost import count_cost
from models.deploy.latency import measure_milliseconds
from models.terminal import print_table
from prune.latency import inference


def main() -> None:
    table = Table()
    for column in ("model", "parameters", "MACs", "bytes", "ms"):
        table.add_column(column, justify="left" if column == "model" else "right")
    models = {path: load_artifact(path) for path in sys.argv[1:]}
    sizes = {path: int(meta.preprocessing["eval_size"]) for path, (_, meta) in models.items()}
    ways = {path: inference(student, image_size=sizes[path], threads=1)[0] for path, (student, _) in models.items()}
    milliseconds = measure_milliseconds(ways)
    for path, (student, meta) in models.items():
        cost = count_cost(student, image_size=sizes[path])
        num_bytes = (meta.path / WEIGHTS_NAME).stat().st_size
        table.add_row(path, f"{cost.parameters:,}", f"{cost.macs:,}", f"{num_bytes:,}", f"{milliseconds[path]:.3f}")
    print_table(table)


if __name__ == "__main__":
    main()
