"""A student as an ExecuTorch program (.pte) for XNNPACK, PyTorch's own runtime on phones; in float or int8.

    write_program(model, meta, "export/model.pte", image_size=224)
    write_program(model, meta, "export/model.int8.pte", image_size=224, images=images)

Written and run with executorch 1.5.1 beside torch 2.14.1. It is no dependency: its own ones collide with those of the
test tools (hydra-core wants antlr4-python3-runtime 4.9).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.artifact import ArtifactMeta
from models.errors import ModelError
from models.formats.fusing import TaskOutputs, fused
from models.formats.quiet import quiet
from models.student import Student

INSTALL = "pip install 'executorch>=1.5,<1.6'"


def require_executorch() -> None:
    """ModelError where it is not installed."""
    try:
        import executorch.exir  # noqa: F401
    except ImportError as error:
        raise ModelError(f"--format executorch needs the executorch package ({error}): {INSTALL}") from error


def write_program(
    model: Student,
    meta: ArtifactMeta,
    path: str | Path,
    *,
    image_size: int,
    images: Sequence[np.ndarray] | None = None,
) -> int:
    """Write the program for single images and a `.json` beside it that says what it expects; returns its bytes.

    images: batches float32 [N, 3, S, S] to calibrate int8 with (symmetric, weights per channel); None: float.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    example = (torch.zeros(1, 3, image_size, image_size),)
    network: nn.Module = TaskOutputs(fused(model)).eval()
    try:
        with quiet(), torch.no_grad():
            if images is not None:
                network = _quantised(network, example, images)
            lowered = to_edge_transform_and_lower(
                torch.export.export(network, example), partitioner=[XnnpackPartitioner()]
            )
            content = bytes(lowered.to_executorch().buffer)
    except Exception as error:  # torch.export, torchao and executorch share no base class
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{meta.path}: the network does not export to ExecuTorch ({reason})") from error
    path = Path(path)
    path.write_bytes(content)
    values = {
        "precision": "fp32" if images is None else "int8",
        "image_size": image_size,
        "mean": meta.preprocessing["mean"],
        "std": meta.preprocessing["std"],
        "tasks": {task: list(classes) for task, classes in meta.tasks.items()},
        "model_sha256": meta.sha256,
        "temperatures": meta.temperatures,
        "thresholds": meta.thresholds,
    }
    _metadata_file(path).write_text(json.dumps(values, indent=2) + "\n")
    return len(content)


class ProgramModel(nn.Module):
    """Images float [N, 3, S, S] in, {task: logits} out, one image after the other."""

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        """threads: of all programs of this process from now on; 0 leaves them as they are. Raises ModelError."""
        super().__init__()
        require_executorch()
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        if threads:
            # Unsafe for programs that are computing meanwhile. A program takes its threads when it is loaded.
            _unsafe_reset_threadpool(threads)
        self.path = Path(path)
        try:
            values: dict[str, Any] = json.loads(_metadata_file(self.path).read_text())
            self._program = Runtime.get().load_program(self.path)
            self._method = self._program.load_method("forward")
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path}: cannot be loaded, it or its .json is missing or cut ({error})") from error
        self.image_size: int = values["image_size"]
        self.precision: str = values["precision"]
        self.tasks: dict[str, list[str]] = values["tasks"]
        self.model_sha256: str = values["model_sha256"]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if image.shape[2] != self.image_size:
            size = image.shape[2]
            raise ModelError(f"{self.path}: takes {self.image_size}x{self.image_size} images, not {size}x{size}")
        rows = [self._method.execute([one[None].contiguous()]) for one in image.cpu()]
        return {
            task: torch.cat([row[place].clone() for row in rows]).to(image.device)
            for place, task in enumerate(self.tasks)
        }


def _quantised(network: nn.Module, example: tuple[Tensor], images: Sequence[np.ndarray]) -> nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    observed = prepare_pt2e(torch.export.export(network, example).module(), quantizer)
    for batch in images:
        for image in torch.from_numpy(batch):
            observed(image[None])
    return convert_pt2e(observed)


def _metadata_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
