"""The views of a photo that test-time augmentation averages over: a pure function of shard, key and view number.

view = evaluation_view(3, height=348, width=348, shard="000000.tar", key="cats/7")
"""

from dataclasses import replace

from data.images.augment import POLICIES, AugmentParams, Operations, centre_square, draw_view, view_key

_CROPS = Operations(crop_scale=POLICIES["mild"].crop_scale)
_SEED = 0  # not an option: the same photo has the same views in every evaluation


def evaluation_view(number: int, *, height: int, width: int, shard: str, key: str) -> AugmentParams:
    """View 0 is the centre square, 1 its mirror image; then mild random crops, the odd ones mirrored. Pixels."""
    if number < 2:
        view = AugmentParams(*centre_square(height, width))
    else:
        view = draw_view(_CROPS, height=height, width=width, key=view_key(_SEED, shard, key, number))
    return replace(view, flip=number % 2 == 1)
