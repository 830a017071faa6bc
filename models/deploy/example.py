"""Predicts photos with an exported model: `python predict.py photo.jpg [more.jpg ...] [--model model.int8.onnx]`.

Needs onnxruntime, numpy and Pillow, and no other file than the model, which says in its metadata what it expects.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
MAX_PIXELS = 64_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would warn at one size and raise at another


def load_photo(path: str, size: int) -> np.ndarray:
    """Upright, the largest centred square, as uint8 [size, size, 3].

    As the model was measured: a large JPEG is decoded at a half, a quarter or an eighth of its size, and the rest of
    the shrinking is linear, or an average where it is to less than a half. Pixels are 0.1 grey levels apart on average.
    (Three eighths are beyond Pillow: in a JPEG of 2.7 to 4 times the model's size they are up to 5 levels apart.)
    Raises ValueError above MAX_PIXELS, OSError for what is no photo.
    """
    with Image.open(path) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"image of {file.width}x{file.height} is larger than the limit of {MAX_PIXELS:,} pixels")
        lies = file.getexif().get(0x0112, 1) >= 5  # the orientations that turn it by a quarter
        width, height = file.size[::-1] if lies else file.size
        file.draft("RGB", (size, size))
        photo = np.asarray(to_rgb(ImageOps.exif_transpose(file)), dtype=np.float32)
    side = min(height, width)
    rows, columns = centre(height, photo.shape[0], side), centre(width, photo.shape[1], side)
    photo = photo[rows, columns]
    averaged = max(photo.shape[:2]) > 2 * size
    vertical, horizontal = (resize_taps(length, size, averaged) for length in photo.shape[:2])
    photo = np.tensordot(vertical, photo, axes=(1, 0))
    photo = np.tensordot(photo, horizontal, axes=(1, 1)).transpose(0, 2, 1)
    return np.rint(photo).clip(0, 255).astype(np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    """16 bits scaled to 8, transparency on white."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips at 255
        scaled = np.rint(np.asarray(image) / 257).clip(0, 255)
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def centre(length: int, decoded: int, side: int) -> slice:
    """The centred `side` of `length` pixels where only `decoded` of them were decoded."""
    scale = decoded / length
    first = int((length - side) // 2 * scale)
    return slice(first, first + max(1, round(side * scale)))


def resize_taps(length: int, size: int, averaged: bool) -> np.ndarray:
    """How much of each pixel goes into each new one, float32 [size, length]."""
    scale, pixels = length / size, np.arange(length)
    if averaged:
        before = np.clip(np.arange(size + 1)[:, None] * scale - pixels, 0, 1)  # the part of a pixel before each border
        taps = (before[1:] - before[:-1]) / scale
    else:
        places = np.clip((np.arange(size) + 0.5) * scale - 0.5, 0, length - 1)
        taps = np.maximum(0, 1 - np.abs(places[:, None] - pixels))
    return taps.astype(np.float32)


def require_whole(path: str) -> None:
    """Raises ValueError where the export.json beside the model, if there is one, lists another content for it."""
    model = Path(path)
    report = model.with_name("export.json")
    listed = json.loads(report.read_bytes()).get("files", {}).get(model.name) if report.is_file() else None
    if listed not in (None, hashlib.sha256(model.read_bytes()).hexdigest()):
        raise ValueError(f"{path}: is not the file that export.json beside it lists (damaged?); export the model again")


def load_session(path: str) -> onnxruntime.InferenceSession:
    """Raises ValueError, in one line, for a file that this onnxruntime cannot run."""
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4  # what it has to say comes as an exception, too
    try:
        return onnxruntime.InferenceSession(path, sess_options=quiet, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot run it ({reason}); "
            "if it is not cut, pip install --upgrade onnxruntime"
        ) from error


def read_facts(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What the model says of itself. Raises ValueError for a model of another origin."""
    written = session.get_modelmeta().custom_metadata_map
    try:
        return {key: json.loads(written[key]) for key in ("image_size", "mean", "std", "tasks")}
    except KeyError as error:
        raise ValueError(f"the model does not say its {error}; this file reads those of models.export") from error


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
    try:
        require_whole(options.model)
        session = load_session(options.model)
        facts = read_facts(session)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tasks = facts["tasks"]
    failed = 0
    for path in options.photos:
        try:
            pixels = load_photo(path, facts["image_size"])
        except OSError as error:
            print(f"error: {path}: {error.strerror or 'not a photo'}", file=sys.stderr)
            failed += 1
            continue
        except ValueError as error:
            print(f"error: {path}: {error}", file=sys.stderr)
            failed += 1
            continue
        print(path)
        for task, values in probabilities(session, pixels).items():
            best = np.argsort(-values)[:3]
            print(f"  {task}: " + ", ".join(f"{tasks[task][number]} {100 * values[number]:.1f} %" for number in best))
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
