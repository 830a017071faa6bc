"""Augmentation is a pure function of (seed, shard, key, view): same crop, flip and colours everywhere."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from data.images.augment import (
    OPERATION_NAMES,
    POLICIES,
    AugmentParams,
    Operations,
    centre_square,
    draw_params,
    finish,
    view_key,
)
from data.images.resample import Box, resample
from tests.conftest import rank_environment
from tests.photos import pixels

STRONG = POLICIES["strong"]
PINNED_BOX = (3, 61, 283, 326, False)
PINNED_COLOURS = (-7.093046658792719, 1.056318908760423, 0.739715673056624, 0.7826663435963193)
NAMES = [("000000.tar", "cats/7"), ("000001.tar", "cats/7"), ("000000.tar", "h\u00fcnd"), ("", "")]


def views_of(operations: Operations, *, height: int = 300, width: int = 400, count: int = 2000) -> list[AugmentParams]:
    return [
        draw_params(operations, height=height, width=width, key=view_key(0, "a.tar", str(number), 0))
        for number in range(count)
    ]


def render(image: np.ndarray, view: AugmentParams, size: int) -> np.ndarray:
    """As training renders an image that was decoded whole."""
    box = Box(view.top, view.left, view.height, view.width)
    return finish(resample(image, box, height=size, width=size, soft_above=2.0), view)


def drawn() -> list[list]:
    views = [
        draw_params(STRONG, height=300, width=400, key=view_key(seed, shard, key, view))
        for seed in (0, 1)
        for shard, key in NAMES
        for view in range(3)
    ]
    return json.loads(json.dumps([list(asdict(view).values()) for view in views]))


def test_another_process_draws_the_same_views() -> None:
    """With another hash seed, in another order, and after other draws."""
    code = (
        "import json, random; random.random()\n"
        "from tests.data.images.test_augment import drawn, views_of, STRONG\n"
        "views_of(STRONG, count=10); print(json.dumps(drawn()))"
    )
    environment = rank_environment({"PYTHONHASHSEED": "123"})
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == drawn()


def test_the_draws_are_those_of_every_release() -> None:
    """Numbers that may never change: teacher caches of other people rest on them."""
    view = draw_params(STRONG, height=300, width=400, key=view_key(0, "000000.tar", "cats/7", 3))
    assert (view.top, view.left, view.height, view.width, view.flip) == PINNED_BOX
    assert (view.angle, view.brightness, view.contrast, view.saturation) == pytest.approx(PINNED_COLOURS, abs=1e-12)


def test_every_part_of_the_key_counts() -> None:
    keys = {view_key(0, "a", "b", 0), view_key(1, "a", "b", 0), view_key(0, "c", "b", 0), view_key(0, "a", "c", 0)}
    assert len(keys | {view_key(0, "a", "b", 1)}) == 5


@pytest.mark.parametrize("switched_off", [name for name in OPERATION_NAMES if name not in ("crop_scale", "crop_ratio")])
def test_an_operation_switched_off_does_not_move_the_others(switched_off: str) -> None:
    weaker = replace(STRONG, **{switched_off: 0.0})
    name = {"rotate": "angle"}.get(switched_off, switched_off)
    plain = AugmentParams(0, 0, 1, 1)
    for with_it, without in zip(views_of(STRONG, count=50), views_of(weaker, count=50), strict=True):
        assert replace(with_it, **{name: getattr(plain, name)}) == without


def test_the_centre_square_instead_of_a_crop_does_not_move_the_others() -> None:
    weaker = replace(STRONG, crop_scale=None)
    for cropped, centred in zip(views_of(STRONG, count=50), views_of(weaker, count=50), strict=True):
        assert replace(cropped, top=0, left=50, height=300, width=300) == centred


def torchvisions(height: int, width: int, scale: tuple[float, float], *, count: int) -> np.ndarray:
    """[count, 4]: top, left, height, width."""
    image = torch.zeros(1, 1, 1).expand(3, height, width)
    torch.manual_seed(0)
    return np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)])


@pytest.mark.parametrize(
    ("policy", "height", "width", "fallbacks"),
    [
        ("mild", 348, 464, 0.012),
        ("mild", 300, 300, 0.0),
        ("mild", 200, 600, 1.0),  # no box of a legal ratio keeps 64 % of the area
        ("standard", 300, 400, 0.0),
        ("standard", 250, 250, 0.0),
        ("standard", 120, 900, 0.54),
    ],
)
def test_crops_are_spread_as_torchvisions(policy: str, height: int, width: int, fallbacks: float) -> None:
    """Twice as many draws on either side move the share of fallbacks, the means and the quantiles by less than this."""
    count = 4000
    views = views_of(POLICIES[policy], height=height, width=width, count=count)
    ours = np.array([(view.top, view.left, view.height, view.width) for view in views])
    scale = POLICIES[policy].crop_scale
    assert scale is not None
    theirs = torchvisions(height, width, scale, count=count)
    largest = (min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3)))
    fell = [(boxes[:, 2:] == largest).all(axis=1).mean() for boxes in (ours, theirs)]
    error = math.sqrt(2 * max(fell[1] * (1 - fell[1]), 1 / count) / count)  # of a difference of two shares
    assert abs(fell[0] - fell[1]) < 4 * error
    assert fell[0] == pytest.approx(fallbacks, abs=0.01)
    room = np.maximum(1, (height, width) - ours[:, 2:]), np.maximum(1, (height, width) - theirs[:, 2:])
    for mine, other in (
        (ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]),
        (np.log(ours[:, 3] / ours[:, 2]), np.log(theirs[:, 3] / theirs[:, 2])),
        *((ours[:, axis] / room[0][:, axis], theirs[:, axis] / room[1][:, axis]) for axis in (0, 1)),
    ):
        spread = max(mine.std(), other.std(), 1e-9)
        assert abs(mine.mean() - other.mean()) < 4 * spread * math.sqrt(2 / count)
        # Kolmogorov and Smirnov: two samples of one distribution are further apart once in a million times.
        points = np.concatenate([mine, other])
        below = [np.searchsorted(np.sort(one), points, side="right") / count for one in (mine, other)]
        assert np.abs(below[0] - below[1]).max() < 2.7 * math.sqrt(2 / count)


def test_crops_lie_over_the_whole_picture() -> None:
    views = [view for view in views_of(POLICIES["standard"]) if view.height < 150 and view.width < 200]
    down = np.array([view.top / (300 - view.height) for view in views])
    right = np.array([view.left / (400 - view.width) for view in views])
    for place in (down, right):
        assert np.histogram(place, bins=4, range=(0, 1))[0].min() > 0.18 * len(views)
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.1


def test_probabilities_and_ranges_are_the_policys() -> None:
    views = views_of(STRONG)
    assert 0.46 < np.mean([view.flip for view in views]) < 0.54
    assert 0.21 < np.mean([view.erase is not None for view in views]) < 0.29
    angle = np.array([view.angle for view in views])
    assert (angle.min() > -10, angle.max() < 10) == (True, True)
    assert 5.4 < angle.std() < 6.2  # uniform in [-10, 10]: 5.77
    for name in ("brightness", "contrast", "saturation"):
        factor = np.array([getattr(view, name) for view in views])
        assert 0.6 <= factor.min() < 0.62
        assert 1.38 < factor.max() <= 1.4
    erased = [view.erase for view in views if view.erase is not None]
    areas = np.array([height * width for _, _, height, width in erased])
    down = np.array([top / (1 - height) for top, _, height, _ in erased])
    right = np.array([left / (1 - width) for _, left, _, width in erased])
    for place in (down, right):
        assert np.histogram(place, bins=4, range=(0, 1))[0].min() > 0.18 * len(erased)
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.15
    assert (areas.min() >= 0.0199, areas.max() <= 0.2001) == (True, True)


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    size=st.integers(1, 64),
    key=st.integers(0, 2**64 - 1),
    policy=st.sampled_from(sorted(POLICIES)),
)
def test_any_picture_becomes_uint8_rgb_of_the_size(height: int, width: int, size: int, key: int, policy: str) -> None:
    view = draw_params(POLICIES[policy], height=height, width=width, key=key)
    assert view.top >= 0
    assert view.left >= 0
    assert (view.top + view.height <= height, view.left + view.width <= width) == (True, True)
    image = np.full((height, width, 3), (200, 100, 50), dtype=np.uint8)
    out = render(image, view, size)
    assert out.shape == (size, size, 3)
    assert out.dtype == np.uint8


def test_rendering_leaves_the_picture_alone_and_repeats() -> None:
    image = pixels(0, 90, 120)
    before = image.copy()
    for view in views_of(STRONG, height=90, width=120, count=20):
        small = resample(image, Box(0, 0, 90, 120), height=32, width=32)
        kept = small.copy()
        assert np.array_equal(finish(small, view), finish(small, view))
        assert np.array_equal(small, kept)
        assert np.array_equal(render(image, view, 32), render(image, view, 32))
    assert np.array_equal(image, before)


def test_a_flip_mirrors_and_colours_keep_their_channels() -> None:
    image = pixels(1, 64, 64)
    plain = AugmentParams(0, 0, 64, 64)
    assert np.array_equal(render(image, plain, 64), image)
    assert np.array_equal(render(image, replace(plain, flip=True), 64), image[:, ::-1])
    grey = render(image, replace(plain, saturation=0.0), 64).astype(int)
    assert np.abs(grey[..., 0] - grey[..., 2]).max() <= 1
    luma = image @ np.array([0.299, 0.587, 0.114])  # weights of red, green, blue: BGR would be far off
    assert np.abs(grey[..., 0] - luma).max() <= 1
    dark = render(image, replace(plain, brightness=0.5), 64)
    assert np.abs(dark.astype(float) - image / 2).max() <= 1
    flat = render(image, replace(plain, contrast=0.0), 64)
    assert np.ptp(flat) == 0
    assert abs(float(flat[0, 0, 0]) - luma.mean()) <= 1


def test_erasing_paints_its_share_grey() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    out = render(image, AugmentParams(0, 0, 50, 50, erase=(0.2, 0.4, 0.1, 0.2)), 50)
    assert np.all(out[10:15, 20:30] == 128)
    assert (out == 128).all(axis=2).sum() == 50


def test_rotation_turns_counter_clockwise() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 30:] = 255  # a line to the right of the centre
    turned = render(image, AugmentParams(0, 0, 41, 41, angle=10.0), 41)
    row = turned[:, 38, 0].argmax()
    assert 15 <= row <= 18  # 18 pixels out, 10 degrees up: 3.2 rows


def test_views_do_not_depend_on_opencvs_threads() -> None:
    image, view = pixels(2, 400, 500), views_of(STRONG, count=1)[0]
    threads = cv2.getNumThreads()
    try:
        results = []
        for count in (0, 4):
            cv2.setNumThreads(count)
            results.append(render(image, replace(view, angle=3.0), 224))
    finally:
        cv2.setNumThreads(threads)
    assert np.array_equal(*results)


@pytest.mark.parametrize(("height", "width"), [(10, 30), (30, 10), (7, 7), (1, 9)])
def test_the_centre_square_is_the_largest(height: int, width: int) -> None:
    top, left, side, again = centre_square(height, width)
    assert side == again == min(height, width)
    assert abs(2 * top + side - height) <= 1
    assert abs(2 * left + side - width) <= 1
