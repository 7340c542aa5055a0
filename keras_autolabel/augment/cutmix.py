"""CutMix: a box of each image shows another one of its batch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment.augmentation import Augmentation
from keras_autolabel.augment.mixup import Mixup, with_own_partners
from keras_autolabel.batch import AugmentedBatch, to_float, untranslated


class CutMixDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        distance: float32 [B] in [0, 1], twice the smaller of the two areas.
        bucket: int32 [B].
        partner: int32 [B], the row that is mixed in.
        inside: bool [B], whether the box shows the image itself, and the partner is around it.
        position: float32 [B, 2] in [0, 1), where the box is, of the room that it has.
    """

    distance: tf.Tensor
    bucket: tf.Tensor
    partner: tf.Tensor
    inside: tf.Tensor
    position: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class CutMix(Augmentation):
    """CutMix (Yun et al., 2019), with a share of its own per image, labelled as in mixup.

    The box has the shape of the image and the share γ of its area, γ from Beta(β, β); it lies
    anywhere inside the image. The image with the larger area gives the label, the other one is its
    partner with weight ``mix = min(γ, 1 − γ)``; the distance is 2·mix. Where an edge of the box
    crosses a pixel, the pixel is a mixture too, so that areas are exact. (The authors centre the
    box anywhere, cut off what sticks out, and round to whole pixels: shares then are not γ.)

    Args:
        num_buckets: N, buckets of the distance, at least 1.
        beta: β of Beta(β, β), in [1e-6, 1e6]; 1 draws γ uniformly.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> images = tf.stack([tf.zeros([4, 4, 1]), tf.ones([4, 4, 1])])
        >>> batch = CutMix(num_buckets=5)(images, [3, 7], seed=tf.constant([1, 2]))
        >>> bool(tf.reduce_all(tf.abs(tf.reduce_mean(batch.images[0]) - batch.mix[0]) < 1e-6))
        True
    """

    offers = Mixup.offers
    smallest_batch = Mixup.smallest_batch
    jit_compiles = Mixup.jit_compiles

    def __init__(self, *, num_buckets: int = 10, beta: float = 1.0) -> None:
        super().__init__(num_buckets=num_buckets)
        # Who is mixed with whom, and how much, is as in mixup; where is this class's.
        self.mixup = Mixup(num_buckets=num_buckets, beta=beta)
        self.beta = beta

    @property
    def initial_confidence(self) -> np.ndarray:
        """Ordinary CutMix, 1 − γ, at the middle of each bucket: float [N]."""
        return self.mixup.initial_confidence

    @untranslated
    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> CutMixDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``."""
        size = tf.shape(labels)[0]
        seeds = tf.random.split(seed, 7)
        inside = tf.random.stateless_uniform([size], seeds[5]) < 0.5
        position = tf.random.stateless_uniform([size, 2], seeds[6])
        return CutMixDraw(*self.mixup.draw_pairs(labels, seeds[:5], bucket), inside, position)

    def draw_own(self, labels: tf.Tensor, seed: tf.Tensor) -> CutMixDraw:
        """Draws for the global batch, but partners among the rows that this replica has."""
        return with_own_partners(super().draw_own(labels, seed), seed)

    @untranslated
    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: CutMixDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Puts the boxes in; arguments as in ``Augmentation.apply``."""
        images, mix = to_float(images), drawn.distance / 2.0
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        side = tf.sqrt(tf.where(drawn.inside, 1.0 - mix, mix))
        rows = _covered(height, side, drawn.position[:, 0])
        columns = _covered(width, side, drawn.position[:, 1])
        box = rows[:, :, tf.newaxis, tf.newaxis] * columns[:, tf.newaxis, :, tf.newaxis]
        weight = tf.where(tf.reshape(drawn.inside, [-1, 1, 1, 1]), 1.0 - box, box)
        return self.mixup.mixed(images, weight, labels, drawn)


def _covered(length: tf.Tensor, share: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """How much of each of ``length`` pixels lies in an interval: float32 [B, length] in [0, 1]."""
    pixels = tf.cast(length, tf.float32)
    start = (position * (1.0 - share) * pixels)[:, tf.newaxis]
    end = start + (share * pixels)[:, tf.newaxis]
    left = tf.range(pixels)
    return tf.clip_by_value(tf.minimum(end, left + 1.0) - tf.maximum(start, left), 0.0, 1.0)
