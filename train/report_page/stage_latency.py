"""Milliseconds for the stages that nobody has timed: `stages = time_stages(stages, progress=advance)`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from models.deploy.latency import measure_latency
from models.student import build_student
from train.report_page.stage import BEFORE_EXPORT, Stage

ROUNDS = 20
_SECONDS = 0.7  # for each network


def untimed(stages: Sequence[Stage]) -> list[tuple[str, int]]:
    """(network, image size) of the stages that no export has timed, each once."""
    known = _known(stages)
    wanted = [_key(stage) for stage in stages if stage.milliseconds is None]
    return [key for key in dict.fromkeys(wanted) if key not in known]


def time_stages(stages: Sequence[Stage], *, progress: Callable[[int], None] = lambda count: None) -> list[Stage]:
    """The same stages, each with the time of its network in torch fp32 on one thread: from a stage that has it, else
    measured, all networks in turn.

    Weights do not change a time, so runs of one network share it. progress: called with 1 after each of ROUNDS rounds.
    """
    keys = untimed(stages)
    ways = {}
    for number, (network, size) in enumerate(keys):
        model = build_student(**json.loads(network)).eval()
        ways[str(number)] = partial(model, torch.zeros(1, 3, size, size))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            taken = measure_latency(ways, rounds=ROUNDS, seconds=_SECONDS * len(ways), progress=progress)
    finally:
        torch.set_num_threads(threads)
    times = _known(stages) | {key: taken[str(number)] for number, key in enumerate(keys)}
    return [stage if stage.milliseconds else replace(stage, milliseconds=times[_key(stage)]) for stage in stages]


def _key(stage: Stage) -> tuple[str, int]:
    return stage.network, stage.image_size


def _known(stages: Sequence[Stage]) -> dict[tuple[str, int], float]:
    return {
        _key(stage): stage.milliseconds
        for stage in stages
        if stage.milliseconds is not None and stage.role == BEFORE_EXPORT
    }
