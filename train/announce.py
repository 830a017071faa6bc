"""What a run says of itself on rank 0 before it starts.

announce(config, comm, parts)
"""

from train.config.schema import Config
from train.distributed.comm import Comm
from train.setup.experiment import Experiment


def log_run_summary(config: Config, comm: Comm, experiment: Experiment) -> None:
    if comm.rank != 0:
        return
    ranks = f"{comm.size} rank{'s' if comm.size > 1 else ''}"
    named = ", ".join(f"{task} ({count})" for task, count in experiment.tasks.items())
    validated = f", {experiment.val_index.num_samples:,} to validate" if experiment.val_index else ""
    print(
        f"{ranks}, {config.precision}; {experiment.train_index.num_samples:,} samples to train{validated}; "
        f"tasks {named}; {experiment.model.num_parameters:,} parameters; run folder {config.run.dir}",
        flush=True,
    )
    if experiment.distillation.description:
        print(experiment.distillation.description, flush=True)
