"""Magnitude pruning of single weights, for comparison: it leaves every layer as wide and as slow as it was.

sparse = without_small_weights(student, ratio=0.6)
"""

import copy

import torch
from torch import nn
from torch.nn.utils import prune

from models.student import Student


def without_small_weights(student: Student, *, ratio: float) -> Student:
    """A copy whose smallest `ratio` of all convolution and linear weights together are zero (Han et al. 2015)."""
    pruned = copy.deepcopy(student)
    weights = [(module, "weight") for module in pruned.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=ratio)
    for module, name in weights:
        prune.remove(module, name)
    return pruned


def share_of_zeros(student: Student) -> float:
    """Of all convolution and linear weights."""
    weights = torch.cat(
        [module.weight.flatten() for module in student.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    )
    return float((weights == 0).double().mean())
