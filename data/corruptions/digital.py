"""Corruptions that come from handling files: elastic deformation, pixelation, JPEG.

`Level` says what all corruptions share.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage


def draw_elastic(
    generator: np.random.Generator, image: np.ndarray, *_: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw U(-1, 1) for the three corners, [3, 2], and for the field, [2, H, W]."""
    jitter = generator.uniform(-1, 1, size=(3, 2))
    return jitter, generator.uniform(-1, 1, size=(2, *image.shape[:2]))


def affine_coordinates(jitter: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return where each pixel comes from when three points about the centre are moved.

    Args:
        jitter: float [N, 3, 2], the rows and columns in pixels by which the points move.
        height: of the images.
        width: of the images.

    Returns:
        float64 [N, 2, H, W], rows and columns in the images before the move.
    """
    reach = min(height, width) // 3
    corners = np.array([[reach, reach], [reach, -reach], [-reach, -reach]])
    points = corners + np.array([height // 2, width // 2])
    moved = np.concatenate([points + jitter, np.ones((len(jitter), 3, 1))], axis=2)
    affine = np.linalg.solve(moved, np.broadcast_to(points, (len(jitter), 3, 2)).astype(float))
    rows, columns = np.mgrid[:height, :width]
    across, down, shift = (affine[:, part, :, None, None] for part in (1, 0, 2))
    return down * rows + across * columns + shift


def elastic_transform(
    images: np.ndarray,
    jitter: np.ndarray,
    field: np.ndarray,
    scale: float,
    sigma: float,
    stretch: float,
) -> np.ndarray:
    """Move three points at random, then every pixel by a smooth random field; bilinear, mirrored.

    Args:
        jitter: float [N, 3, 2] in [-1, 1], the moves of the points.
        field: float [N, 2, H, W] in [-1, 1], the field before it is smoothed.
        scale: of the smoothed field, in units of the shorter side, as are the next two.
        sigma: standard deviation of the smoothing.
        stretch: of the moves of the points.

    Source: Simard et al. (2003) for the field.

    Example:
        >>> images = np.random.default_rng(0).random((1, 16, 16, 3), dtype=np.float32)
        >>> jitter, field = np.zeros((1, 3, 2)), np.zeros((1, 2, 16, 16))
        >>> still = elastic_transform(images, jitter, field, 1, 1, 1)
        >>> bool(np.allclose(still, images))
        True
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    images = _resample(images, affine_coordinates(jitter * (stretch * side), height, width))
    if scale == 0:
        return images
    deviation = sigma * side
    smooth = ndimage.gaussian_filter(
        field, sigma=(0, 0, deviation, deviation), mode="reflect", truncate=3
    )
    return _resample(images, np.mgrid[:height, :width] + smooth * (scale * side))


def pixelate(images: np.ndarray, scale: float) -> np.ndarray:
    """Shrink with a box filter to ⌊side·scale⌋ and enlarge with a box filter.

    Args:
        images: whole multiples of 1/255, as is the result.
        scale: below 1.

    Example:
        >>> corner = np.ones((1, 16, 16, 1), np.float32)
        >>> corner[0, 0, 0, 0] = 0
        >>> round(float(pixelate(corner, 0.5)[0, 1, 1, 0]) * 255, 3)
        192.0
    """

    def shrink_and_enlarge(image: Image.Image) -> Image.Image:
        width, height = image.size
        small = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
        return small.resize((width, height), Image.Resampling.BOX)

    return _through_pillow(images, shrink_and_enlarge)


def jpeg_compression(images: np.ndarray, quality: int) -> np.ndarray:
    """Write and read back as JPEG.

    Args:
        images: whole multiples of 1/255, as is the result.
        quality: of Pillow's encoder, 1 to 95; grey images are written as grey JPEG.

    Example:
        >>> float(jpeg_compression(np.ones((1, 16, 16, 3), np.float32), 40).min())
        1.0
    """

    def write_and_read(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return _through_pillow(images, write_and_read)


def _resample(images: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    moved = np.empty_like(images)
    for image, (rows, columns), result in zip(images, coordinates, moved, strict=True):
        for channel in range(images.shape[-1]):
            result[..., channel] = ndimage.map_coordinates(
                image[..., channel], (rows, columns), order=1, mode="mirror"
            )
    return moved


def _through_pillow(
    images: np.ndarray, function: Callable[[Image.Image], Image.Image]
) -> np.ndarray:
    levels = np.rint(images * 255).astype(np.uint8)
    squeezed = levels[..., 0] if images.shape[-1] == 1 else levels
    results = [np.asarray(function(Image.fromarray(image))) for image in squeezed]
    return np.stack(results).reshape(images.shape) / np.float32(255)
