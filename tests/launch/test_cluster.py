"""Which worker this is, from each scheduler's variables; what is missing or contradicts itself is named."""

import pytest

from launch.cluster import WorkerEnv, first_host, read_worker_env
from launch.errors import LaunchError

SLURM = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURMD_NODENAME": "gpu08",
}
KUBERNETES = {
    "JOB_COMPLETION_INDEX": "1",
    "SLIMHEADS_WORKERS": "4",
    "SLIMHEADS_JOB": "solar",
    "SLIMHEADS_SERVICE": "slimheads",
}
PLAIN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "29400"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, WorkerEnv(0, 1, "here", "127.0.0.1", 0, "no scheduler", 1)),
        (SLURM, WorkerEnv(5, 8, "gpu08", "gpu07", 15372, "SLURM", 2)),
        (KUBERNETES, WorkerEnv(1, 4, "solar-1", "solar-0.slimheads", 29400, "Kubernetes", 4)),
        ({**KUBERNETES, "SLIMHEADS_PORT": "7"}, WorkerEnv(1, 4, "solar-1", "solar-0.slimheads", 7, "Kubernetes", 4)),
        (PLAIN, WorkerEnv(1, 2, "here", "a", 29400, "variables")),
        ({"RANK": "0", "WORLD_SIZE": "1"}, WorkerEnv(0, 1, "here", "127.0.0.1", 0, "variables", 1)),
        # An allocation without a step: `python -m launch.worker` in a batch script is one worker.
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "8"}, WorkerEnv(0, 1, "here", "127.0.0.1", 0, "no scheduler", 1)),
    ],
)
def test_each_schedulers_variables_are_read(environment: dict[str, str], expected: WorkerEnv) -> None:
    assert read_worker_env(environment, hostname="here") == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({**SLURM, "SLURM_NTASKS": "4"}, "SLURM_STEP_NUM_TASKS=8 and SLURM_NTASKS=4 contradict each other"),
        ({**SLURM, "SLURM_PROCID": "8"}, "SLURM_PROCID=8 and SLURM_STEP_NUM_TASKS=8 contradict each other"),
        ({**SLURM, "SLURM_STEP_NUM_NODES": "9"}, "SLURM_STEP_NUM_NODES=9 nodes but SLURM_STEP_NUM_TASKS=8 tasks"),
        ({**SLURM, "SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST is not set: start the worker with `srun`"),
        ({**SLURM, "SLURM_PROCID": "x"}, "SLURM_PROCID='x' is not a number"),
        ({**KUBERNETES, "JOB_COMPLETION_INDEX": "4"}, "JOB_COMPLETION_INDEX=4 and SLIMHEADS_WORKERS=4 contradict"),
        ({"JOB_COMPLETION_INDEX": "0"}, "SLIMHEADS_WORKERS is not set, but other variables of the same launcher are"),
        ({**KUBERNETES, "SLIMHEADS_SERVICE": ""}, "SLIMHEADS_JOB and SLIMHEADS_SERVICE must name job and service"),
        ({**PLAIN, "RANK": "2"}, "RANK=2 and WORLD_SIZE=2 contradict each other"),
        ({**PLAIN, "MASTER_ADDR": ""}, "MASTER_ADDR must name the host of the worker with RANK=0"),
        ({**PLAIN, "MASTER_PORT": "70000"}, "MASTER_PORT=70000 is not a port"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({**KUBERNETES, "SLIMHEADS_PORT": "http"}, "SLIMHEADS_PORT='http' is not a number"),
    ],
)
def test_what_does_not_fit_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=message.replace("(", r"\(")):
        read_worker_env(environment, hostname="here")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("n[1-2]", "n1"), ("gpu[003-004,7],x", "gpu003"), ("a,b[1-2]", "a"), ("n[3,5]-ib", "n3-ib")],
)
def test_the_first_host_of_a_slurm_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
