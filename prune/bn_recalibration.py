"""Batch-norm statistics measured anew, since a pruned network's activations are others than before.

recalibrate(student, batches)
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.channel_groups.narrow import Norm


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace running means and variances by their averages over the batches, each weighted by its images, in place;
    returns how many batches there were.

    batches: images [N, 3, H, W] with N > 1. Dropout stays off. Without a batch the statistics stay as they are.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, Norm)]
    momenta = [norm.momentum for norm in norms]
    count = num_images = 0
    try:
        for images in batches:
            if count == 0:
                for norm in norms:
                    norm.reset_running_stats()
                    norm.train()
            num_images += len(images)
            for norm in norms:
                norm.momentum = len(images) / num_images  # an average in which each image counts the same
            model(images)
            count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    return count
