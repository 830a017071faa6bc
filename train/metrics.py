"""Per-task accuracy measures from a confusion matrix that adds up over batches and ranks.

counts = TaskCounts(num_classes=11); counts.add(logits, target); counts.report()
"""

import torch
from torch import Tensor
from torch.nn import functional

from train.losses import MISSING


class TaskCounts:
    """Sums over the labelled samples of one task; `flat` is what ranks add up."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes = num_classes
        # confusion matrix [true, predicted], then hits among the top five, then the sum of -log p_y
        self.flat = torch.zeros(num_classes * num_classes + 2, dtype=torch.float64, device=device)

    @property
    def confusion(self) -> Tensor:
        """float64 [num_classes, num_classes], rows are the true classes."""
        return self.flat[:-2].view(self.num_classes, self.num_classes)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """logits [N, C] (log-probabilities do as well), target int64 [N], -1 where the label is missing."""
        valid = target != MISSING
        logits, target = logits[valid].float(), target[valid]
        cells = target * self.num_classes + logits.argmax(dim=1)
        # Work of N: a sum over the whole matrix takes 10 ms of every batch for 1,500 classes.
        self.flat[:-2].index_add_(0, cells, torch.ones_like(cells, dtype=torch.float64))
        if self.num_classes > 5:
            self.flat[-2] += (logits.topk(5, dim=1).indices == target[:, None]).sum()
        self.flat[-1] += functional.cross_entropy(logits, target, reduction="sum")

    def report(self) -> dict[str, float]:
        """top1, top5 (above 5 classes), macro_f1 over the classes that occur, loss, majority (the most frequent class's
        share) and count. Without a labelled sample every measure is NaN."""
        confusion = self.confusion.cpu()
        total = float(confusion.sum())
        true, predicted, hits = confusion.sum(dim=1), confusion.sum(dim=0), confusion.diagonal()
        present = true > 0
        # F1 = 2 TP / (2 TP + FP + FN), and 2 TP + FP + FN is true + predicted.
        f1 = (2 * hits / (true + predicted))[present]
        nan = float("nan")
        report = {"top1": float(hits.sum()) / total if total else nan}
        if self.num_classes > 5:
            report["top5"] = float(self.flat[-2]) / total if total else nan
        report["macro_f1"] = float(f1.mean()) if total else nan
        report["loss"] = float(self.flat[-1]) / total if total else nan
        report["majority"] = float(true.max()) / total if total else nan
        report["count"] = total
        return report
