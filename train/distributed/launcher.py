"""What the launcher's environment says of the ranks; asked before torch and Horovod are loaded.

size, variable = promised_size(os.environ)
"""

from collections.abc import Mapping

# What each launcher tells its processes about how many there are. An MPI launch that is not Horovod's own is caught by
# the size check, because a Horovod built without MPI sees one rank only.
_SIZES = ("HOROVOD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE")
_RANKS = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK")  # those that Horovod goes by


def promised_size(environment: Mapping[str, str]) -> tuple[int, str]:
    """(number of ranks, variable) that the launcher's environment promises; (1, "") without a launcher."""
    for name in _SIZES:
        if environment.get(name, "").isdigit():
            return int(environment[name]), name
    return 1, ""


def promised_rank(environment: Mapping[str, str]) -> int | None:
    """This process's rank, where the launcher told Horovod of it."""
    for name in _RANKS:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return None
