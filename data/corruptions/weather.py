"""Snow, frost and fog; `Level` says what all corruptions share."""

import functools
import importlib.util
import pathlib

import numpy as np
from PIL import Image

from data.corruptions.blur import centre_zoom, motion_blur
from data.corruptions.colour import luminance

_PHOTOGRAPH_SHRINK = 5


def draw_snow(
    generator: np.random.Generator, image: np.ndarray, *_: float
) -> tuple[np.ndarray, float]:
    """Draw the flakes, standard normal [H, W, 1], and the direction of their fall in degrees."""
    flakes = generator.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    return flakes, generator.uniform(-135, -45)


def snow(
    images: np.ndarray,
    flakes: np.ndarray,
    angles: np.ndarray,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    keep: float,
) -> np.ndarray:
    """Whiten the image, then add falling flakes and the same flakes turned by half a turn.

    Args:
        flakes: float32 [N, H, W, 1], standard normal.
        angles: float [N], degrees, the direction in which the flakes are blurred.
        mean: of the layer of flakes.
        deviation: of the layer of flakes.
        zoom: enlarges the flakes.
        threshold: what lies below it in the layer is no flake.
        radius: of the motion blur, in pixels.
        sigma: of the motion blur, in pixels.
        keep: share of the image that is not whitened.

    Example:
        >>> grey, none = np.full((1, 16, 16, 1), 0.5, np.float32), np.zeros((1, 16, 16, 1))
        >>> float(snow(grey, none, np.zeros(1), 0, 1, 1, 0.5, 2, 1, 0.5)[0, 0, 0, 0])
        0.875
    """
    layer = centre_zoom(mean + deviation * flakes, zoom)
    layer = np.clip(np.where(layer < threshold, np.float32(0), layer), 0, 1)
    layer = motion_blur(layer, angles, radius, sigma)
    white = np.maximum(images, luminance(images) * 1.5 + 0.5)
    return keep * images + (1 - keep) * white + layer + layer[:, ::-1, ::-1]


def frost_photographs() -> tuple[pathlib.Path, ...]:
    """Return the files of frost photographs that the package `imagecorruptions-imaug` installs.

    The package is looked for but not imported.

    Returns:
        The paths in the order of their names, or () where the package is not installed.
    """
    found = importlib.util.find_spec("imagecorruptions")
    if found is None or not found.submodule_search_locations:
        return ()
    folder = pathlib.Path(found.submodule_search_locations[0]) / "frost"
    return tuple(sorted(file for file in folder.glob("frost*.*") if file.suffix != ".py"))


@functools.cache
def _read_photograph(file: pathlib.Path) -> np.ndarray:
    with Image.open(file) as photograph:
        return np.asarray(photograph.convert("RGB"))


def draw_frost(generator: np.random.Generator, image: np.ndarray, *_: float) -> tuple[np.ndarray]:
    """Draw a photograph and, from it, a crop: float32 [H, W, C] in [0, 1], as `image`.

    The photograph is shrunk to a fifth, or less where a fifth would be smaller than the image, by
    taking the middle pixel of each block (what bilinear sampling without a filter does).

    Raises:
        ModuleNotFoundError: the photographs are not installed.
    """
    files = frost_photographs()
    if not files:
        raise ModuleNotFoundError(
            "frost needs the photographs of the package imagecorruptions-imaug, which is not "
            "installed: run `pip install imagecorruptions-imaug`, or leave frost out."
        )
    photograph = _read_photograph(files[generator.integers(len(files))])
    height, width, channels = image.shape
    room = min(photograph.shape[0] // height, photograph.shape[1] // width)
    block = max(1, min(_PHOTOGRAPH_SHRINK, room))
    small = photograph[block // 2 :: block, block // 2 :: block]
    missing = [max(0, side - have) for side, have in zip(image.shape, small.shape, strict=True)]
    small = np.pad(small, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    top = generator.integers(small.shape[0] - height + 1)
    left = generator.integers(small.shape[1] - width + 1)
    crop = small[top : top + height, left : left + width] / np.float32(255)
    return (crop if channels == 3 else luminance(crop),)


def frost(images: np.ndarray, crops: np.ndarray, image_share: float, share: float) -> np.ndarray:
    """Lay a photograph of frost over the image: image_share·x + share·crop.

    Args:
        crops: float32 [N, H, W, C] in [0, 1].
        image_share: weight of the image.
        share: weight of the frost.

    Example:
        >>> frost(np.float32([0.5]), np.float32([1.0]), 0.5, 0.25)
        array([0.5], dtype=float32)
    """
    return image_share * images + share * crops


def draw_fog(generator: np.random.Generator, image: np.ndarray, *_: float) -> tuple[np.ndarray]:
    """Draw U(-1, 1) for each point of a square map, its side the next power of two."""
    side = 1 << (max(image.shape[:2]) - 1).bit_length()
    return (generator.uniform(-1, 1, size=(side, side)).astype(np.float32),)


def plasma_fractal(noise: np.ndarray, decay: float) -> np.ndarray:
    """Make height maps that wrap round at the edges, by the diamond-square method.

    Each new point is the mean of its four neighbours plus noise, whose amplitude falls by decay²
    whenever the distance between points is halved.

    Args:
        noise: float32 [N, S, S] in [-1, 1], S a power of two.
        decay: at least 1; more is smoother.

    Returns:
        float32 [N, S, S], from 0 to 1 in each map.
    """
    heights = np.zeros_like(noise)
    step, amplitude = noise.shape[1], 1.0
    while step >= 2:
        whole, half = slice(None, None, step), slice(step // 2, None, step)
        corners = heights[:, whole, whole]
        # Neighbours in the next row and the next column of corners.
        below, right = np.roll(corners, -1, axis=1), np.roll(corners, -1, axis=2)
        around = corners + below + right + np.roll(below, -1, axis=2)
        centres = around / 4 + amplitude * noise[:, half, half]
        across = corners + right + centres + np.roll(centres, 1, axis=1)
        down = corners + below + centres + np.roll(centres, 1, axis=2)
        heights[:, half, half] = centres
        heights[:, whole, half] = across / 4 + amplitude * noise[:, whole, half]
        heights[:, half, whole] = down / 4 + amplitude * noise[:, half, whole]
        step, amplitude = step // 2, amplitude / decay**2
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)


def fog(images: np.ndarray, noise: np.ndarray, amount: float, decay: float) -> np.ndarray:
    """Add a plasma fractal and scale back: (x + amount·plasma)·max/(max + amount).

    Args:
        images: max is taken over each of them, and is not exceeded.
        noise: float32 [N, S, S] in [-1, 1], S a power of two, at least H and W.
        amount: thickness of the fog.
        decay: see `plasma_fractal`.

    Example:
        >>> noise = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16)).astype(np.float32)
        >>> float(fog(np.ones((1, 16, 16, 1), np.float32), noise, 1.5, 2).max().round(6))
        1.0
    """
    height, width = images.shape[1:3]
    plasma = plasma_fractal(noise, decay)[:, :height, :width, None]
    highest = images.max(axis=(1, 2, 3), keepdims=True)
    return (images + amount * plasma) * (highest / (highest + np.float32(amount)))
