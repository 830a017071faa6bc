"""A few updates on the first batches: what a config costs before it is started. Nothing is written.

code = dry_run(build_experiment(config, comm), comm)
"""

import itertools
import resource
import time

import torch

from data.loading.loader import Loader
from data.loading.step_memory import num_slots
from launch.exit_codes import ExitCode
from launch.free_memory import free_memory
from train.distributed.comm import Comm
from train.loop.step_sync import StepSync
from train.setup.experiment import Experiment
from train.tracking.tracker import readable_seconds

_STEPS = 3


def dry_run(experiment: Experiment, comm: Comm) -> ExitCode:
    """Prints parameters, seconds a step (the best of three), time to go and peak memory."""
    if comm.rank == 0:
        print(experiment.summary, flush=True)
    step_sync = StepSync(experiment.objective, comm)
    seconds = []
    for step, batch in enumerate(itertools.islice(experiment.loader.batches(), _STEPS)):
        begin = time.monotonic()
        step_sync.start(batch, stop=False)
        experiment.train_step.update(batch, step_sync.finish(), step=step)
        experiment.train_step.metrics.norm.cpu()  # waits for the device
        seconds.append(time.monotonic() - begin)
    if comm.rank == 0:
        print(_told_loader(experiment.loader))
        loop = experiment.loop
        print(
            f"dry run: {min(seconds):.3f} s a step of {experiment.batch_size} samples, {loop.steps_per_epoch} steps an "
            f"epoch, about {readable_seconds(min(seconds) * loop.num_steps)} (hours:minutes:seconds) for {loop.epochs} "
            f"epochs (without validation); peak memory {_peak_gigabytes(experiment.device):.2f} GB a rank"
        )
    return ExitCode.DONE


def _told_loader(loader: Loader) -> str:
    """What the loader processes take, and what there is."""
    if not loader.workers:
        return "loader: no processes of its own"
    size, free = loader.batch_bytes(), free_memory() / loader.sharers
    return (
        f"loader: {loader.workers} processes a rank and {num_slots(size, free)} batches of {size / 1e6:,.1f} MB that "
        f"they share with it (not in /dev/shm); {free / 1e6:,.0f} MB of memory are free for each rank"
    )


def _peak_gigabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
