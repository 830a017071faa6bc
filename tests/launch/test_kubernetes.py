"""Kubernetes: manifests that validate; pods, which are network namespaces with what an Indexed Job sets, that train."""

import copy
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import psutil
import pytest
import yaml

from launch.exit_codes import HOPELESS, ExitCode
from tests.conftest import REPOSITORY, end_process_tree, rank_environment
from tests.small_run import small_config

K8S = REPOSITORY / "launch/k8s"
OPERATOR_SCHEMA = REPOSITORY.parent / "shared/data/k8s/kubeflow.org_mpijobs.yaml"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def merged(base: Any, patch: Any) -> Any:
    """As kubectl merges: maps key by key, lists of named things by name, other lists replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {key: merged(base.get(key), patch[key]) if key in patch else base[key] for key in {**base, **patch}}
    if isinstance(base, list) and isinstance(patch, list) and all("name" in item for item in base + patch):
        patches = {item["name"]: item for item in patch}
        assert patches.keys() <= {item["name"] for item in base}
        return [merged(item, patches.get(item["name"], {})) for item in base]
    return copy.deepcopy(patch)


def job_of(path: Path) -> dict[str, Any]:
    return next(document for document in documents(path) if document["kind"] == "Job")


def gpu_job() -> dict[str, Any]:
    return merged(job_of(K8S / "indexed-job.yaml"), job_of(K8S / "gpu/gpu.yaml"))


def pod_specs() -> dict[str, dict[str, Any]]:
    mpi = documents(K8S / "mpijob.yaml")[0]["spec"]["mpiReplicaSpecs"]
    return {
        "indexed-job": job_of(K8S / "indexed-job.yaml")["spec"]["template"]["spec"],
        "gpu": gpu_job()["spec"]["template"]["spec"],
        **{f"mpijob {role.lower()}": replica["template"]["spec"] for role, replica in mpi.items()},
    }


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_every_document_is_valid(version: str) -> None:
    for document in [*documents(K8S / "indexed-job.yaml"), gpu_job()]:
        kubernetes_validate.validate(document, version, strict=True)
    for name, spec in pod_specs().items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name.replace(" ", "-")}, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)


def test_the_mpijob_is_what_its_operator_accepts() -> None:
    if not OPERATOR_SCHEMA.exists():
        pytest.skip("the operator's schema is not beside the repository")
    (version,) = documents(OPERATOR_SCHEMA)[0]["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    job = documents(K8S / "mpijob.yaml")[0]
    assert job["apiVersion"] == f"kubeflow.org/{version['name']}"
    jsonschema.validate(job, schema)
    assert set(job["spec"]) <= set(schema["properties"]["spec"]["properties"])
    broken = copy.deepcopy(job)
    broken["spec"]["slotsPerWorker"] = "one"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


@pytest.mark.parametrize("name", pod_specs())
def test_pods_are_confined_and_bounded_and_carry_no_secret(name: str) -> None:
    spec = pod_specs()[name]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    words = " ".join([*container["command"], *container.get("args", [])])
    assert not re.search(r"(?i)key|secret|token|password", words)
    for variable in container.get("env", []):
        assert not re.search(r"KEY|TOKEN", variable["name"]) or "secretKeyRef" in variable["valueFrom"]
    assert container["securityContext"].get("readOnlyRootFilesystem") or name.startswith("mpijob")


def test_names_and_numbers_of_the_indexed_job_fit_together() -> None:
    service, _, job = documents(K8S / "indexed-job.yaml")
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert int(variables["SLIMHEADS_WORKERS"]) == spec["completions"] == spec["parallelism"]
    assert variables["SLIMHEADS_SERVICE"] == service["metadata"]["name"] == spec["template"]["spec"]["subdomain"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    final = {2: "FailJob", 65: "FailJob", 70: "FailJob", 74: "FailJob", 78: "FailJob", 75: "Ignore"}
    rules = [rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert {code: rule["action"] for rule in rules for code in rule["onExitCodes"]["values"]} == final
    assert {code for code, action in final.items() if action == "FailJob"} == HOPELESS


def test_the_kustomizations_name_files_that_exist() -> None:
    for folder in (K8S, K8S / "gpu"):
        (kustomization,) = documents(folder / "kustomization.yaml")
        patches = [patch["path"] for patch in kustomization.get("patches", [])]
        assert all((folder / name).exists() for name in [*kustomization["resources"], *patches])


def test_the_image_ends_as_another_user_than_root_and_copies_what_exists() -> None:
    lines = re.sub(r"\\\n", " ", (K8S / "Dockerfile").read_text()).splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1] == "10001:10001"
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert {"data", "models", "prune", "train", "launch"} <= set(copied)
    assert [word for word in copied if not (REPOSITORY / word).exists()] == []


class Pods:
    """Two network namespaces joined by a link, each with a host name, a hosts file, an Indexed Job's variables."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = [f"slimheads-{os.getpid()}-{index}" for index in range(2)]
        self._links = [f"sh{os.getpid() % 100000}p{index}" for index in range(2)]
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Pods":
        for name in self._names:
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", self._links[0], "type", "veth", "peer", "name", self._links[1])
        for index, (name, link) in enumerate(zip(self._names, self._links, strict=True)):
            _run("ip", "link", "set", link, "netns", name)
            _run("ip", "-n", name, "addr", "add", f"10.213.7.{index + 1}/24", "dev", link)
            _run("ip", "-n", name, "link", "set", link, "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
        # What the cluster's name service answers.
        (self._folder / "hosts").write_text("127.0.0.1 localhost\n10.213.7.1 job-0.service\n10.213.7.2 job-1.service\n")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                end_process_tree(process)
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def start(self, index: int, *arguments: str) -> subprocess.Popen[str]:
        """A worker as `python -m launch.worker ARGUMENTS` in pod `index`."""
        variables = {
            "JOB_COMPLETION_INDEX": str(index),
            "SLIMHEADS_WORKERS": "2",
            "SLIMHEADS_JOB": "job",
            "SLIMHEADS_SERVICE": "service",
            "SLIMHEADS_SECRET_FILE": str(self._folder / "secret"),
            "OMP_NUM_THREADS": "1",
            "PATH": rank_environment()["PATH"],
            "HOME": str(self._folder),
        }
        (self._folder / "secret").write_text("a secret of this job alone")
        inside = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'
        process = subprocess.Popen(
            [
                *("ip", "netns", "exec", self._names[index], "unshare", "--uts", "--mount"),
                *("sh", "-c", inside, "sh", str(self._folder / "hosts"), f"job-{index}"),
                *(sys.executable, "-m", "launch.worker", *arguments),
            ],
            env=variables,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._processes.append(process)
        return process

    def cut(self) -> None:
        """Nothing arrives any more, and no connection is closed."""
        _run("ip", "-n", self._names[1], "link", "set", self._links[1], "down")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        reason = "network namespaces need root, iproute2 and util-linux"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with Pods(tmp_path) as running:
        yield running


def test_two_pods_train(pods: Pods, tiny_shards: Path, tmp_path: Path) -> None:
    command = ["--", "python", "train/main.py", "--config", str(small_config(tiny_shards, tmp_path))]
    workers = [pods.start(index, *command) for index in (1, 0)]
    outputs = [worker.communicate(timeout=90)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "start 1: 2 ranks on 2 nodes, via 10.213.7.1" in outputs[1]
    keys = [line for rank in (0, 1) for line in (tmp_path / f"run/trace-rank{rank}.jsonl").read_text().splitlines()]
    assert len(keys) == 12  # two epochs of three steps on two ranks
    assert "model saved in" in outputs[1]


def test_a_cut_link_ends_the_job_by_the_watchdog_in_time(pods: Pods, tiny_shards: Path, tmp_path: Path) -> None:
    config = small_config(tiny_shards, tmp_path)
    command = ["--", "python", "train/main.py", "--config", str(config), "schedule.epochs=5000", "watchdog_seconds=8"]
    workers = [pods.start(index, *command) for index in (0, 1)]
    trace = tmp_path / "run/trace-rank1.jsonl"
    deadline = time.monotonic() + 60
    while not (trace.exists() and trace.stat().st_size > 500):
        assert time.monotonic() < deadline
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.02)
    ranks = [child for worker in workers for child in psutil.Process(worker.pid).children(recursive=True)]
    assert len(ranks) == 2
    pods.cut()
    begin = time.monotonic()
    _, running = psutil.wait_procs(ranks, timeout=8 + 5)
    assert running == []
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    # Worker 0 hears its own rank at once; worker 1 also waits whether worker 0 is really gone.
    assert time.monotonic() - begin < 8 + 25
    assert [worker.returncode for worker in workers] == [ExitCode.STUCK, ExitCode.STUCK], outputs
    assert re.search(r"rank 0: no progress for \d+ s in: epoch", outputs[0])
    assert "the last collective that it started:" in outputs[0]
    assert re.search(r"rank 1: no progress for \d+ s in: epoch", outputs[1])
