"""Freed memory stays with the process: in a process of its own, since nothing takes that back."""

import subprocess
import sys

from tests.conftest import REPOSITORY

FAULTS = """
import resource
import torch
from train.distributed.device import keep_freed_memory
{call}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for megabytes in (1, 40, 200):
        torch.ones(megabytes * 2**18)
for _ in range(5):
    work()
before = faults()
for _ in range(5):
    work()
print(faults() - before)
"""


def page_faults(call: str) -> int:
    command = [sys.executable, "-c", FAULTS.format(call=call)]
    return int(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout)


def test_the_kernel_is_not_asked_again_for_what_was_freed() -> None:
    assert page_faults("keep_freed_memory()") < 100
    assert page_faults("pass") > 1000
