"""What a checkpoint holds, and how all ranks take it up again.

state = RunState(model=model, optimizer=optimizer, progress=progress, ...)
store.save(state.tensors(), state.values(), step=17); resume(store, state, comm)
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from data.images.transform import FIRST_PIXEL_VERSION, PIXEL_VERSION
from train.checkpoint.progress import Progress
from train.checkpoint.store import CheckpointStore, digest, flatten_optimizer, restore_optimizer
from train.distributed.comm import Comm
from train.errors import CheckpointError
from train.optim.ema import Ema
from train.optim.grad_scaler import LossScale

_SHOWN = 300  # characters of torch's list of weights that do not fit


class RunState:
    """The live objects of a run; the same on every rank."""

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        ema: Ema[Any] | None,
        scale: LossScale | None,
        wandb_id: str,
        data: str,
        other_data_allowed: bool = False,
    ) -> None:
        self.model, self.optimizer, self.progress = model, optimizer, progress
        self.ema, self.scale, self.wandb_id = ema, scale, wandb_id
        self.data, self.other_data_allowed = data, other_data_allowed  # data: the index's fingerprint

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= flatten_optimizer(self.optimizer, self.model)
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.model.state_dict().items()}
        if self.scale is not None:
            tensors |= {f"scale.{name}": tensor for name, tensor in self.scale.state_dict().items()}
        return tensors

    def values(self) -> dict[str, Any]:
        return {
            "progress": asdict(self.progress),
            "wandb_id": self.wandb_id,
            "optimizer": type(self.optimizer).__name__,
            "data": self.data,
            "pixel_version": PIXEL_VERSION,
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Raises CheckpointError where the checkpoint is of another network or optimizer. A moving average or a loss
        scale that it does not have, because the config got it since, starts from the checkpoint's weights or afresh."""
        if values["data"] != self.data and not self.other_data_allowed:
            raise CheckpointError(
                "the training shards are not the ones that the run began with (photos, labels or classes differ), so "
                "the rest of the epoch is not known; bring them back, or say run.allow_changes=true"
            )
        pixels = values.get("pixel_version", FIRST_PIXEL_VERSION)
        if pixels != PIXEL_VERSION and not self.other_data_allowed:
            raise CheckpointError(
                f"the run began with photos of pixel version {pixels}, this Slimheads crops and resizes them by "
                f"version {PIXEL_VERSION}; go on with the one that began it, or say run.allow_changes=true"
            )
        kind = type(self.optimizer).__name__
        if values["optimizer"] != kind:
            raise CheckpointError(f"the checkpoint was made with {values['optimizer']}, optimizer.kind is now {kind}")
        try:
            self.model.load_state_dict(_part(tensors, "model."))
        except RuntimeError as error:
            what = " ".join(str(error).split())[:_SHOWN]
            raise CheckpointError(f"the checkpoint is of another network than the config's ({what})") from error
        restore_optimizer(self.optimizer, self.model, tensors)
        if self.ema is not None:
            self.ema.model.load_state_dict(_part(tensors, "ema.") or _part(tensors, "model.student."))
        if self.scale is not None and (scale := _part(tensors, "scale.")):
            self.scale.load_state_dict(scale)
        progress = dict(values["progress"])
        # What checkpoints of earlier versions lack, or call otherwise.
        progress.setdefault("num_updates", progress["step"])
        if "waited" in progress:
            progress["num_bad_epochs"] = progress.pop("waited")
        for name, value in progress.items():
            setattr(self.progress, name, value)
        self.wandb_id = values["wandb_id"]


def resume(store: CheckpointStore, state: RunState, comm: Comm) -> list[str]:
    """Every rank loads the newest checkpoint that rank 0 finds good; ranks whose bits differ are an error.

    (Loading on rank 0 and broadcasting makes ranks diverge: an optimizer without state takes another path.) Returns
    what rank 0 found wrong with newer files. Without a checkpoint the ranks compare their fresh state.
    """
    if comm.rank == 0:
        store.remove_partial()
    found: Any = store.newest_good() if comm.rank == 0 else None
    step, warnings = comm.allgather_object(found, name="resume.step")[0]
    error = None
    if step is not None:
        try:
            state.restore(*store.load(step))
        except CheckpointError as mistake:
            error = str(mistake)
    errors = comm.allgather_object(error, name="resume.trouble")
    if any(errors):
        rank = next(rank for rank, text in enumerate(errors) if text)
        hint = "is the run folder shared by all hosts?" if not errors[0] else "take another run.dir to start anew"
        raise CheckpointError(f"rank {rank} cannot continue: {errors[rank]}; {hint}")
    digests = comm.allgather_object([digest(state.tensors()), state.data], name="resume.digest")
    odd = [rank for rank, value in enumerate(digests) if value != digests[0]]
    if odd:
        raise CheckpointError(
            f"ranks {odd} start from other weights or shards than rank 0; compare their code, torch and folders"
        )
    return list(warnings)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
