"""What a run says of itself on rank 0 before it starts.

announce(config, comm, model, tasks, train_index, val_index)
"""

from data.index import Index
from models.student import Student
from train.comm import Comm
from train.config import Config


def announce(
    config: Config, comm: Comm, model: Student, tasks: dict[str, int], train_index: Index, val_index: Index | None
) -> None:
    if comm.rank != 0:
        return
    ranks = f"{comm.size} rank{'s' if comm.size > 1 else ''}"
    named = ", ".join(f"{task} ({count})" for task, count in tasks.items())
    validated = f", {val_index.num_samples:,} to validate" if val_index else ""
    print(
        f"{ranks}, {config.precision}; {train_index.num_samples:,} samples to train{validated}; tasks {named}; "
        f"{model.num_parameters:,} parameters; run folder {config.run.dir}",
        flush=True,
    )
