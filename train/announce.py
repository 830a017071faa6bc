"""What a run says of itself on rank 0 before it starts.

announce(config, comm, parts)
"""

from train.config.schema import Config
from train.distributed.comm import Comm
from train.setup.experiment import Parts


def announce(config: Config, comm: Comm, parts: Parts) -> None:
    if comm.rank != 0:
        return
    ranks = f"{comm.size} rank{'s' if comm.size > 1 else ''}"
    named = ", ".join(f"{task} ({count})" for task, count in parts.tasks.items())
    validated = f", {parts.val_index.num_samples:,} to validate" if parts.val_index else ""
    print(
        f"{ranks}, {config.precision}; {parts.train_index.num_samples:,} samples to train{validated}; tasks {named}; "
        f"{parts.model.num_parameters:,} parameters; run folder {config.run.dir}",
        flush=True,
    )
    if parts.lessons.description:
        print(parts.lessons.description, flush=True)
