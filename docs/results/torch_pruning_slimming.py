"""Torch-Pruning's slimming of one of our CIFAR ResNets, as one of our artifacts: a comparison, not a part of Slimheads.

    pip install torch-pruning==1.6.1
    PYTHONPATH=. python docs/results/torch_pruning_slimming.py --model runs/a/last --out runs/a_pruned --max-macs 50%

Its `BNScalePruner`, with its defaults, ranks channels over the whole network by |gamma| divided by the mean |gamma| of
their layer. It may take the inner channels of the blocks, as `python -m prune` does there; the smallest ratio within
the budget is searched on copies of the network.
"""

import argparse
import copy
import sys

import torch
import torch_pruning
from torch import nn

from models.artifact import load_artifact, save_artifact
from models.cost import count_cost
from models.student import Student, build_student

STEPS = 200  # of the ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a trained CIFAR ResNet")
    parser.add_argument("--out", required=True, help="folder for the narrow model")
    parser.add_argument("--max-macs", required=True, help="share of the MACs, such as 50%%")
    parser.add_argument("--multiple", type=int, default=1, help="round widths (round_to)")
    options = parser.parse_args()
    student, meta = load_artifact(options.model)
    size = int(meta.preprocessing["eval_size"])
    budget = float(options.max_macs.rstrip("%")) / 100 * count_cost(student, image_size=size).macs
    for step in range(1, STEPS):
        pruned = slimmed(student, ratio=step / STEPS, size=size, multiple=options.multiple)
        if count_cost(pruned, image_size=size).macs <= budget:
            break
    else:
        print(f"no ratio meets {budget:,.0f} MACs", file=sys.stderr)
        return 1
    cost = count_cost(pruned, image_size=size)
    provenance = {**meta.provenance, "torch_pruning": {"ratio": step / STEPS, "macs": cost.macs, "from": meta.sha256}}
    save_artifact(
        pruned,
        options.out,
        tasks=meta.tasks,
        preprocessing=meta.preprocessing,
        metrics={},
        provenance=provenance,
        ema=meta.ema,
    )
    print(f"ratio {step / STEPS}: {cost.parameters:,} parameters, {cost.macs:,} MACs, in {options.out}")
    return 0


def slimmed(student: Student, *, ratio: float, size: int, multiple: int) -> Student:
    """A narrower student: Torch-Pruning chooses and slices, our builder takes the tensors."""
    network = copy.deepcopy(student)
    inner = {f"{name}.conv1" for name, module in network.named_modules() if hasattr(module, "conv1")}
    pruner = torch_pruning.pruner.BNScalePruner(
        network,
        torch.zeros(1, 3, size, size),
        importance=torch_pruning.importance.BNScaleImportance(),
        global_pruning=True,
        pruning_ratio=ratio,
        round_to=multiple if multiple > 1 else None,
        ignored_layers=[
            module
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and name not in inner
        ],
    )
    pruner.step()
    widths = {name: network.get_submodule(name).out_channels for name in inner}
    narrow = build_student(**{**student.architecture, "widths": widths})
    narrow.load_state_dict(network.state_dict())
    return narrow.eval()


if __name__ == "__main__":
    sys.exit(main())
