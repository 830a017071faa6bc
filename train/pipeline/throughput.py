"""Seconds a photo of training a network, by image size and precision, as all ranks together have it.

    horovodrun -np 2 python -m train.pipeline.throughput --backbone mobilenetv2_050 --json OUT.json --sizes 96 128

Made-up photos and labels; reading photos is not measured. The pipeline chooses its recipe by it.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data.files import write_result
from launch.arguments import output_file, positive
from launch.exit_codes import ExitCode
from models.preprocessing import PRECISIONS
from models.student import Student, build_student
from train.cli.arguments import command_parser, parse_as
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import choose_device

_MEASURED = ("fp32", "bf16")
_CLASSES = 16
_STEPS = 3  # of which the quickest counts
_BATCH = 16  # photos a rank


@dataclass(frozen=True)
class ThroughputOptions:
    backbone: str
    sizes: tuple[int, ...]
    json: Path


def parse_options(arguments: Sequence[str] | None) -> ThroughputOptions:
    parser = command_parser("train.pipeline.throughput", __doc__)
    parser.add_argument("--backbone", required=True, help="a network of timm or of models/backbones")
    parser.add_argument("--sizes", required=True, type=positive, nargs="+", metavar="PIXELS", help="sides of photos")
    parser.add_argument("--json", required=True, type=output_file, metavar="OUT", help="file to write")
    return parse_as(ThroughputOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments)
    return run_command(lambda comm: _measure(options, comm))


def _measure(options: ThroughputOptions, comm: Comm) -> ExitCode:
    device = choose_device("auto", comm, deterministic=False)
    model = build_student(backbone=options.backbone, head={"kind": "multi-fc"}, tasks={"task": _CLASSES}).to(device)
    seconds: dict[str, dict[str, float]] = {}
    for precision in _MEASURED:
        for size in options.sizes:
            own = measure_step(model, size=size, precision=precision, device=device)
            slowest = max(comm.allgather_object(own, name=f"throughput {precision} {size}"))
            seconds.setdefault(precision, {})[str(size)] = slowest / (_BATCH * comm.size)
    if comm.rank == 0:
        write_result(options.json, json.dumps({"seconds_per_photo": seconds, "ranks": comm.size}).encode())
    return ExitCode.DONE


def measure_step(model: Student, *, size: int, precision: str, device: torch.device) -> float:
    """Seconds of a forward and backward pass of a batch, the quickest of some."""
    images = torch.zeros(_BATCH, 3, size, size, device=device)
    labels = torch.arange(_BATCH, device=device) % _CLASSES
    model.train()
    times = []
    for _ in range(_STEPS + 1):
        begin = time.perf_counter()
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            loss = torch.nn.functional.cross_entropy(model(images)["task"].float(), labels)
        loss.backward()
        float(loss.detach())  # waits for the device
        times.append(time.perf_counter() - begin)
        model.zero_grad(set_to_none=True)
    return min(times[1:])


if __name__ == "__main__":
    sys.exit(main())
