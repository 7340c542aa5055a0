"""Crops that leave the image: soft augmentation's, whose distance is the part that is lost."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment import image_ops
from keras_autolabel.augment.augmentation import Augmentation
from keras_autolabel.batch import AugmentedBatch, check_numbers, to_uint8, untranslated
from keras_autolabel.buckets import bucket_of


class SoftCropDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        distance: float32 [B] in [0, 1], the part of the image that is not seen any more.
        bucket: int32 [B].
        shift: float32 [B, 2] in (−1, 1), down and right, as parts of the sides.
    """

    distance: tf.Tensor
    bucket: tf.Tensor
    shift: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class SoftCrop(Augmentation):
    """The crops of soft augmentation (Liu et al., 2023), which ``PowerLabels`` labels.

    Each image is shifted by N(0, σ·side) in both directions, drawn again where nothing of it would
    be left; what comes in is black. The distance is 1 − the share of the image that is still
    seen, ``1 − (1 − |ty|)·(1 − |tx|)``.

    Args:
        num_buckets: N, buckets of the distance, at least 1.
        sigma: σ, as a part of the side, above 0.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> batch = SoftCrop()(tf.ones([3, 8, 8, 1]), [0, 1, 2], seed=tf.constant([1, 2]))
        >>> seen = tf.reduce_mean(batch.images, axis=[1, 2, 3])
        >>> bool(tf.reduce_all(tf.abs(1.0 - seen - batch.distance) < 0.01))
        True
    """

    # The warp has no kernel of XLA.
    jit_compiles = False

    def __init__(self, *, num_buckets: int = 10, sigma: float = 0.3) -> None:
        super().__init__(num_buckets=num_buckets)
        check_numbers(sigma=sigma)
        if not 0.0 < sigma < float("inf"):
            raise ValueError(f"sigma must be a number above 0. Received: sigma={sigma}")
        self.sigma = sigma

    @untranslated
    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> SoftCropDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``.

        Inside a bucket, the part that is lost is shared out between both directions uniformly (on
        the logarithm of what is seen).
        """
        size = tf.shape(labels)[0]
        seeds = tf.random.split(seed, 3)
        if bucket is None:
            # The normal distribution between −1 and 1, by its inverse.
            edge = tf.math.erf(1.0 / (self.sigma * 2.0**0.5))
            uniform = tf.random.stateless_uniform([size, 2], seeds[0], minval=-edge, maxval=edge)
            shift = tf.math.erfinv(uniform) * (self.sigma * 2.0**0.5)
            shift = tf.clip_by_value(shift, -1.0, 1.0)
            distance = 1.0 - tf.reduce_prod(1.0 - tf.abs(shift), axis=-1)
            return SoftCropDraw(distance, bucket_of(distance, self.num_buckets), shift)
        distance, bucket = self.draw_distance(labels, seeds[0], bucket)
        down = tf.random.stateless_uniform([size, 1], seeds[1])
        seen = (1.0 - distance[:, tf.newaxis]) ** tf.concat([down, 1.0 - down], axis=-1)
        forward = tf.random.stateless_uniform([size, 2], seeds[2]) < 0.5
        return SoftCropDraw(distance, bucket, tf.where(forward, 1.0 - seen, seen - 1.0))

    @untranslated
    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: SoftCropDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Shifts the images; arguments as in ``Augmentation.apply``."""
        height, width = (tf.cast(tf.shape(images)[axis], tf.float32) for axis in (1, 2))
        zero, one = tf.zeros_like(drawn.distance), tf.ones_like(drawn.distance)
        across, down = -drawn.shift[:, 1] * width, -drawn.shift[:, 0] * height
        transforms = tf.stack([one, zero, across, zero, one, down, zero, zero], axis=-1)
        return self.moved(image_ops.warp(to_uint8(images), transforms), labels, drawn)
