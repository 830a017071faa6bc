"""Counter-based randomness: the same integers give the same numbers on every machine, rank, worker and library version.

    permutation(mix(seed, epoch), 10)

NumPy's generators may change their streams between releases; the order of samples and the augmentation of an image
are promises that outlive a release, so they rest on SplitMix64 (Steele, Lea and Flood, 2014), written out here.
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _scramble(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser on uint64 [...]: every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


def mix(*parts: int | np.ndarray) -> np.ndarray:
    """One 64-bit key from integers (or integer arrays, which broadcast); the order of the parts matters."""
    key = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            if isinstance(part, int):
                part = np.uint64(part & 0xFFFFFFFFFFFFFFFF)  # type: ignore[assignment]
            key = _scramble(key * np.uint64(3) + np.asarray(part).astype(np.uint64) + _GOLDEN)
    return key


def draw_bits(key: int | np.ndarray, count: int) -> np.ndarray:
    """uint64 [..., count]: independent random words for each key of shape [...]."""
    counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    with np.errstate(over="ignore"):
        return _scramble(np.asarray(key, dtype=np.uint64)[..., None] + counters)


def draw_uniform(key: int | np.ndarray, count: int) -> np.ndarray:
    """float64 [..., count] in [0, 1)."""
    return (draw_bits(key, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: int | np.ndarray, count: int) -> np.ndarray:
    """int64 [count]: a permutation of range(count), uniform up to ties among 64-bit words."""
    return np.argsort(draw_bits(key, count), kind="stable")


def text_key(text: str) -> int:
    """A 64-bit key of a string, the same in every process (unlike hash())."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
