"""Enhancements, as Pillow's ``ImageEnhance`` has them: a blend of an image with a degenerate one.

``degenerate + factor·(image − degenerate)``, cut to whole numbers in 0..255; a factor of 1 leaves
the image as it is. Brightness and contrast have a degenerate image of one value, so that they are
tables; colour and sharpness blend pixel by pixel.
"""

import tensorflow as tf


def blend(degenerate: tf.Tensor, images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """``degenerate + factor·(images − degenerate)``.

    Args:
        degenerate: uint8 [B, H, W, C], or a shape that broadcasts to it.
        images: uint8 [B, H, W, C].
        factor: float32 [B], at least 0.

    Returns:
        uint8 [B, H, W, C].

    Example:
        >>> black, grey = tf.zeros([1, 1, 1, 1], tf.uint8), tf.fill([1, 1, 1, 1], 100)
        >>> int(blend(black, tf.cast(grey, tf.uint8), tf.constant([1.5]))[0, 0, 0, 0])
        150
    """
    degenerate, images = tf.cast(degenerate, tf.float32), tf.cast(images, tf.float32)
    factor = tf.reshape(factor, [-1, 1, 1, 1])
    blended = degenerate + factor * (images - degenerate)
    return tf.cast(tf.floor(tf.clip_by_value(blended, 0.0, 255.0)), tf.uint8)


def brightness_table(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The table of a blend with black, uint8 [B, C, 256]; arguments as in ``blend``."""
    return _blend_table(tf.zeros_like(images[:, :1, :1, :1]), images, factor)


def contrast_table(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The table of a blend with the mean luminance."""
    mean = tf.reduce_mean(tf.cast(luminance(images), tf.float64), axis=[1, 2, 3], keepdims=True)
    return _blend_table(tf.floor(mean + 0.5), images, factor)


def _blend_table(level: tf.Tensor, images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    ramp = tf.cast(tf.range(256), tf.uint8)[tf.newaxis, tf.newaxis, :, tf.newaxis]
    table = blend(level, ramp, factor)[:, 0, :, 0]
    return tf.tile(table[:, tf.newaxis], [1, tf.shape(images)[-1], 1])


def luminance(images: tf.Tensor) -> tf.Tensor:
    """Grey value of each pixel: ITU-R 601-2 luma in 16-bit fixed point, as Pillow computes it.

    Args:
        images: uint8 [B, H, W, 3], or [B, H, W, 1], which are grey already.

    Returns:
        uint8 [B, H, W, 1].
    """
    if images.shape[-1] == 1:
        return images
    weighted = tf.cast(images, tf.int32) * tf.constant([19595, 38470, 7471])
    return tf.cast((tf.reduce_sum(weighted, axis=-1, keepdims=True) + 32768) // 65536, tf.uint8)


def grey(images: tf.Tensor) -> tf.Tensor:
    """The luminance in every channel."""
    return tf.broadcast_to(luminance(images), tf.shape(images))


def smooth(images: tf.Tensor) -> tf.Tensor:
    """Mean of each pixel, weight 5, and its eight neighbours; the outermost pixels stay."""
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    # The zeros are never seen; with them, an image of one row or column needs no case of its own.
    pixels = tf.pad(tf.cast(images, tf.int32), [[0, 0], [1, 1], [1, 1], [0, 0]])
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * pixels[:, 1:-1, 1:-1]
    # Rounding to nearest: 13 is odd, so that there are no ties.
    smoothed = tf.cast((2 * total + 13) // 26, tf.uint8)
    y = tf.range(height)[:, tf.newaxis]
    x = tf.range(width)
    inside = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return tf.where(inside[..., tf.newaxis], smoothed, images)
