"""AugMix with one chain: ``λ·x + (1 − λ)·chain(x)``, Eq. (3) of the AutoLabel paper."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment.augmentation import Augmentation, check_operations
from keras_autolabel.augment.chain import apply_chain
from keras_autolabel.batch import (
    AugmentedBatch,
    check_numbers,
    check_whole,
    to_float,
    to_uint8,
    untranslated,
)

AUGMIX_OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)

# What a level of 0 to 10 means, in the unit of each operation. The sign is a direction.
MAGNITUDE_OF_LEVEL = {
    "autocontrast": tf.zeros_like,
    "equalize": tf.zeros_like,
    "posterize": lambda level: 4.0 - tf.floor(4.0 * tf.abs(level) / 10.0),
    "rotate": lambda level: 30.0 * level / 10.0,
    "solarize": lambda level: 256.0 - 256.0 * tf.abs(level) / 10.0,
    "shear_x": lambda level: 0.3 * level / 10.0,
    "shear_y": lambda level: 0.3 * level / 10.0,
    "translate_x": lambda level: level / 30.0,
    "translate_y": lambda level: level / 30.0,
}


class AugMixDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        distance: float32 [B] in [0, 1], 1 − λ.
        bucket: int32 [B], flat index (depth − 1)·N + bucket of the distance.
        depth: int32 [B] in 1..max_depth, operations in the chain.
        operation: int32 [B, max_depth], index into ``operations``.
        level: float32 [B, max_depth], |level| in [0.1, severity] of 10; the sign is a direction.
    """

    distance: tf.Tensor
    bucket: tf.Tensor
    depth: tf.Tensor
    operation: tf.Tensor
    level: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class AugMix(Augmentation):
    """AugMix (Hendrycks et al., 2020) with one chain, as in section 4.2 of the AutoLabel paper.

    An image goes through ``depth`` random operations, and is then mixed with the clean one:
    ``λ·x + (1 − λ)·chain(x)``, λ uniform. Its distance is 1 − λ; each depth has buckets of its own,
    so that the table has shape ``[max_depth, num_buckets]`` (``buckets.py`` says which of the
    paper's S_{d,⌈λN⌉} each one is).

    The chain runs on uint8, rounding after each operation as Pillow does; float images are
    rounded to 8 bits for the chain alone, the clean part keeps their precision.

    Args:
        num_buckets: N, buckets of λ, at least 1.
        max_depth: Longest chain; depth is uniform on 1..max_depth.
        severity: Levels are uniform on [0.1, severity] of 10; 3 on CIFAR, 1 on ImageNet.
        operations: Names, of ``AUGMIX_OPERATIONS``.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> augmix = AugMix(num_buckets=5)
        >>> batch = augmix(tf.zeros([2, 8, 8, 3], tf.uint8), [0, 1], seed=tf.constant([1, 2]))
        >>> batch.images.shape, augmix.bucket_shape
        (TensorShape([2, 8, 8, 3]), (3, 5))
    """

    # The warp has no kernel of XLA.
    jit_compiles = False

    def __init__(
        self,
        *,
        num_buckets: int = 10,
        max_depth: int = 3,
        severity: float = 3.0,
        operations: Sequence[str] = AUGMIX_OPERATIONS,
    ) -> None:
        super().__init__(num_buckets=num_buckets)
        check_whole(1, max_depth=max_depth)
        check_numbers(severity=severity)
        if not 0.1 <= severity <= 10.0:
            raise ValueError(f"severity must be in [0.1, 10]. Received: severity={severity}")
        self.max_depth = int(max_depth)
        self.severity = severity
        self.operations = check_operations(operations, AUGMIX_OPERATIONS)

    @property
    def bucket_shape(self) -> tuple[int, int]:
        """Shape of the label table: ``(max_depth, num_buckets)``."""
        return self.max_depth, self.num_buckets

    def training_distance(self, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """1 − λ, float32 [size] in (0, 1], of λ uniform on [0, 1)."""
        return 1.0 - tf.random.stateless_uniform([size], seed)

    @untranslated
    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> AugMixDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``."""
        size = tf.shape(labels)[0]
        seeds = tf.random.split(seed, 5)
        if bucket is None:
            depth = tf.random.stateless_uniform(
                [size], seeds[0], minval=1, maxval=self.max_depth + 1, dtype=tf.int32
            )
            distance, column = self.draw_distance(labels, seeds[1], None)
        else:
            flat = tf.broadcast_to(tf.cast(bucket, tf.int32), [size])
            depth = flat // self.num_buckets + 1
            distance, column = self.draw_distance(labels, seeds[1], flat % self.num_buckets)
        shape = [size, self.max_depth]
        operation = tf.random.stateless_uniform(
            shape, seeds[2], maxval=len(self.operations), dtype=tf.int32
        )
        level = tf.random.stateless_uniform(shape, seeds[3], minval=0.1, maxval=self.severity)
        towards = tf.random.stateless_uniform(shape, seeds[4]) < 0.5
        level = tf.where(towards, level, -level)
        bucket = (depth - 1) * self.num_buckets + column
        return AugMixDraw(distance, bucket, depth, operation, level)

    @untranslated
    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: AugMixDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """``λ·x + (1 − λ)·chain(x)``, Eq. (3); arguments as in ``Augmentation.apply``."""
        in_chain = tf.range(self.max_depth) < drawn.depth[:, tf.newaxis]
        operation = tf.where(in_chain, drawn.operation, -1)
        chain = apply_chain(
            to_uint8(images), operation, drawn.level, self.operations, MAGNITUDE_OF_LEVEL
        )
        clean_weight = tf.reshape(1.0 - drawn.distance, [-1, 1, 1, 1])
        mixed = clean_weight * to_float(images) + (1.0 - clean_weight) * to_float(chain)
        return self.moved(mixed, labels, drawn)
