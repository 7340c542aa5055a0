"""mixup: each image mixed with another one of its batch, Eq. (4) of the AutoLabel paper."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import AugmentedBatch, check_batch, dataset_transform, to_float
from keras_autolabel.buckets import bucket_of, uniform_in_bucket


class MixupDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        partner: int32 [B], the row that is mixed in.
        mix: float32 [B] in [0, 0.5], its weight, min(γ, 1 − γ).
        bucket: int32 [B].
    """

    partner: tf.Tensor
    mix: tf.Tensor
    bucket: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class Mixup:
    """mixup (Zhang et al., 2018) with a γ of its own per image, as in section 4.3 of the paper.

    Partners are a random permutation of the batch; γ is drawn from Beta(β, β). Of the two images
    that with the larger weight gives the label, the other one is its partner with weight
    ``mix = min(γ, 1 − γ)``. Since a permutation pairs both ways alike, row i of the batch is
    always the dominant one: labels, and sample weights, stay where they are. The distance is
    2·mix.

    Args:
        num_buckets: N, buckets of the distance, at least 1.
        beta: β of Beta(β, β), in [1e-6, 1e6]; 1 draws γ uniformly.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> images = np.stack([np.zeros([4, 4, 1]), np.ones([4, 4, 1])]).astype("float32")
        >>> batch = Mixup(num_buckets=5)(images, [3, 7], seed=tf.constant([1, 2]), bucket=4)
        >>> bool(tf.reduce_all(batch.mix >= 0.4))
        True
    """

    def __init__(self, *, num_buckets: int = 10, beta: float = 1.0):
        if num_buckets < 1:
            raise ValueError(f"num_buckets must be at least 1. Received: num_buckets={num_buckets}")
        # Beyond these single precision draws no γ.
        if not 1e-6 <= beta <= 1e6:
            raise ValueError(f"beta must be above 0, in 1e-6..1e6. Received: beta={beta}")
        self.num_buckets = num_buckets
        self.beta = beta

    @property
    def bucket_shape(self) -> tuple[int]:
        """Shape of the label table: ``(num_buckets,)``."""
        return (self.num_buckets,)

    @property
    def initial_confidence(self) -> np.ndarray:
        """Ordinary mixup, 1 − γ, at the middle of each bucket: float [N]."""
        return 1.0 - (np.arange(self.num_buckets) + 0.5) / (2.0 * self.num_buckets)

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
            images: uint8, or float in [0, 1], [B, H, W, C], B at least 2.
            labels: int [B].
            seed: int32 [2], a stateless seed: the same seed gives the same batch.
            bucket: None: γ from Beta(β, β). An int or int32 [B]: distances uniform inside that
                bucket.
            network: Unused.

        Returns:
            An ``AugmentedBatch``.

        Raises:
            ValueError: If the images or labels are of the wrong type or rank, or there is but one.
            tf.errors.InvalidArgumentError: If there is but one in a graph of unknown batch size.
        """
        images, labels = check_batch(images, labels)
        if labels.shape[0] == 1:
            raise ValueError("mixup needs a batch of at least 2 images. Received: a batch of 1")
        several = tf.debugging.Assert(
            tf.shape(labels)[0] != 1, ["mixup needs a batch of at least 2 images. Received: 1"]
        )
        with tf.control_dependencies([several]):
            labels = tf.identity(labels)
        return self.apply(images, labels, self.draw(labels, seed, bucket))

    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> MixupDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``."""
        size = tf.shape(labels)[0]
        seeds = tf.random.split(seed, 5)
        partner = tf.random.experimental.stateless_shuffle(tf.range(size), seed=seeds[0])
        if bucket is None:
            mix = self._smaller_share([size], seeds[1:])
            bucket = bucket_of(2.0 * mix, self.num_buckets)
        else:
            bucket = tf.broadcast_to(tf.cast(bucket, tf.int32), [size])
            mix = uniform_in_bucket(bucket, self.num_buckets, seed=seeds[1]) / 2.0
        return MixupDraw(partner, mix, bucket)

    def _smaller_share(self, shape, seeds: tf.Tensor) -> tf.Tensor:
        """min(γ, 1 − γ) of γ ~ Beta(β, β), the share of one of two gamma variables."""
        one, other = (self._log_gamma_variable(shape, seeds[2 * i :]) for i in range(2))
        return tf.sigmoid(-tf.abs(one - other))

    def _log_gamma_variable(self, shape, seeds: tf.Tensor) -> tf.Tensor:
        """Logarithm of a Gamma(β) variable: Gamma(β + 1)·U^(1/β), which a tiny β rounds to 0."""
        above = tf.random.stateless_gamma(shape, seeds[0], self.beta + 1.0)
        uniform = tf.random.stateless_uniform(shape, seeds[1], minval=np.finfo(np.float32).tiny)
        return tf.math.log(above) + tf.math.log(uniform) / self.beta

    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: MixupDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Applies drawn parameters: deterministic; arguments as in ``__call__``."""
        images, labels = to_float(images), tf.cast(labels, tf.int32)
        weight = drawn.mix[:, tf.newaxis, tf.newaxis, tf.newaxis]
        mixed = (1.0 - weight) * images + weight * tf.gather(images, drawn.partner)
        return AugmentedBatch(
            images=tf.clip_by_value(mixed, 0.0, 1.0),
            labels=labels,
            partners=tf.gather(labels, drawn.partner),
            mix=drawn.mix,
            distance=2.0 * drawn.mix,
            bucket=drawn.bucket,
        )

    def dataset_transform(self, *, seed: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
        """This augmentation for ``tf.data.Dataset.apply``; see ``batch.dataset_transform``."""
        return dataset_transform(self, seed=seed)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"num_buckets": self.num_buckets, "beta": self.beta}

    @classmethod
    def from_config(cls, config: dict) -> "Mixup":
        """The augmentation that ``get_config`` describes."""
        return cls(**config)
