"""Corrupt a batch of images."""

import zlib
from collections.abc import Sequence

import numpy as np

from data.corruptions.severities import ALL19, LEVELS, Level, checked_severities
from data.corruptions.weather import frost_photographs

_SMALLEST_SIDE = 16
# The constants are for about 28 to 64 pixels: blurs of one pixel are none at 224.
_LARGEST_SIDE = 96
# Images are worked on in portions, so that memory does not grow with their number.
_PIXELS_AT_ONCE = 2**19


def corrupt(
    images: np.ndarray,
    corruption: str,
    *,
    severity: int,
    seed: int,
    indices: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Corrupt images; the same seed and index give the same image in any batch and process.

    Args:
        images: uint8 [N, H, W, C], C 1 or 3, sides of 16 to 96 pixels.
        corruption: one of `ALL19`. The constants are those published for 32 pixels.
        severity: 1 to 5.
        seed: at least 0.
        indices: int [N], at least 0: which image of its set each one is. Default: 0 to N - 1.

    Returns:
        uint8 [N, H, W, C].

    Raises:
        ValueError: an argument is not as above.
        ModuleNotFoundError: `frost` is asked for and its photographs are not installed; see
            `skipped`.

    Source: Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
    and Perturbations (2019).

    Example:
        >>> images = np.full((2, 16, 16, 3), 128, np.uint8)
        >>> both = corrupt(images, "gaussian_noise", severity=3, seed=0)
        >>> second = corrupt(images[1:], "gaussian_noise", severity=3, seed=0, indices=[1])
        >>> bool((both[1] == second[0]).all())
        True
    """
    _check_images(images)
    _check_corruption(corruption)
    (severity,) = checked_severities([severity])
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0. Received: seed={seed!r}")
    indices = _checked_indices(indices, len(images))
    # A name's checksum, unlike its place in a list, stays when a corruption is added.
    entropy = (int(seed), zlib.crc32(corruption.encode()), severity)
    corrupted = np.empty_like(images)
    portion = max(1, _PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), portion):
        part = slice(start, start + portion)
        generators = [np.random.default_rng((*entropy, int(index))) for index in indices[part]]
        corrupted[part] = _corrupt_part(images[part], LEVELS[corruption][severity - 1], generators)
    return corrupted


def skipped(corruption: str, channels: int) -> str | None:
    """Say why a corruption is left out here for images of so many channels; None: it is not.

    Example:
        >>> skipped("saturate", channels=1)
        'grey images have no saturation to change'
        >>> skipped("fog", channels=1) is None
        True
    """
    _check_corruption(corruption)
    if corruption == "saturate" and channels == 1:
        return "grey images have no saturation to change"
    if corruption == "frost" and not frost_photographs():
        return "its photographs are not installed (pip install imagecorruptions-imaug)"
    return None


def _corrupt_part(
    images: np.ndarray, level: Level, generators: list[np.random.Generator]
) -> np.ndarray:
    scaled = np.divide(images, 255, dtype=np.float32)
    drawn: list[np.ndarray] = []
    if level.draw is not None:
        draws = [
            level.draw(generator, image, *level.constants)
            for generator, image in zip(generators, scaled, strict=True)
        ]
        drawn = [np.stack(values) for values in zip(*draws, strict=True)]
    corrupted = level.apply(scaled, *drawn, *level.constants)
    return np.rint(np.clip(corrupted, 0, 1) * 255).astype(np.uint8)


def _check_images(images: np.ndarray) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"images must be a NumPy array of uint8. Received: {kind}")
    if images.ndim != 4 or images.shape[3] not in (1, 3) or min(images.shape[1:3]) < _SMALLEST_SIDE:
        raise ValueError(
            "images must have the shape [N, H, W, C] with C 1 or 3 and H and W of at least "
            f"{_SMALLEST_SIDE}. Received: shape {list(images.shape)}"
        )
    if max(images.shape[1:3]) > _LARGEST_SIDE:
        raise ValueError(
            f"images must have sides of at most {_LARGEST_SIDE} pixels, since the constants are "
            f"those for 32. Received: shape {list(images.shape)}; load them with a smaller "
            "image_size, or corrupt them with imagecorruptions-imaug, which is made for 224"
        )


def _check_corruption(corruption: str) -> None:
    if corruption not in ALL19:
        raise ValueError(
            f"corruption must be one of {', '.join(ALL19)}. Received: corruption={corruption!r}"
        )


def _checked_indices(indices: Sequence[int] | np.ndarray | None, count: int) -> np.ndarray:
    if indices is None:
        return np.arange(count)
    indices = np.asarray(indices)
    whole = indices.size == 0 or np.issubdtype(indices.dtype, np.integer)
    if indices.shape != (count,) or not whole or (indices < 0).any():
        raise ValueError(
            f"indices must be {count} whole numbers of at least 0, one per image. "
            f"Received: shape {list(indices.shape)}, {indices.dtype}"
        )
    return indices
