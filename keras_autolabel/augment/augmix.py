"""AugMix with one chain: ``λ·x + (1 − λ)·chain(x)``, Eq. (3) of the AutoLabel paper."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment import image_ops
from keras_autolabel.batch import (
    AugmentedBatch,
    check_batch,
    dataset_transform,
    to_float,
    to_uint8,
    without_partner,
)
from keras_autolabel.buckets import bucket_of, uniform_in_bucket

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
        depth: int32 [B] in 1..max_depth, operations in the chain.
        clean_weight: float32 [B] in [0, 1], λ.
        operation: int32 [B, max_depth], index into ``operations``.
        level: float32 [B, max_depth], |level| in [0.1, severity] of 10; the sign is a direction.
        bucket: int32 [B], flat index (depth − 1)·N + bucket of λ.
    """

    depth: tf.Tensor
    clean_weight: tf.Tensor
    operation: tf.Tensor
    level: tf.Tensor
    bucket: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class AugMix:
    """AugMix (Hendrycks et al., 2020) with one chain, as in section 4.2 of the AutoLabel paper.

    An image goes through ``depth`` random operations, and is then mixed with the clean one:
    ``λ·x + (1 − λ)·chain(x)``. Its distance is 1 − λ, its bucket S_{depth, ⌈λN⌉}: the table has
    shape ``[max_depth, num_buckets]``, and along its second axis a *higher* index is *nearer* to
    the clean image. Everything is drawn per example, from a stateless seed; ``draw`` gives the
    random parameters, ``apply`` is deterministic.

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

    initial_confidence = 1.0

    def __init__(
        self,
        *,
        num_buckets: int = 10,
        max_depth: int = 3,
        severity: float = 3.0,
        operations: Sequence[str] = AUGMIX_OPERATIONS,
    ):
        for name, value in (("num_buckets", num_buckets), ("max_depth", max_depth)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
        if not 0.1 <= severity <= 10.0:
            raise ValueError(f"severity must be in [0.1, 10]. Received: severity={severity}")
        unknown = sorted(set(operations) - set(AUGMIX_OPERATIONS))
        if unknown or not operations:
            raise ValueError(
                f"operations must be a selection of {', '.join(AUGMIX_OPERATIONS)}. "
                f"Received: operations={tuple(operations)}"
            )
        self.num_buckets = num_buckets
        self.max_depth = max_depth
        self.severity = severity
        self.operations = tuple(operations)

    @property
    def bucket_shape(self) -> tuple[int, int]:
        """Shape of the label table: ``(max_depth, num_buckets)``."""
        return self.max_depth, self.num_buckets

    def __call__(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        seed: tf.Tensor,
        bucket: int | tf.Tensor | None = None,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Augments a batch.

        Args:
            images: uint8, or float in [0, 1], [B, H, W, C] of any size.
            labels: int [B].
            seed: int32 [2], a stateless seed: the same seed gives the same batch.
            bucket: None: depth and λ as in training. An int or int32 [B]: the flat bucket index
                (depth − 1)·N + n, with λ uniform inside it.
            network: Unused.

        Returns:
            An ``AugmentedBatch``.

        Raises:
            ValueError: If the images or labels are of the wrong type or rank.
        """
        images, labels = check_batch(images, labels)
        return self.apply(images, labels, self.draw(labels, seed, bucket))

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
            clean_weight = tf.random.stateless_uniform([size], seeds[1])
            bucket = (depth - 1) * self.num_buckets + bucket_of(clean_weight, self.num_buckets)
        else:
            bucket = tf.broadcast_to(tf.cast(bucket, tf.int32), [size])
            depth = bucket // self.num_buckets + 1
            clean_weight = uniform_in_bucket(
                bucket % self.num_buckets, self.num_buckets, seed=seeds[1]
            )
        shape = [size, self.max_depth]
        operation = tf.random.stateless_uniform(
            shape, seeds[2], maxval=len(self.operations), dtype=tf.int32
        )
        level = tf.random.stateless_uniform(shape, seeds[3], minval=0.1, maxval=self.severity)
        towards = tf.random.stateless_uniform(shape, seeds[4]) < 0.5
        return AugMixDraw(depth, clean_weight, operation, tf.where(towards, level, -level), bucket)

    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: AugMixDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Applies drawn parameters: deterministic; arguments as in ``__call__``."""
        in_chain = tf.range(self.max_depth) < drawn.depth[:, tf.newaxis]
        operation = tf.where(in_chain, drawn.operation, -1)
        chain = image_ops.apply_chain(
            to_uint8(images), operation, drawn.level, self.operations, MAGNITUDE_OF_LEVEL
        )
        weight = drawn.clean_weight[:, tf.newaxis, tf.newaxis, tf.newaxis]
        mixed = weight * to_float(images) + (1.0 - weight) * to_float(chain)
        return without_partner(
            tf.clip_by_value(mixed, 0.0, 1.0),
            labels,
            distance=1.0 - drawn.clean_weight,
            bucket=drawn.bucket,
        )

    def dataset_transform(self, *, seed: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
        """This augmentation for ``tf.data.Dataset.apply``; see ``batch.dataset_transform``."""
        return dataset_transform(self, seed=seed)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            "num_buckets": self.num_buckets,
            "max_depth": self.max_depth,
            "severity": self.severity,
            "operations": list(self.operations),
        }

    @classmethod
    def from_config(cls, config: dict) -> "AugMix":
        """The augmentation that ``get_config`` describes."""
        return cls(**config)
