"""Chains of image operations, with operations and magnitudes of their own for each image.

The same in two ways. On the CPU, XLA compiles a loop over the images, in which each image computes
its own operation and no other. On an accelerator, for which such a loop is the wrong shape, a step
is taken by all images together.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from keras_autolabel.augment import blend_ops
from keras_autolabel.augment.image_ops import BLEND, GEOMETRIC, POINT, apply_operations, look_up

# Values of an image below which compiling, which takes seconds, costs more than it saves.
SMALLEST_COMPILED = 1024


def apply_chain(
    images: tf.Tensor,
    operation: tf.Tensor,
    level: tf.Tensor,
    names: Sequence[str],
    magnitude_of_level: Mapping[str, Callable[[tf.Tensor], tf.Tensor]],
) -> tf.Tensor:
    """Applies a chain of operations to each image, rounding to 8 bits after each.

    Args:
        images: uint8 [B, H, W, C].
        operation: int32 [B, depth], index into ``names``; −1 leaves the image as it is.
        level: float32 [B, depth], strength of 10; the sign is a direction.
        names: The operations, see ``image_ops.apply_operations``.
        magnitude_of_level: Name -> function from level to the operation's unit.

    Returns:
        uint8 [B, H, W, C].

    Example:
        >>> grey = tf.fill([1, 2, 2, 1], tf.constant(200, tf.uint8))
        >>> halves = {"solarize": lambda level: 256.0 - 25.6 * level}
        >>> twice = tf.constant([[0, 0]]), tf.constant([[5.0, 10.0]])
        >>> int(apply_chain(grey, *twice, ["solarize"], halves)[0, 0, 0, 0])
        200
    """
    magnitudes = tf.stack([magnitude_of_level[name](level) for name in names], axis=-1)
    magnitude = tf.gather(magnitudes, tf.maximum(operation, 0), batch_dims=2)
    if (
        runs_on_cpu()
        and (images.shape[1:].num_elements() or SMALLEST_COMPILED) >= SMALLEST_COMPILED
    ):
        compiled = functools.partial(one_by_one(tuple(names)), images, operation, magnitude)
        # There is no code for no image.
        chain = tf.cond(tf.shape(images)[0] > 0, compiled, lambda: images)
    else:
        chain = all_together(images, operation, magnitude, names)
    return tf.ensure_shape(chain, images.shape)


def runs_on_cpu() -> bool:
    """Whether what is built here runs on the CPU: there is nothing else, or it is placed there."""
    if all(device.device_type == "CPU" for device in tf.config.list_physical_devices()):
        return True
    return "CPU" in tf.zeros([]).device


def all_together(
    images: tf.Tensor, operation: tf.Tensor, magnitude: tf.Tensor, names: Sequence[str]
) -> tf.Tensor:
    """A step of the chain for all images at a time; arguments as in ``one_by_one``."""

    def step(index, chain):
        return index + 1, apply_operations(chain, operation[:, index], magnitude[:, index], names)

    depth = tf.shape(operation)[1]
    return tf.while_loop(lambda index, _: index < depth, step, (0, images))[1]


@functools.cache
def one_by_one(names: tuple[str, ...]) -> Callable:
    """The chain of one image after the other, compiled once for each shape of images.

    Returns:
        ``chain(images, operation, magnitude)``: uint8 [B, H, W, C], int32 [B, depth] and float32
        [B, depth] to uint8 [B, H, W, C].
    """

    @tf.function(jit_compile=True)
    def chain(images, operation, magnitude):
        batch = tf.shape(images)[0]

        def of_image(row, results):
            own = operation[row]

            def step(index, image):
                return index + 1, _one_operation(image, own[index], magnitude[row, index], names)

            length = tf.shape(own)[0]
            _, image = tf.while_loop(lambda index, _: index < length, step, (0, images[row]))
            return row + 1, results.write(row, image)

        results = tf.TensorArray(tf.uint8, size=batch, element_shape=images.shape[1:])
        return tf.while_loop(lambda row, _: row < batch, of_image, (0, results))[1].stack()

    return chain


def _one_operation(image, operation, magnitude, names) -> tf.Tensor:
    """The operation of one image, and no other: uint8 [H, W, C] to the same."""
    # The formulas are those of batches; this one has one image.
    images, magnitude = image[tf.newaxis], magnitude[tf.newaxis]
    height, width = (tf.cast(tf.shape(image)[axis], tf.float32) for axis in (0, 1))

    def geometric(index, names):
        matrices = [GEOMETRIC[name](magnitude, height, width)[0] for name in names]
        # A slice by brackets would have XLA compile once for each value of the index.
        return warp(image, tf.gather(matrices, index))

    def point(index, names):
        tables = [functools.partial(POINT[name], images, magnitude) for name in names]
        return look_up(images, tf.switch_case(index, tables))[0]

    def blend(index, names):
        degenerate = [functools.partial(BLEND[name], images) for name in names]
        return blend_ops.blend(tf.switch_case(index, degenerate), images, magnitude)[0]

    kinds = [(geometric, GEOMETRIC), (point, POINT), (blend, BLEND)]
    kinds = [(apply, [name for name in names if name in known]) for apply, known in kinds]
    kinds = [(apply, own) for apply, own in kinds if own]
    places = [
        (kind, own.index(name))
        for name in names
        for kind, (_, own) in enumerate(kinds)
        if name in own
    ]
    # The last kind is "as it is"; it stands last, where operation -1 finds it.
    kind, index = tf.unstack(tf.gather([*places, (len(kinds), 0)], operation % (len(names) + 1)))
    branches = [functools.partial(apply, index, own) for apply, own in kinds]
    return tf.switch_case(kind, [*branches, lambda: image])


def warp(image: tf.Tensor, transform: tf.Tensor) -> tf.Tensor:
    """``image_ops.warp`` of one image, in plain arithmetic, for which XLA has kernels."""
    height, width, channels = tf.unstack(tf.shape(image))
    y = tf.range(tf.cast(height, tf.float32))[:, tf.newaxis]
    x = tf.range(tf.cast(width, tf.float32))
    a, b, c, d, e, f, _, _ = tf.unstack(transform)
    x, y = a * x + b * y + c, d * x + e * y + f
    left, top = tf.floor(x), tf.floor(y)
    # A black frame of one pixel: whatever lies outside is read there.
    framed = tf.pad(image, [[1, 1], [1, 1], [0, 0]])
    framed = tf.reshape(framed, [(height + 2) * (width + 2), channels])

    def pixel(y, x):
        row = tf.clip_by_value(tf.cast(y, tf.int32), -1, height) + 1
        column = tf.clip_by_value(tf.cast(x, tf.int32), -1, width) + 1
        return tf.cast(tf.gather(framed, row * (width + 2) + column), tf.float32)

    def between(one, other, share):
        return (1.0 - share) * one + share * other

    right, down = (x - left)[..., tf.newaxis], (y - top)[..., tf.newaxis]
    above = between(pixel(top, left), pixel(top, left + 1.0), right)
    below = between(pixel(top + 1.0, left), pixel(top + 1.0, left + 1.0), right)
    return tf.cast(between(above, below, down), tf.uint8)
