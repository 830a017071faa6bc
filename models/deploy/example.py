"""Predicts photos with an exported model: `python predict.py photo.jpg [more.jpg ...] [--model model.int8.onnx]`.

Needs onnxruntime, numpy and Pillow, and no other file than the model, which says in its metadata what it expects.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent


def load_photo(path: str, size: int) -> np.ndarray:
    """Upright, the largest centred square, as uint8 [size, size, 3]."""
    with Image.open(path) as file:
        photo = ImageOps.exif_transpose(file).convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR, box=box))


def read_facts(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What the model says of itself."""
    written = session.get_modelmeta().custom_metadata_map
    return {key: json.loads(written[key]) for key in ("image_size", "mean", "std", "tasks")}


def probabilities(session: onnxruntime.InferenceSession, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """One number per class for each task. pixels: uint8 [S, S, 3]."""
    facts = read_facts(session)
    if session.get_inputs()[0].type == "tensor(uint8)":  # the preprocessing is inside the model
        image = pixels[None]
    else:
        normalised = (pixels / 255 - np.array(facts["mean"])) / np.array(facts["std"])
        image = normalised.transpose(2, 0, 1)[None].astype(np.float32)
    answers = {}
    for task, (logits,) in zip(facts["tasks"], session.run(list(facts["tasks"]), {"image": image}), strict=True):
        powers = np.exp(logits - logits.max())
        answers[task] = powers / powers.sum()
    return answers


def main() -> int:
    parser = argparse.ArgumentParser(prog="predict.py", description="Predict photos with an exported model.")
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--model", default=str(HERE / "model.onnx"), help="default: model.onnx beside this file")
    options = parser.parse_args()
    if not Path(options.model).is_file():
        print(f"error: {options.model}: no such file", file=sys.stderr)
        return 2
    session = onnxruntime.InferenceSession(options.model, providers=["CPUExecutionProvider"])
    facts = read_facts(session)
    tasks = facts["tasks"]
    failed = 0
    for path in options.photos:
        try:
            pixels = load_photo(path, facts["image_size"])
        except OSError as error:
            print(f"error: {path}: {error.strerror or 'not a photo'}", file=sys.stderr)
            failed += 1
            continue
        print(path)
        for task, values in probabilities(session, pixels).items():
            best = np.argsort(-values)[:3]
            print(f"  {task}: " + ", ".join(f"{tasks[task][number]} {100 * values[number]:.1f} %" for number in best))
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
