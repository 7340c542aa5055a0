"""Spatter: drops of water or mud on the lens; `Level` says what all corruptions share."""

import numpy as np
from scipy import ndimage

from data.corruptions.colour import luminance

_PALE_TURQUOISE = np.float32([175, 238, 238]) / 255
_MUD_BROWN = np.float32([63, 42, 20]) / 255
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
_FARTHEST = 20
# Mud is opaque where the smoothed drop is at least this thick, and absent elsewhere.
_THICK = 0.8


def draw_spatter(generator: np.random.Generator, image: np.ndarray, *_: float) -> tuple[np.ndarray]:
    """Draw standard normal numbers [H, W] for an image [H, W, C]."""
    return (generator.standard_normal(image.shape[:2], dtype=np.float32),)


def liquid_layer(
    normal: np.ndarray, mean: float, deviation: float, sigma: float, threshold: float
) -> np.ndarray:
    """Smooth noise and keep what exceeds the threshold.

    Args:
        normal: float32 [N, H, W], standard normal.
        mean: of the noise.
        deviation: of the noise.
        sigma: of the Gaussian that smooths it, in pixels.
        threshold: what lies below it is dry.

    Returns:
        float32 [N, H, W], 0 where dry.
    """
    noise = mean + deviation * normal
    smooth = ndimage.gaussian_filter(noise, sigma=(0, sigma, sigma), mode="nearest")
    return np.where(smooth < threshold, np.float32(0), smooth)


def water(
    images: np.ndarray,
    normal: np.ndarray,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    intensity: float,
) -> np.ndarray:
    """Add pale turquoise drops, shaded as if lit from one corner.

    Args:
        normal, mean, deviation, sigma, threshold: of the liquid; see `liquid_layer`.
        intensity: of the brightest point of the drops.

    Where the published drops' edges are found by Canny's method, here an edge is a wet pixel
    beside a dry one.

    Example:
        >>> dry = np.full((1, 16, 16), -9.0, np.float32)
        >>> float(water(np.ones((1, 16, 16, 1), np.float32), dry, 0.6, 0.1, 1, 0.7, 0.5).max())
        1.0
    """
    liquid = liquid_layer(normal, mean, deviation, sigma, threshold)
    drops = liquid * _relief(_edge_distance(liquid > 0))
    highest = drops.max(axis=(1, 2), keepdims=True)
    drops = drops / np.where(highest > 0, highest, 1) * np.float32(intensity)
    return images + drops[..., None] * _tinted(_PALE_TURQUOISE, images)


def mud(
    images: np.ndarray,
    normal: np.ndarray,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    softness: float,
) -> np.ndarray:
    """Cover the image with brown drops.

    Args:
        normal, mean, deviation, sigma, threshold: of the liquid; see `liquid_layer`.
        softness: standard deviation, in pixels, of the Gaussian that smooths the drops' edges.

    Example:
        >>> flood = np.full((1, 16, 16), 9.0, np.float32)
        >>> brown = mud(np.ones((1, 16, 16, 3), np.float32), flood, 0.65, 0.1, 1, 0.7, 0.6)
        >>> (brown[0, 0, 0] * 255).round()
        array([63., 42., 20.], dtype=float32)
    """
    wet = (liquid_layer(normal, mean, deviation, sigma, threshold) > threshold).astype(np.float32)
    cover = ndimage.gaussian_filter(wet, sigma=(0, softness, softness), mode="nearest")
    cover = np.where(cover < _THICK, np.float32(0), cover)[..., None]
    return images * (1 - cover) + cover * _tinted(_MUD_BROWN, images)


def _tinted(colour: np.ndarray, images: np.ndarray) -> np.ndarray:
    return colour if images.shape[-1] == 3 else luminance(colour)


def _edge_distance(wet: np.ndarray) -> np.ndarray:
    """Return the distance [N, H, W] in pixels to the nearest edge of the drops, at most 20."""
    inside = ndimage.binary_erosion(wet, structure=np.ones((1, 3, 3)), border_value=1)
    away = ~(wet & ~inside)
    distances = np.full(wet.shape, _FARTHEST, np.float32)
    for image, result in zip(away, distances, strict=True):
        if not image.all():
            result[:] = ndimage.distance_transform_edt(image)
    return np.minimum(distances, _FARTHEST)


def _relief(distance: np.ndarray) -> np.ndarray:
    """Equalise the distances [N, H, W] of each image, emboss and smooth them: 0 to 255."""
    levels = ndimage.uniform_filter(distance, size=(1, 3, 3), mode="mirror").astype(np.uint8)
    below = np.stack([(levels <= level).sum(axis=(1, 2)) for level in range(_FARTHEST + 1)], axis=1)
    images = np.arange(len(levels))[:, None, None]
    lowest = below[images, levels.min(axis=(1, 2), keepdims=True)]
    spread = np.maximum(levels[0].size - lowest, 1)
    equalised = np.rint(255 * (below[images, levels] - lowest) / spread)
    embossed = np.clip(ndimage.correlate(equalised, _EMBOSS[None], mode="mirror"), 0, 255)
    return ndimage.uniform_filter(embossed, size=(1, 3, 3), mode="mirror").astype(np.float32)
