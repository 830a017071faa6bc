"""What a checkpoint holds, and how all ranks take it up again.

saved = SavedState(model=..., optimizer=..., progress=...); store.save(saved.tensors(), saved.values(), step=17)
resume(store, saved, comm)
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from train.checkpoint import CheckpointError, CheckpointStore, digest, flatten_optimizer, restore_optimizer
from train.comm import Comm
from train.ema import Ema
from train.loss_scale import LossScale
from train.trainer import Progress


class SavedState:
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
    ) -> None:
        self.model, self.optimizer, self.progress = model, optimizer, progress
        self.ema, self.scale, self.wandb_id = ema, scale, wandb_id

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= flatten_optimizer(self.optimizer)
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.model.state_dict().items()}
        if self.scale is not None:
            tensors |= {f"scale.{name}": tensor for name, tensor in self.scale.state_dict().items()}
        return tensors

    def values(self) -> dict[str, Any]:
        return {"progress": asdict(self.progress), "wandb_id": self.wandb_id}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        self.model.load_state_dict(_part(tensors, "model."))
        restore_optimizer(self.optimizer, tensors)
        if self.ema is not None:
            self.ema.model.load_state_dict(_part(tensors, "ema."))
        if self.scale is not None:
            self.scale.load_state_dict(_part(tensors, "scale."))
        for name, value in values["progress"].items():
            setattr(self.progress, name, value)
        self.wandb_id = values["wandb_id"]


def resume(store: CheckpointStore, saved: SavedState, comm: Comm) -> list[str]:
    """Every rank loads the newest checkpoint that rank 0 finds good; ranks whose bits differ are an error.

    (Loading on rank 0 and broadcasting makes ranks diverge: an optimizer without state takes another path.) Returns
    what rank 0 found wrong with newer files. Without a checkpoint the ranks compare their fresh state.
    """
    found: Any = store.newest_good() if comm.rank == 0 else None
    step, problems = comm.allgather_object(found, name="resume.step")[0]
    trouble = None
    if step is not None:
        try:
            saved.restore(*store.load(step))
        except (CheckpointError, RuntimeError, KeyError) as error:
            trouble = f"rank {comm.rank}: {error}"
    troubles = [text for text in comm.allgather_object(trouble, name="resume.trouble") if text]
    if troubles:
        raise CheckpointError("; ".join(troubles) + ": is the run folder shared by all hosts?")
    digests = comm.allgather_object(digest(saved.tensors()), name="resume.digest")
    odd = [rank for rank, value in enumerate(digests) if value != digests[0]]
    if odd:
        raise CheckpointError(
            f"ranks {odd} start from other weights than rank 0; compare their code, torch and folders"
        )
    return list(problems)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
