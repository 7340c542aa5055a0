"""Image operations on whole batches, with an operation and a magnitude of its own per example.

There are three kinds: a *geometric* operation is a matrix, and all of them share one warp; a
*point* operation is a table of 256 entries per image and channel, and all share one look-up; a
*blend* is a degenerate image that is mixed in. A chain step does one of these to each image.

All work on uint8, as Pillow does, so that a chain rounds after every step. Throughout, images are
uint8 [B, H, W, C], magnitudes float32 [B], and tables uint8 [B, C, 256].
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_autolabel.augment import blend_ops

# --- geometric: output pixel -> input pixel, as the eight numbers of a projective transform ------


def rotation(degrees: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Rotation about the centre, counter-clockwise for positive degrees.

    As all transforms here it is float32 [B, 8], see ``warp``, of a height and a width in pixels.
    """
    radians = degrees * (np.pi / 180.0)
    cos, sin = tf.cos(radians), tf.sin(radians)
    x, y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    return _transform(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def horizontal_shear(slope: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """``x_in = x + slope·y`` from the upper left corner."""
    zero, one = tf.zeros_like(slope), tf.ones_like(slope)
    # Pixel centres lie half a pixel inside, hence the constant.
    return _transform(one, slope, slope / 2.0, zero, one, zero)


def vertical_shear(slope: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """``y_in = y + slope·x`` from the upper left corner."""
    zero, one = tf.zeros_like(slope), tf.ones_like(slope)
    return _transform(one, zero, zero, slope, one, slope / 2.0)


def horizontal_translation(fraction: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """``x_in = x + fraction·width``."""
    zero, one = tf.zeros_like(fraction), tf.ones_like(fraction)
    return _transform(one, zero, fraction * width, zero, one, zero)


def vertical_translation(fraction: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """``y_in = y + fraction·height``."""
    zero, one = tf.zeros_like(fraction), tf.ones_like(fraction)
    return _transform(one, zero, zero, zero, one, fraction * height)


def _transform(a, b, c, d, e, f) -> tf.Tensor:
    zero = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, zero, zero], axis=-1)


def warp(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Bilinear warp: output pixel (x, y) is read at (a·x + b·y + c, d·x + e·y + f).

    The border: what lies outside the image is black, so that a source within a pixel of the edge
    is mixed with black. (Pillow repeats the edge there.)

    Args:
        images: uint8 [B, H, W, C].
        transforms: float32 [B, 8]: a, b, c, d, e, f, 0, 0, in pixel indices.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


# --- point: a table of 256 entries per image and channel ------------------------------------------


def autocontrast_table(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255, unless it is of one value (Pillow's ``autocontrast``)."""
    pixels = tf.cast(images, tf.int32)
    low = tf.cast(tf.reduce_min(pixels, axis=[1, 2]), tf.float64)[..., tf.newaxis]
    high = tf.cast(tf.reduce_max(pixels, axis=[1, 2]), tf.float64)[..., tf.newaxis]
    scale = 255.0 / tf.maximum(high - low, 1.0)
    # Pillow's own order of operations in double precision, whose rounding decides whole numbers.
    # Nothing is above 255²: the bound keeps compilers from rounding product and difference at once.
    product = tf.minimum(_ramp(tf.float64) * scale, 255.0**2)
    stretched = tf.clip_by_value(product - low * scale, 0.0, 255.0)
    table = tf.where(high > low, tf.floor(stretched), _ramp(tf.float64))
    return tf.cast(table, tf.uint8)


def equalize_table(images: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Flattens the histogram of each channel (Pillow's ``equalize``)."""
    counts = _histogram(images)
    pixels = tf.reduce_sum(counts, axis=-1, keepdims=True)
    brightest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=-1, keepdims=True)
    last = tf.gather(counts, brightest, batch_dims=2)
    step = (pixels - last) // 255
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    table = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    return tf.cast(tf.where(step > 0, table, tf.range(256)), tf.uint8)


def posterize_table(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the highest ``bits`` bits of each pixel, whole numbers in [0, 8]."""
    dropped = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32))
    table = tf.range(256) // dropped[:, tf.newaxis] * dropped[:, tf.newaxis]
    return _every_channel(table, images)


def solarize_table(images: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts each pixel that is not below ``threshold``, in [0, 256]."""
    below = _ramp(tf.float32) < threshold[:, tf.newaxis]
    return _every_channel(tf.where(below, tf.range(256), 255 - tf.range(256)), images)


def look_up(images: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Replaces each pixel by its entry in the table of its image and channel."""
    return tf.gather(tf.reshape(table, [-1]), _entry_of(images))


def _ramp(dtype: tf.DType) -> tf.Tensor:
    return tf.cast(tf.range(256), dtype)


def _every_channel(table: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    return tf.tile(tf.cast(table, tf.uint8)[:, tf.newaxis], [1, tf.shape(images)[-1], 1])


def _entry_of(images: tf.Tensor) -> tf.Tensor:
    """int32 [B, H, W, C]: where each pixel's entry stands in the flat [B, C, 256] table."""
    batch, channels = tf.shape(images)[0], tf.shape(images)[-1]
    first = tf.range(batch)[:, tf.newaxis, tf.newaxis, tf.newaxis] * channels + tf.range(channels)
    return first * 256 + tf.cast(images, tf.int32)


def _histogram(images: tf.Tensor) -> tf.Tensor:
    shape = [tf.shape(images)[0], tf.shape(images)[-1], 256]
    entry = tf.reshape(_entry_of(images), [-1])
    counts = tf.math.unsorted_segment_sum(tf.ones_like(entry), entry, tf.reduce_prod(shape))
    return tf.reshape(counts, shape)


# --- one operation per example --------------------------------------------------------------------

GEOMETRIC = {
    "rotate": rotation,
    "shear_x": horizontal_shear,
    "shear_y": vertical_shear,
    "translate_x": horizontal_translation,
    "translate_y": vertical_translation,
}
POINT = {
    "autocontrast": autocontrast_table,
    "equalize": equalize_table,
    "posterize": posterize_table,
    "solarize": solarize_table,
    "brightness": blend_ops.brightness_table,
    "contrast": blend_ops.contrast_table,
}
BLEND = {"color": blend_ops.grey, "sharpness": blend_ops.smooth}


def apply_operations(
    images: tf.Tensor, operation: tf.Tensor, magnitude: tf.Tensor, names: Sequence[str]
) -> tf.Tensor:
    """Applies one operation to each image; only the operation chosen for an image is computed.

    Args:
        images: uint8 [B, H, W, C].
        operation: int32 [B], index into ``names``; −1 leaves the image as it is.
        magnitude: float32 [B] in the operation's unit: degrees (rotate), slope (shear), fraction
            of the side (translate), bits (posterize), threshold in 0..256 (solarize), factor
            (brightness, contrast, color, sharpness).
        names: The operations, of ``GEOMETRIC``, ``POINT`` and ``BLEND``.

    Returns:
        uint8 [B, H, W, C].

    Example:
        >>> grey = tf.fill([1, 2, 2, 1], tf.constant(200, tf.uint8))
        >>> out = apply_operations(grey, tf.constant([0]), tf.constant([128.0]), ["solarize"])
        >>> int(out[0, 0, 0, 0])
        55
    """
    # Kind 0 is "as it is"; it stands first, so that operation -1 finds it.
    appliers = (_apply_geometric, _apply_point, _apply_blend)
    kinds = [0] + [1 if name in GEOMETRIC else 2 if name in POINT else 3 for name in names]
    kind = tf.gather(kinds, operation + 1)
    rows = tf.dynamic_partition(tf.range(tf.shape(images)[0]), kind, 4)
    parts = [tf.gather(images, row) for row in rows]
    for kind in set(kinds) - {0}:
        chosen = (tf.gather(operation, rows[kind]), tf.gather(magnitude, rows[kind]))
        parts[kind] = appliers[kind - 1](parts[kind], *chosen, names)
    return tf.ensure_shape(tf.dynamic_stitch(rows, parts), images.shape)


def _apply_geometric(images, operation, magnitude, names) -> tf.Tensor:
    height, width = (tf.cast(tf.shape(images)[axis], tf.float32) for axis in (1, 2))
    # A matrix is eight numbers: computing all and keeping one costs nothing beside the warp.
    unused = tf.zeros([tf.shape(images)[0], 8])
    matrices = [
        GEOMETRIC[name](magnitude, height, width) if name in GEOMETRIC else unused for name in names
    ]
    return warp(images, tf.gather(tf.stack(matrices, axis=1), operation, batch_dims=1))


def _apply_point(images, operation, magnitude, names) -> tf.Tensor:
    table = _by_operation(POINT, names, operation, images, magnitude)
    return look_up(images, table)


def _apply_blend(images, operation, magnitude, names) -> tf.Tensor:
    degenerate = _by_operation(BLEND, names, operation, images)
    return blend_ops.blend(degenerate, images, magnitude)


def _by_operation(functions, names, operation, *arguments: tf.Tensor) -> tf.Tensor:
    """Calls each function on the rows that chose it, and puts the results in their order."""
    rows = tf.dynamic_partition(tf.range(tf.shape(operation)[0]), operation, len(names))
    chosen = [
        (row, functions[name]) for row, name in zip(rows, names, strict=True) if name in functions
    ]
    results = [
        function(*(tf.gather(argument, row) for argument in arguments)) for row, function in chosen
    ]
    return tf.dynamic_stitch([row for row, _ in chosen], results)
