"""Flat gradient buckets that leave for the other ranks while the backward pass still runs.

    buckets = GradientBuckets(model, comm)
    buckets.zero(); buckets.arm(share=local_samples / all_samples); loss.backward(); buckets.finish()

With several ranks, gradients meet in a few flat tensors, in reverse order of registration, which is about the order in
which the backward pass makes them. When the last gradient of a bucket is there, all are moved in, become views of it,
and its named allreduce starts. Moving them once is cheaper than adding them to zeros. Batch-norm statistics ride behind
the last bucket, weighted by samples, so that the ranks always agree. Alone, gradients stay where autograd left them.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from train.distributed.comm import Comm


class _Bucket:
    """One flat tensor: the gradients of some parameters, and behind them room for `num_extra` more numbers."""

    def __init__(self, name: str, parameters: list[nn.Parameter], num_extra: int) -> None:
        self.name, self.parameters = name, parameters
        num_gradients = sum(parameter.numel() for parameter in parameters)
        self.flat = torch.zeros(num_gradients + num_extra, device=parameters[0].device)
        self.gradients, self.extra = self.flat[:num_gradients], self.flat[num_gradients:]
        self.views = []
        offset = 0
        for parameter in parameters:
            # The parameter's own strides (channels_last weights included), as the optimizer likes them best.
            self.views.append(self.flat.as_strided(parameter.size(), parameter.stride(), offset))
            offset += parameter.numel()
        self.missing = len(parameters)
        self.handle: object | None = None
        self.started = False

    def gather(self) -> None:
        """Gradients move in; that of a parameter which had no part in the loss is 0."""
        present = [(view, p.grad) for view, p in zip(self.views, self.parameters, strict=True) if p.grad is not None]
        if len(present) < len(self.parameters):
            self.gradients.zero_()
        if present:  # a rank without a sample has no gradient at all
            torch._foreach_copy_([view for view, _ in present], [gradient for _, gradient in present])
        for parameter, view in zip(self.parameters, self.views, strict=True):
            parameter.grad = view


class GradientBuckets:
    """The gradients of all trainable parameters, summed in `count` messages; see the module's docstring."""

    def __init__(self, model: nn.Module, comm: Comm, *, count: int = 3) -> None:
        self._comm = comm
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad][::-1]
        if not parameters:
            raise ValueError("no parameter is left to train: every part of the model is frozen")
        self._statistics = flatten_statistics(model, device=parameters[0].device)
        self._kept = self._statistics.clone()
        self._parameters = parameters
        groups = list(_equal_parts(parameters, count)) if comm.size > 1 else []
        self._buckets = [
            _Bucket(f"bucket{number}", group, len(self._statistics) if number == len(groups) - 1 else 0)
            for number, group in enumerate(groups)
        ]
        # After `finish`: all gradients, in as few tensors as there are (statistics not included).
        self.gradients = [bucket.gradients for bucket in self._buckets]
        self._armed = False
        self._share = 1.0
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(self._hook(bucket))

    def zero(self) -> None:
        """Before an update: there are no gradients yet, and the statistics are remembered."""
        self._kept.copy_(self._statistics)
        for parameter in self._parameters:
            parameter.grad = None
        for bucket in self._buckets:
            bucket.missing, bucket.started = len(bucket.parameters), False

    def arm(self, share: float) -> None:
        """Before the last backward pass of an update: buckets leave as they fill. share: this rank's part of the
        update's samples, the weight of its batch-norm statistics."""
        self._armed, self._share = True, share

    def finish(self) -> None:
        """Send what has not left, wait for all sums, take over the averaged statistics."""
        self._armed = False
        if not self._buckets:
            self.gradients = [_own_gradient(parameter) for parameter in self._parameters]
            return
        for bucket in self._buckets:
            if not bucket.started:
                self._send(bucket)
        for bucket in self._buckets:
            self._comm.wait(bucket.handle)
        self._statistics.copy_(self._buckets[-1].extra)

    def weigh(self, weight: float) -> None:
        """The statistics move by this share of what the update made of them, as if the norms had that part of their
        momentum."""
        if weight < 1:
            torch.lerp(self._kept, self._statistics, weight, out=self._statistics)

    def take_back(self, skipped: Tensor) -> None:
        """Where an update is skipped (1.0), the statistics of its activations, as broken as they, go too."""
        torch.where(skipped > 0, self._kept, self._statistics, out=self._statistics)

    def norm(self) -> Tensor:
        """The L2 norm of all gradients, a scalar on the device; not finite if any gradient is not."""
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self.gradients)))

    def _hook(self, bucket: _Bucket) -> Callable[[Tensor], None]:
        def arrived(_: Tensor) -> None:
            if self._armed:
                bucket.missing -= 1
                if bucket.missing == 0:
                    self._send(bucket)

        return arrived

    def _send(self, bucket: _Bucket) -> None:
        bucket.gather()
        if len(bucket.extra):
            torch.mul(self._statistics, self._share, out=bucket.extra)
        bucket.started = True
        bucket.handle = self._comm.allreduce_async(bucket.flat, name=bucket.name)


def _own_gradient(parameter: nn.Parameter) -> Tensor:
    """As with several ranks, a parameter that had no part in the loss still has momentum and decay."""
    gradient = parameter.grad
    if gradient is None:
        gradient = parameter.grad = torch.zeros_like(parameter)
    return gradient


def flatten_statistics(model: nn.Module, *, device: torch.device) -> Tensor:
    """Move the float buffers of all parts in training mode into one tensor [n], of which they become views.

    Those of frozen parts stay as they are: averaging them over ranks would only add rounding errors.
    """
    owners = [
        (module, name, buffer)
        for module in model.modules()
        if module.training
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    flat = torch.zeros(sum(buffer.numel() for _, _, buffer in owners), device=device)
    offset = 0
    for module, name, buffer in owners:
        view = flat[offset : offset + buffer.numel()].view_as(buffer)
        view.copy_(buffer)
        setattr(module, name, view)
        offset += buffer.numel()
    return flat


def _equal_parts(parameters: list[nn.Parameter], count: int) -> Iterator[list[nn.Parameter]]:
    """At most `count` groups of neighbours with about the same number of elements."""
    total = sum(parameter.numel() for parameter in parameters)
    group: list[nn.Parameter] = []
    filled = cut = 0
    for parameter in parameters:
        group.append(parameter)
        filled += parameter.numel()
        if filled >= total * (cut + 1) / count:
            yield group
            group, cut = [], cut + 1
    if group:
        yield group
