"""Draws the contact sheet: strips of small images with captions, and class counts as bars beside them.

Use: `draw_sheet(title, strips, counts, tasks).save("page.png")`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from data.shards.lettering import Font, legible

TEXT, TITLE = 12, 16  # pixels
MARGIN = 16
LINE = 16
BAR_WIDTH = 180
NAME_WIDTH = 170
COUNT_WIDTH = 60
MOST_BARS = 20
COLUMNS = 2
INK, PALE, BAR = (30, 30, 30), (120, 120, 120), (86, 130, 180)


@dataclass(frozen=True)
class Strip:
    """One sample: its images (uint8 [size, size, 3] each; none for a bad sample) and the lines below them."""

    images: Sequence[np.ndarray]
    caption: Sequence[str]


def draw_sheet(
    title: str, strips: Sequence[Strip], counts: Mapping[str, np.ndarray], tasks: Mapping[str, Sequence[str]]
) -> Image.Image:
    """The whole page. `counts` gives for each task the samples per class, and last those whose label is missing."""
    size = max((image.shape[0] for strip in strips for image in strip.images), default=1)
    num_images = max((len(strip.images) for strip in strips), default=1)
    strip_width = num_images * (size + 4) + MARGIN
    strip_height = size + LINE * max(len(strip.caption) for strip in strips) + MARGIN
    panel = NAME_WIDTH + BAR_WIDTH + COUNT_WIDTH
    bars = {task: _bars(tasks[task], counts[task]) for task in tasks}
    panel_height = sum(LINE * (len(lines) + 2) for lines in bars.values())
    top = MARGIN + 2 * LINE
    height = top + max(-(-len(strips) // COLUMNS) * strip_height, panel_height) + MARGIN
    page = Image.new("RGB", (2 * MARGIN + COLUMNS * strip_width + panel, height), "white")
    draw = ImageDraw.Draw(page)
    _write(draw, (MARGIN, MARGIN), title, INK, width=page.width - 2 * MARGIN, size=TITLE)
    for number, strip in enumerate(strips):
        left = MARGIN + number % COLUMNS * strip_width
        upper = top + number // COLUMNS * strip_height
        for place, image in enumerate(strip.images):
            page.paste(Image.fromarray(image), (left + place * (size + 4), upper))
        for line, text in enumerate(strip.caption):
            at = (left, upper + size + line * LINE)
            _write(draw, at, text, INK if line else PALE, width=strip_width - MARGIN)
    left, upper = MARGIN + COLUMNS * strip_width, top
    for task, lines in bars.items():
        _draw_bars(draw, task, lines, left=left, top=upper)
        upper += LINE * (len(lines) + 2)
    return page


def _bars(names: Sequence[str], counts: np.ndarray) -> list[tuple[str, int | None]]:
    """(class, samples) from many to few; of very many classes the middle is left out, and says so with None."""
    order = np.argsort(-counts[:-1], kind="stable")
    bars: list[tuple[str, int | None]] = [(names[number], int(counts[number])) for number in order]
    if len(bars) > MOST_BARS:
        half = MOST_BARS // 2
        bars = [*bars[:half], (f"... {len(bars) - 2 * half} classes between ...", None), *bars[-half:]]
    return [*bars, ("(label missing)", int(counts[-1]))] if counts[-1] else bars


def _draw_bars(
    draw: ImageDraw.ImageDraw,
    task: str,
    bars: Sequence[tuple[str, int | None]],
    *,
    left: int,
    top: int,
) -> None:
    _write(draw, (left, top), f"{task}: samples per class", INK, width=NAME_WIDTH + BAR_WIDTH)
    most = max(count for _, count in bars if count is not None) or 1
    for line, (name, count) in enumerate(bars, start=1):
        upper = top + line * LINE
        _write(draw, (left, upper), name, INK if count else PALE, width=NAME_WIDTH - 8)
        if count is not None:
            length = round(BAR_WIDTH * count / most)
            start = left + NAME_WIDTH
            if length:
                draw.rectangle((start, upper + 3, start + length, upper + LINE - 4), BAR)
            _write(draw, (start + length + 6, upper), f"{count:,}", INK, width=COUNT_WIDTH)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    ink: tuple[int, int, int],
    *,
    width: int,
    size: int = TEXT,
) -> None:
    text, font = legible(text, size)
    draw.text(at, _fit(draw, text, width, font), ink, font)


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: Font) -> str:
    """Cut `text` so that it is at most `width` pixels wide."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."
