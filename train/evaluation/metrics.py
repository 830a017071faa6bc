"""Per-task accuracy measures from a confusion matrix that adds up over batches and ranks.

counts = TaskCounts(11, device); counts.add(logits, target); counts.report()
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from data.index.labels import MISSING
from train.evaluation.answer import NO_ANSWER, answer


class TaskCounts:
    """Sums over the labelled samples of one task; `flat` is what ranks add up. class_values: of an ordered task."""

    def __init__(self, num_classes: int, device: torch.device, *, class_values: Sequence[float] | None = None) -> None:
        self.num_classes, self._class_values = num_classes, class_values
        # [true, predicted or no answer], then hits among the top five, then the sum of -log p_y
        self.flat = torch.zeros(num_classes * (num_classes + 1) + 2, dtype=torch.float64, device=device)

    @property
    def _answers(self) -> Tensor:
        return self.flat[:-2].view(self.num_classes, self.num_classes + 1)

    @property
    def confusion(self) -> Tensor:
        """float64 [num_classes, num_classes], rows are the true classes; samples without an answer are in none."""
        return self._answers[:, :-1]

    @property
    def support(self) -> Tensor:
        """float64 [num_classes], samples of each class; those without an answer among them."""
        return self._answers.sum(dim=1)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """logits [N, C] (log-probabilities do as well), target int64 [N], -1 where the label is missing."""
        valid = target != MISSING
        logits, target = logits[valid].float(), target[valid]
        chosen = answer(logits)
        answered = chosen != NO_ANSWER
        cells = target * (self.num_classes + 1) + torch.where(answered, chosen, self.num_classes)
        # Work of N: a sum over the whole matrix takes 10 ms of every batch for 1,500 classes.
        self.flat[:-2].index_add_(0, cells, torch.ones_like(cells, dtype=torch.float64))
        if self.num_classes > 5:
            among_five = (logits.topk(5, dim=1).indices == target[:, None]).any(dim=1)
            self.flat[-2] += (among_five & answered).sum()
        self.flat[-1] += functional.cross_entropy(logits, target, reduction="sum")

    def report(self) -> dict[str, float]:
        """top1, top5 (above 5 classes), macro_f1 over the classes that occur, loss, majority (the most frequent class's
        share), count, and no_answer: how many of them have logits that are not finite. Those are wrong, and with one
        of them the loss is NaN. Without a labelled sample every measure is NaN. Of an ordered task also
        mean_absolute_error, the mean over the samples of |value of the most probable class - value of the label|; an
        answer that is no number has no error, so with one of them it is NaN, too."""
        answers = self._answers.cpu()
        total, no_answer = float(answers.sum()), float(answers[:, -1].sum())
        true, predicted, hits = answers.sum(dim=1), answers.sum(dim=0)[:-1], answers.diagonal()
        present = true > 0
        # F1 = 2 TP / (2 TP + FP + FN), and 2 TP + FP + FN is true + predicted.
        f1 = (2 * hits / (true + predicted))[present]
        nan = float("nan")
        report = {"top1": float(hits.sum()) / total if total else nan}
        if self.num_classes > 5:
            report["top5"] = float(self.flat[-2]) / total if total else nan
        report["macro_f1"] = float(f1.mean()) if total else nan
        if self._class_values is not None:
            values = torch.tensor(self._class_values, dtype=torch.float64)
            errors = (answers[:, :-1] * (values[:, None] - values).abs()).sum()
            report["mean_absolute_error"] = float(errors) / total if total and not no_answer else nan
        report["loss"] = float(self.flat[-1]) / total if total and not no_answer else nan
        report["majority"] = float(true.max()) / total if total else nan
        report["count"], report["no_answer"] = total, no_answer
        return report
