"""The search finds what comparing all with all finds, and its work stays bounded where thousands look alike."""

import numpy as np
import pytest

from data.images import near_pairs
from data.images.near_pairs import LEAST_CORRELATION, MOST_BITS, equal_values, find_pairs
from data.images.photo_hash import CROPS, PhotoHashes, correlation, crop_hashes


def smooth(count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, 16, 16]: slow waves, as photos have."""
    generator = np.random.default_rng(seed)
    waves = np.cos(np.pi / 16 * np.outer(np.arange(16), np.arange(16) + 0.5))
    strength = 30 / np.maximum(1, np.hypot(*np.mgrid[:16, :16]))
    drawn = generator.standard_normal((count, 16, 16)) * strength
    drawn[:, 0, 0] = 0
    return np.clip(128 + waves.T @ drawn @ waves, 0, 255).astype(np.uint8)


def noisy(thumbnails: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, thumbnails.shape)
    return np.clip(thumbnails + noise, 0, 255).astype(np.uint8)


def bursts(num: int, shots: int) -> np.ndarray:
    """`num` scenes, each with copies that are further and further away, in no order."""
    scenes = smooth(num)
    taken = [noisy(scenes, 4.0 * shot, seed=shot) for shot in range(shots)]
    return np.random.default_rng(1).permutation(np.concatenate(taken))


def by_brute_force(hashes: PhotoHashes) -> dict[tuple[int, int], int]:
    """{pair: bits} of all that the definition calls near-duplicates."""
    found: dict[tuple[int, int], int] = {}
    for crop in range(len(CROPS)):
        bits = np.bitwise_count(crop_hashes(hashes.thumbnail, crop)[:, None] ^ hashes.hash)
        for one, other in np.argwhere(bits <= MOST_BITS):
            if one == other or not hashes.structured[[one, other]].all():
                continue
            alike = correlation(hashes.thumbnail[one][None], hashes.thumbnail[other][None], crop)[0]
            if alike >= LEAST_CORRELATION:
                pair = (min(one, other), max(one, other))
                found[pair] = min(found.get(pair, 64), int(bits[one, other]))
    return found


def is_one_group(count: int, pairs: np.ndarray) -> bool:
    partners: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        partners.setdefault(one, []).append(other)
        partners.setdefault(other, []).append(one)
    reached, waiting = {0}, [0]
    while waiting:
        new = set(partners.get(waiting.pop(), [])) - reached
        reached |= new
        waiting.extend(new)
    return len(reached) == count


@pytest.mark.parametrize("few", [0, 10_000])
def test_the_search_finds_exactly_what_comparing_all_with_all_finds(few, monkeypatch):
    monkeypatch.setattr(near_pairs, "_FEW", few)
    thumbnails = bursts(120, 6)
    thumbnails[5] = 90  # blank
    hashes = PhotoHashes.of(thumbnails)
    assert len(np.unique(hashes.hash)) > 600
    pairs, distances = find_pairs(hashes)
    assert dict(zip(map(tuple, pairs.tolist()), distances.tolist(), strict=True)) == by_brute_force(hashes)


@pytest.mark.parametrize("few", [0, 10_000])
def test_with_sides_every_photo_with_a_partner_elsewhere_has_one_and_no_pair_is_of_one_side(few, monkeypatch):
    monkeypatch.setattr(near_pairs, "_FEW", few)
    hashes = PhotoHashes.of(bursts(120, 6))
    side = np.random.default_rng(2).integers(0, 3, len(hashes))
    pairs, _ = find_pairs(hashes, side=side)
    assert (side[pairs[:, 0]] != side[pairs[:, 1]]).all()
    expected = {
        (photo, side[partner])
        for pair in by_brute_force(hashes)
        for photo, partner in (pair, pair[::-1])
        if side[photo] != side[partner]
    }
    found = {(photo, side[partner]) for pair in pairs.tolist() for photo, partner in (pair, pair[::-1])}
    assert found == expected


@pytest.mark.parametrize("side", [None, np.arange(50_000) % 2])
def test_fifty_thousand_equal_photos_are_one_group_of_hardly_more_pairs(side):
    pairs, distances = find_pairs(PhotoHashes.of(np.repeat(smooth(1), 50_000, axis=0)), side=side)
    assert not distances.any()
    assert is_one_group(50_000, pairs)
    assert len(pairs) < 50_100


def test_thousands_of_shots_of_one_scene_are_one_group_and_their_pairs_are_bounded(monkeypatch):
    monkeypatch.setattr(near_pairs, "_FEW", 0)
    monkeypatch.setattr(near_pairs, "_UNSORTED", 1000)
    hashes = PhotoHashes.of(noisy(np.repeat(smooth(1), 1_500, axis=0), 12))
    assert len(np.unique(hashes.hash)) > 1_000
    pairs, _ = find_pairs(hashes)
    assert is_one_group(1_500, pairs)
    assert len(pairs) < 1_500 * 1_499 / 8


def test_equal_hashes_of_photos_that_do_not_look_alike_are_no_pair(monkeypatch):
    monkeypatch.setattr(near_pairs, "LEAST_CORRELATION", 1.1)
    assert len(find_pairs(PhotoHashes.of(np.repeat(smooth(1), 40, axis=0)))[0]) == 0


def test_no_photos_and_one_photo_have_no_pairs():
    for count in (0, 1):
        pairs, distances = find_pairs(PhotoHashes.of(smooth(2)[:count]))
        assert pairs.shape == (0, 2)
        assert distances.shape == (0,)


def test_equal_values_are_stars_or_pairs_across_sides():
    values = np.array([7, 5, 7, 9, 5, 7])
    assert equal_values(values).tolist() in ([[1, 4], [0, 2], [0, 5]], [[0, 2], [0, 5], [1, 4]])
    side = np.array([0, 0, 0, 0, 0, 1])
    assert equal_values(values, side).tolist() == [[0, 5], [2, 5]]
    assert equal_values(values, np.zeros(6, int)).shape == (0, 2)
