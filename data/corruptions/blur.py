"""The blurs: Gaussian, defocus, motion, zoom and frosted glass; `Level` says what all share."""

import numpy as np
from scipy import ndimage


def gaussian_blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian cut at four deviations; beyond the edge, the edge goes on.

    Args:
        sigma: standard deviation in pixels.

    Example:
        >>> dot = np.zeros((1, 9, 9, 1), np.float32)
        >>> dot[0, 4, 4, 0] = 1
        >>> round(float(gaussian_blur(dot, 1.0)[0, 4, 4, 0]), 3)   # 1/(2π)
        0.159
    """
    return ndimage.gaussian_filter(images, sigma=(0, sigma, sigma, 0), mode="nearest")


def disk_kernel(radius: float, alias_blur: float) -> np.ndarray:
    """Return the kernel of a lens out of focus: a disk, smoothed by three taps of a Gaussian.

    Args:
        radius: of the disk, in pixels.
        alias_blur: standard deviation of the smoothing, in pixels.

    Returns:
        float64 [2⌊radius⌋ + 3, 2⌊radius⌋ + 3], with sum 1.
    """
    reach = int(radius) + 1
    offsets = np.arange(-reach, reach + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    taps = np.exp(-np.array([1, 0, 1]) / (2 * alias_blur**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, taps / taps.sum(), axis=axis, mode="constant")
    return disk / disk.sum()


def defocus_blur(images: np.ndarray, radius: float, alias_blur: float) -> np.ndarray:
    """Convolve with an anti-aliased disk; the edges are mirrored.

    Args:
        radius: of the disk, in pixels.
        alias_blur: see `disk_kernel`.

    Example:
        >>> bool(np.allclose(defocus_blur(np.ones((1, 16, 16, 3), np.float32), 1, 0.2), 1))
        True
    """
    kernel = disk_kernel(radius, alias_blur)
    return ndimage.correlate(images, kernel[None, :, :, None], mode="mirror")


def draw_motion(generator: np.random.Generator, image: np.ndarray, *_: float) -> tuple[float]:
    """Draw the direction of the motion, in degrees: U(-45, 45)."""
    return (generator.uniform(-45, 45),)


def motion_blur(images: np.ndarray, angles: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """Average along a line of 2·radius + 1 whole pixels with one half of a Gaussian as weight.

    Args:
        angles: float [N], degrees; 0 looks to the right, 90 downwards.
        radius: half of the length of the line, in pixels.
        sigma: standard deviation of the weight along the line, in pixels.

    Beyond the edge, the edge goes on. The line is that of ImageMagick's `MotionBlurImage`.

    Example:
        >>> dot = np.zeros((1, 16, 16, 1), np.float32)
        >>> dot[0, 8, 8, 0] = 1
        >>> motion_blur(dot, np.array([0.0]), 1, 1.0)[0, 8, 5:10, 0].round(3)
        array([0.   , 0.078, 0.348, 0.574, 0.   ], dtype=float32)
    """
    height, width = images.shape[1:3]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    border = (2 * radius, 2 * radius)
    padded = np.pad(images, ((0, 0), border, border, (0, 0)), mode="edge")
    radians = np.deg2rad(angles)[:, None]
    rows = 2 * radius + np.ceil(steps * np.sin(radians) - 0.5).astype(int)
    columns = 2 * radius + np.ceil(steps * np.cos(radians) - 0.5).astype(int)
    blurred = np.zeros_like(images)
    for target, source, tops, lefts in zip(blurred, padded, rows, columns, strict=True):
        for weight, top, left in zip(weights, tops, lefts, strict=True):
            target += weight * source[top : top + height, left : left + width]
    return blurred


def centre_zoom(images: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge about the centre by a factor of at least 1, bilinearly, at the same size."""
    for axis in (1, 2):
        size = images.shape[axis]
        centre = (size - 1) / 2
        position = centre + (np.arange(size) - centre) / factor
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, size - 1)
        shape = (1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1)
        share = (position - low).astype(np.float32).reshape(shape)
        images = images.take(low, axis) * (1 - share) + images.take(high, axis) * share
    return images


def zoom_blur(images: np.ndarray, limit: float) -> np.ndarray:
    """Average the image with its centre zooms by 1, 1.01, 1.02, … below `limit`.

    Args:
        limit: the first zoom that is left out, more than 1.

    The published zooms round the crop to whole pixels, so that the first ones change nothing at
    32 pixels; these are exact at every size.

    Example:
        >>> bool(np.allclose(zoom_blur(np.ones((1, 16, 16, 3), np.float32), 1.26), 1))
        True
    """
    hundredths = round((limit - 1) * 100)
    total = images.copy()
    for step in range(hundredths):
        total += centre_zoom(images, 1 + step / 100)
    return total / np.float32(hundredths + 1)


def draw_swaps(
    generator: np.random.Generator, image: np.ndarray, sigma: float, reach: int, rounds: int
) -> tuple[np.ndarray]:
    """Draw where each inner pixel's partner lies: int [rounds · pixels, 2] in [-reach, reach]."""
    height, width = image.shape[:2]
    swaps = rounds * (height - 2 * reach) * (width - 2 * reach)
    return (generator.integers(-reach, reach, size=(swaps, 2), endpoint=True),)


def glass_blur(
    images: np.ndarray, offsets: np.ndarray, sigma: float, reach: int, rounds: int
) -> np.ndarray:
    """Blur, swap each pixel in turn with a neighbour, blur again.

    Args:
        offsets: int [N, rounds · (H - 2·reach) · (W - 2·reach), 2], the neighbours' rows and
            columns relative to the pixel, in [-reach, reach].
        sigma: of both Gaussian blurs, in pixels.
        reach: greatest distance of a neighbour along each axis, in pixels.
        rounds: times that all pixels are swapped, from the last to the first.

    Example:
        >>> still = np.zeros((1, 14 * 14, 2), int)
        >>> bool(glass_blur(np.ones((1, 16, 16, 1), np.float32), still, 0.05, 1, 1).all())
        True
    """
    count, height, width, channels = images.shape
    inner = np.arange(height * width).reshape(height, width)[reach:-reach, reach:-reach]
    pixels = np.tile(inner.ravel()[::-1], rounds)
    partners = pixels[:, None] + (offsets[..., 0] * width + offsets[..., 1]).T
    # One column per image: the swaps depend on each other, the images do not.
    origin = np.repeat(np.arange(height * width)[:, None], count, axis=1)
    everyone = np.arange(count)
    for pixel, partner in zip(pixels, partners, strict=True):
        moved = origin[partner, everyone]
        origin[partner, everyone] = origin[pixel]
        origin[pixel] = moved
    flat = gaussian_blur(images, sigma).reshape(count, height * width, channels)
    return gaussian_blur(flat[everyone[:, None], origin.T].reshape(images.shape), sigma)
