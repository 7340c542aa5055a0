"""Corruptions that move values and colours, pixel by pixel; `Level` says what all share."""

import numpy as np


def luminance(images: np.ndarray) -> np.ndarray:
    """Return the brightness that an eye sees (ITU-R BT.601) of float [..., C] as [..., 1]."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = (images[..., channel, None] for channel in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def brightness(images: np.ndarray, amount: float) -> np.ndarray:
    """Raise the HSV value V, the largest channel, and keep hue and saturation.

    Args:
        images: a grey image is its own V.
        amount: added to V, which is then clipped to [0, 1].

    Example:
        >>> brightness(np.float32([[0.5, 0.25, 0.0]]), 0.25)
        array([[0.75 , 0.375, 0.   ]], dtype=float32)
    """
    value = images.max(axis=-1, keepdims=True)
    brighter = np.clip(value + np.float32(amount), 0, 1)
    # Black has no hue: it becomes grey.
    black = value == 0
    return np.where(black, brighter, images * (brighter / np.where(black, 1, value)))


def saturate(images: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """Replace the HSV saturation S by factor·S + offset and keep hue and value.

    Args:
        images: grey ones come back as they are.
        factor: multiplies S.
        offset: added to it; the result is clipped to [0, 1].

    Returns:
        float32 [N, H, W, C] in [0, 1]. A grey pixel of a colour image has hue 0, which is red.

    Example:
        >>> saturate(np.float32([[0.5, 0.25, 0.25]]), 1.5, 0.0)
        array([[0.5  , 0.125, 0.125]], dtype=float32)
    """
    if images.shape[-1] == 1:
        return images
    value = images.max(axis=-1, keepdims=True)
    spread = value - images.min(axis=-1, keepdims=True)
    saturation = spread / np.where(value == 0, 1, value)
    saturated = np.clip(saturation * np.float32(factor) + np.float32(offset), 0, 1)
    # How far each channel lies below the value, as a share of the spread.
    depth = (value - images) / np.where(spread == 0, 1, spread)
    depth = np.where(spread == 0, np.float32([0, 1, 1]), depth)
    return value * (1 - depth * saturated)


def contrast(images: np.ndarray, factor: float) -> np.ndarray:
    """Pull each channel towards its mean: (x - mean)·factor + mean.

    Args:
        factor: below 1 for less contrast.

    Example:
        >>> contrast(np.float32([0.0, 1.0]).reshape(1, 1, 2, 1), 0.5).ravel()
        array([0.25, 0.75], dtype=float32)
    """
    # Whole numbers add up exactly, so that the mean cannot depend on the size of the batch.
    levels = np.rint(images * 255).astype(np.int64)
    means = levels.mean(axis=(1, 2), keepdims=True, dtype=np.float64) / 255
    return (images - means.astype(np.float32)) * np.float32(factor) + means.astype(np.float32)
