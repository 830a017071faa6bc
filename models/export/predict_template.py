"""Predicts photos with an exported model: `python predict.py photo.jpg [more.jpg ...] [--model model.int8.onnx]`.

Needs onnxruntime, numpy and Pillow, and no other file than the model, which says in its metadata what it expects.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from data.images.axis import Axis
from data.images.orientation import orientation_of

HERE = Path(__file__).resolve().parent
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would warn at one size and raise at another


class NoAnswer(ValueError):
    """The network's logits are not finite."""


class TooLarge(ValueError):
    """A photo of more than MAX_PIXELS."""


def load_photo(path: str, size: int) -> np.ndarray:
    """Upright, the largest centred square, as uint8 [size, size, 3].

    The pixels that the model was measured on, which are within a grey level of Pillow's bilinear resize of the whole
    photo on average. A JPEG that is large enough is decoded at a half, a quarter or an eighth of its size, but at no
    less than twice the model's. Raises TooLarge above MAX_PIXELS, and Pillow's many kinds of errors for what is no
    photo.
    """
    data = Path(path).read_bytes()
    orientation = orientation_of(data)
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        width, height = file.size
        if width * height > MAX_PIXELS:
            raise TooLarge(f"image of {width}x{height} is larger than the limit of {MAX_PIXELS:,} pixels")
        # Pillow scales a CMYK one, too; training's decoder does not.
        drafted = None if file.mode == "CMYK" else file.draft("RGB", (2 * size, 2 * size))
        scale = 1 if drafted is None else round(width / drafted[1][2])
        photo = np.asarray(to_rgb(file))
    side = min(width, height)
    # The middle of an odd length is half a pixel higher or further left, in the picture, however it lies in the file.
    left = (width - side + (orientation in (2, 3, 7, 8))) // 2
    top = (height - side + (orientation in (3, 4, 6, 7))) // 2
    square = resize(photo, Axis(top / scale, side / scale, size), Axis(left / scale, side / scale, size))
    if orientation >= 5:
        square = square.transpose(1, 0, 2)
    return square[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


def resize(photo: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """The box that the axes say: bilinear and antialiased, uint8 [size, size, 3]."""
    part = photo[rows.first : rows.last, columns.first : columns.last]
    means = average(average(part, 0, rows), 1, columns)
    smoothed = smooth(smooth(np.floor(means + 0.5), 0, rows), 1, columns)
    return interpolate(np.rint(smoothed).clip(0, 255).astype(np.int64), rows, columns)


def average(pixels: np.ndarray, at: int, axis: Axis) -> np.ndarray:
    """Over blocks; the last pixel is repeated to fill the last block."""
    if axis.block == 1:
        return pixels
    pixels = padded(pixels, at, 0, -pixels.shape[at] % axis.block)
    starts = range(0, pixels.shape[at], axis.block)
    return np.add.reduceat(pixels, starts, axis=at, dtype=np.float32) / axis.block


def smooth(pixels: np.ndarray, at: int, axis: Axis) -> np.ndarray:
    taps, length = axis.taps(), pixels.shape[at]
    wider = padded(pixels, at, len(taps) // 2, len(taps) // 2)
    parts = (tap * wider.take(range(first, first + length), axis=at) for first, tap in enumerate(taps))
    return np.asarray(sum(parts))


def interpolate(pixels: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """In OpenCV's whole numbers: weights of 11 bits, four bits dropped after the first direction."""
    left, right, of_left, of_right = neighbours(columns, pixels.shape[1])
    across = (pixels[:, left] * of_left[:, None] + pixels[:, right] * of_right[:, None]) >> 4
    above, below, of_above, of_below = neighbours(rows, pixels.shape[0])
    parts = across[above] * of_above[:, None, None] >> 16, across[below] * of_below[:, None, None] >> 16
    return ((parts[0] + parts[1] + 2) >> 2).astype(np.uint8)


def neighbours(axis: Axis, length: int) -> tuple[np.ndarray, ...]:
    """The two old pixels that each new one lies between, and their weights."""
    places = ((np.arange(axis.size) + 0.5) * axis.ratio - 0.5).astype(np.float32).clip(0, length - 1)
    before = places.astype(int)
    share = places - before
    after = np.minimum(before + 1, length - 1)
    return before, after, np.rint((1 - share) * 2048).astype(np.int64), np.rint(share * 2048).astype(np.int64)


def padded(pixels: np.ndarray, at: int, before: int, after: int) -> np.ndarray:
    """The first and the last pixels repeated."""
    return np.pad(pixels, [(before, after) if axis == at else (0, 0) for axis in range(3)], mode="edge")


def to_rgb(image: Image.Image) -> Image.Image:
    """16 bits scaled to 8, transparency on white."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips at 255
        scaled = np.rint(np.asarray(image) / 257).clip(0, 255)
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


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
        return onnxruntime.InferenceSession(
            Path(path).read_bytes(), sess_options=quiet, providers=["CPUExecutionProvider"]
        )
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
        facts = {key: json.loads(written[key]) for key in ("image_size", "mean", "std", "tasks")}
    except KeyError as error:
        raise ValueError(f"the model does not say its {error}; this file reads those of models.export") from error
    # Of calibrated models; files of earlier versions do not say them.
    return facts | {key: json.loads(written.get(key, "{}")) for key in ("temperatures", "thresholds")}


def probabilities(session: onnxruntime.InferenceSession, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """One number per class for each task, of the logits divided by the task's temperature. pixels: uint8 [S, S, 3].
    Raises NoAnswer where they are not finite."""
    facts = read_facts(session)
    if session.get_inputs()[0].type == "tensor(uint8)":  # the preprocessing is inside the model
        image = pixels[None]
    else:
        normalised = (pixels / 255 - np.array(facts["mean"])) / np.array(facts["std"])
        image = normalised.transpose(2, 0, 1)[None].astype(np.float32)
    answers = {}
    for task, (logits,) in zip(facts["tasks"], session.run(None, {"image": image}), strict=True):
        if not np.isfinite(logits).all():
            raise NoAnswer("the model's answer is not a number")
        powers = np.exp((logits - logits.max()) / facts["temperatures"].get(task, 1.0))
        answers[task] = powers / powers.sum()
    return answers


def shown(path: str) -> str:
    """A path for the screen: bytes that are no text are written as \\xHH."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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
    warnings.simplefilter("ignore")  # what Pillow has to say of broken metadata
    failed = 0
    for path in options.photos:
        try:
            answers = probabilities(session, load_photo(path, facts["image_size"]))
        except NoAnswer as error:
            print(f"error: {shown(path)}: {error}", file=sys.stderr)
            failed += 1
            continue
        except Exception as error:  # Pillow's plugins raise many kinds of errors on broken files
            reason = error.strerror if isinstance(error, OSError) else error if isinstance(error, TooLarge) else None
            print(f"error: {shown(path)}: {reason or 'not a photo'}", file=sys.stderr)
            failed += 1
            continue
        print(shown(path))
        for task, values in answers.items():
            best = np.argsort(-values)[:3]
            named = ", ".join(f"{tasks[task][number]} {100 * values[number]:.1f} %" for number in best)
            # The model is right too rarely where it is so little sure.
            unsure = values.max() < facts["thresholds"].get(task, 0.0)
            print(f"  {task}: " + (f"unsure ({named})" if unsure else named))
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
