"""RandAugment with a magnitude of its own per image, which is the distance."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment import image_ops
from keras_autolabel.augment.augmix import MAGNITUDE_OF_LEVEL as AUGMIX_MAGNITUDE_OF_LEVEL
from keras_autolabel.batch import (
    AugmentedBatch,
    check_batch,
    dataset_transform,
    to_float,
    to_uint8,
    without_partner,
)
from keras_autolabel.buckets import bucket_of, uniform_in_bucket

RANDAUGMENT_OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


def _factor(level: tf.Tensor) -> tf.Tensor:
    return 1.0 + 0.9 * level / 10.0


# As AugMix, but a level of 0 must leave the image as it is.
MAGNITUDE_OF_LEVEL = {
    **AUGMIX_MAGNITUDE_OF_LEVEL,
    "posterize": lambda level: 8.0 - tf.round(4.0 * tf.abs(level) / 10.0),
    "color": _factor,
    "contrast": _factor,
    "brightness": _factor,
    "sharpness": _factor,
}


class RandAugmentDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        distance: float32 [B] in [0, 1], magnitude / 10.
        operation: int32 [B, num_operations], index into ``operations``.
        direction: float32 [B, num_operations], 1 or −1.
        bucket: int32 [B].
    """

    distance: tf.Tensor
    operation: tf.Tensor
    direction: tf.Tensor
    bucket: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class RandAugment:
    """RandAugment (Cubuk et al., 2020); the magnitude is drawn per image and is its distance.

    ``num_operations`` random operations, all at the image's magnitude, which is uniform on
    [0, max_magnitude] of 10; the distance is magnitude / max_magnitude. At magnitude 0 all
    operations but autocontrast and equalize, which have none, leave the image as it is.

    Args:
        num_buckets: N, buckets of the distance, at least 1.
        num_operations: Operations in each chain, at least 1.
        max_magnitude: Largest magnitude, in (0, 10].
        operations: Names, of ``RANDAUGMENT_OPERATIONS``.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> randaugment = RandAugment(num_buckets=5)
        >>> images = tf.zeros([2, 8, 8, 3], tf.uint8)
        >>> batch = randaugment(images, [0, 1], seed=tf.constant([1, 2]), bucket=4)
        >>> bool(tf.reduce_all(batch.distance >= 0.8)), randaugment.bucket_shape
        (True, (5,))
    """

    initial_confidence = 1.0

    def __init__(
        self,
        *,
        num_buckets: int = 10,
        num_operations: int = 2,
        max_magnitude: float = 10.0,
        operations: Sequence[str] = RANDAUGMENT_OPERATIONS,
    ):
        for name, value in (("num_buckets", num_buckets), ("num_operations", num_operations)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
        if not 0.0 < max_magnitude <= 10.0:
            raise ValueError(
                f"max_magnitude must be in (0, 10]. Received: max_magnitude={max_magnitude}"
            )
        if not operations or set(operations) - set(RANDAUGMENT_OPERATIONS):
            raise ValueError(
                f"operations must be a selection of {', '.join(RANDAUGMENT_OPERATIONS)}. "
                f"Received: operations={tuple(operations)}"
            )
        self.num_buckets = num_buckets
        self.num_operations = num_operations
        self.max_magnitude = max_magnitude
        self.operations = tuple(operations)

    @property
    def bucket_shape(self) -> tuple[int]:
        """Shape of the label table: ``(num_buckets,)``."""
        return (self.num_buckets,)

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
            bucket: None: distances uniform on [0, 1]. An int or int32 [B]: distances uniform
                inside that bucket.
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
    ) -> RandAugmentDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``."""
        size = tf.shape(labels)[0]
        seeds = tf.random.split(seed, 3)
        if bucket is None:
            distance = tf.random.stateless_uniform([size], seeds[0])
            bucket = bucket_of(distance, self.num_buckets)
        else:
            bucket = tf.broadcast_to(tf.cast(bucket, tf.int32), [size])
            distance = uniform_in_bucket(bucket, self.num_buckets, seed=seeds[0])
        shape = [size, self.num_operations]
        operation = tf.random.stateless_uniform(
            shape, seeds[1], maxval=len(self.operations), dtype=tf.int32
        )
        forward = tf.random.stateless_uniform(shape, seeds[2]) < 0.5
        return RandAugmentDraw(distance, operation, tf.where(forward, 1.0, -1.0), bucket)

    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: RandAugmentDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Applies drawn parameters: deterministic; arguments as in ``__call__``."""
        level = self.max_magnitude * drawn.distance[:, tf.newaxis] * drawn.direction
        chain = image_ops.apply_chain(
            to_uint8(images), drawn.operation, level, self.operations, MAGNITUDE_OF_LEVEL
        )
        return without_partner(
            to_float(chain), labels, distance=drawn.distance, bucket=drawn.bucket
        )

    def dataset_transform(self, *, seed: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
        """This augmentation for ``tf.data.Dataset.apply``; see ``batch.dataset_transform``."""
        return dataset_transform(self, seed=seed)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            "num_buckets": self.num_buckets,
            "num_operations": self.num_operations,
            "max_magnitude": self.max_magnitude,
            "operations": list(self.operations),
        }

    @classmethod
    def from_config(cls, config: dict) -> "RandAugment":
        """The augmentation that ``get_config`` describes."""
        return cls(**config)
