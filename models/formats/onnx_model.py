"""An exported ONNX file as a torch module, for measuring it where models are measured.

model = OnnxModel("export/model.int8.onnx"); logits = model(images)
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.formats.onnx_graph import INPUT, PIXEL_INPUT, read_metadata


class OnnxModel(nn.Module):
    """Images in, {task: logits} out, computed by onnxruntime on the CPU.

    Attributes: `image_size` (the only one it takes), `takes_pixels` (input uint8 [N, S, S, 3] instead of normalised
    float [N, 3, S, S]), `precision` (fp32 or int8), `tasks` {name: class names}, `model_sha256` (of the weights that it
    was made from).
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        """threads: 0 for one per core. Raises ModelError naming the file."""
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what it has to say comes as an exception, too
        try:
            # Its content and not its name, which may be no text.
            self._session = onnxruntime.InferenceSession(
                Path(path).read_bytes(), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base class
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"{path}: onnxruntime {onnxruntime.__version__} cannot load it ({reason}); it is cut or of a newer "
                "kind: export it again, or update onnxruntime"
            ) from error
        values = read_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        self.path = Path(path)
        self.image_size: int = values["image_size"]
        self.precision: str = values["precision"]
        self.tasks: dict[str, list[str]] = values["tasks"]
        self.model_sha256: str = values["model_sha256"]
        self.takes_pixels = values["input"] == PIXEL_INPUT

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        size = image.shape[1] if self.takes_pixels else image.shape[2]
        if size != self.image_size:
            raise ModelError(f"{self.path}: takes {self.image_size}x{self.image_size} images, not {size}x{size}")
        outputs = self._session.run(None, {INPUT: np.ascontiguousarray(image.cpu().numpy())})
        return {
            task: torch.from_numpy(logits).to(image.device) for task, logits in zip(self.tasks, outputs, strict=True)
        }
