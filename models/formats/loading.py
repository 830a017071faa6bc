"""Any saved or exported model, ready to be asked: a folder, `.onnx`, `.uint8.safetensors` or `.pte`.

loaded = load_model("export/model.int8.onnx"); loaded.model(images)
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from models.artifact import ArtifactMeta, load_artifact, load_artifact_meta
from models.errors import ModelError
from models.formats.manifest import require_as_written
from models.formats.weight_storage import SUFFIX, read_uint8
from models.student import build_student


@dataclass(frozen=True)
class LoadedModel:
    """model: normalised images [N, 3, S, S] (or, where takes_pixels, uint8 [N, S, S, 3]) -> {task: logits}.

    meta: with the file's own hash. precision and image_size: what the file is bound to, None where it is free.
    """

    model: nn.Module
    meta: ArtifactMeta
    precision: str | None = None
    image_size: int | None = None
    takes_pixels: bool = False


def load_model(path: str | Path, *, threads: int = 0) -> LoadedModel:
    """By the kind of the file. threads: of onnxruntime or ExecuTorch, 0 for one per core. ModelError for what is
    missing, cut, damaged, or not beside the model.json it was made with."""
    path = Path(path)
    if path.name.endswith((SUFFIX, ".onnx", ".pte")):
        require_as_written(path)
    if path.name.endswith(SUFFIX):
        return _load_uint8(path)
    if path.suffix == ".onnx":
        return _load_onnx(path, threads)
    if path.suffix == ".pte":
        return _load_program(path, threads)
    return LoadedModel(*load_artifact(path))


def _load_uint8(path: Path) -> LoadedModel:
    tensors, model_sha256 = read_uint8(path)
    meta = _meta_beside(path, model_sha256)
    model = build_student(**meta.architecture)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{path}: the tensors do not fit the network in model.json beside it: {error}") from error
    return LoadedModel(model.eval(), meta)


def _load_onnx(path: Path, threads: int) -> LoadedModel:
    try:
        from models.formats.onnx_model import OnnxModel
    except ImportError as error:
        raise ModelError(f"{path}: needs onnxruntime ({error}); pip install 'slimheads[export]'") from error
    model = OnnxModel(path, threads=threads)
    return LoadedModel(
        model,
        _meta_beside(path, model.model_sha256),
        precision=model.precision,
        image_size=model.image_size,
        takes_pixels=model.takes_pixels,
    )


def _load_program(path: Path, threads: int) -> LoadedModel:
    from models.formats.executorch import ProgramModel

    model = ProgramModel(path, threads=threads)
    return LoadedModel(
        model, _meta_beside(path, model.model_sha256), precision=model.precision, image_size=model.image_size
    )


def _meta_beside(path: Path, model_sha256: str) -> ArtifactMeta:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    meta = load_artifact_meta(path.parent)
    if meta.sha256 != model_sha256:
        raise ModelError(f"{path}: was made from another model than model.json beside it; export it again")
    return replace(meta, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
