"""The four noises: each draws its random numbers for one image, then applies them to a batch.

`Level` says what all corruptions share.
"""

import numpy as np


def draw_normal(generator: np.random.Generator, image: np.ndarray, *_: float) -> tuple[np.ndarray]:
    """Draw standard normal numbers, one per pixel and channel of `image` [H, W, C]."""
    return (generator.standard_normal(image.shape, dtype=np.float32),)


def draw_uniform(generator: np.random.Generator, image: np.ndarray, *_: float) -> tuple[np.ndarray]:
    """Draw numbers uniform in [0, 1), one per pixel and channel of `image` [H, W, C]."""
    return (generator.random(image.shape, dtype=np.float32),)


def draw_counts(
    generator: np.random.Generator, image: np.ndarray, photons: float
) -> tuple[np.ndarray]:
    """Draw Poisson counts of mean x·photons, one per pixel and channel x of `image` [H, W, C]."""
    return (generator.poisson(image * photons).astype(np.float32),)


def gaussian_noise(images: np.ndarray, normal: np.ndarray, deviation: float) -> np.ndarray:
    """Add noise: x + deviation·z.

    Args:
        normal: float32 [N, H, W, C], standard normal z.
        deviation: standard deviation of the noise, on the scale of the images.

    Example:
        >>> gaussian_noise(np.float32([0.5]), np.float32([-2.0]), 0.125)
        array([0.25], dtype=float32)
    """
    return images + deviation * normal


def speckle_noise(images: np.ndarray, normal: np.ndarray, deviation: float) -> np.ndarray:
    """Add noise in proportion to the value: x + x·deviation·z.

    Args:
        normal: float32 [N, H, W, C], standard normal z.
        deviation: standard deviation of the noise, relative to the value.

    Example:
        >>> speckle_noise(np.float32([0.5, 0.0]), np.float32([-2.0, 1.0]), 0.125)
        array([0.375, 0.   ], dtype=float32)
    """
    return images + images * (deviation * normal)


def shot_noise(images: np.ndarray, counts: np.ndarray, photons: float) -> np.ndarray:
    """Turn counted photons back into values: k / photons.

    Args:
        images: unused, since the counts already hold them.
        counts: float32 [N, H, W, C], whole numbers from `draw_counts`.
        photons: photons that a white pixel receives on average.

    Example:
        >>> shot_noise(np.float32([0.5]), np.float32([20.0]), 50)
        array([0.4], dtype=float32)
    """
    return counts / np.float32(photons)


def impulse_noise(images: np.ndarray, uniform: np.ndarray, amount: float) -> np.ndarray:
    """Replace a fraction of the values, half by 0 (pepper) and half by 1 (salt).

    Args:
        uniform: float32 [N, H, W, C] in [0, 1); the lowest become pepper, the highest salt.
        amount: fraction replaced, counted per channel.

    Example:
        >>> impulse_noise(np.float32([0.5, 0.5, 0.5]), np.float32([0.01, 0.5, 0.99]), 0.1)
        array([0. , 0.5, 1. ], dtype=float32)
    """
    salted = np.where(uniform >= 1 - amount / 2, np.float32(1), images)
    return np.where(uniform < amount / 2, np.float32(0), salted)
