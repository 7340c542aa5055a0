"""mixup: each image mixed with another one of its batch, Eq. (4) of the AutoLabel paper."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment.augmentation import Augmentation
from keras_autolabel.batch import AugmentedBatch, check_numbers, to_float, untranslated
from keras_autolabel.buckets import bucket_of, distance_of
from keras_autolabel.distribution import replica_seed, replicas


class MixupDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        distance: float32 [B] in [0, 1], 2·min(γ, 1 − γ).
        bucket: int32 [B].
        partner: int32 [B], the row that is mixed in.
    """

    distance: tf.Tensor
    bucket: tf.Tensor
    partner: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class Mixup(Augmentation):
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

    offers = frozenset({"bucket", "mix"})
    smallest_batch = 2
    # Neither a shuffle nor a gamma variable has a kernel of XLA.
    jit_compiles = False

    def __init__(self, *, num_buckets: int = 10, beta: float = 1.0) -> None:
        super().__init__(num_buckets=num_buckets)
        check_numbers(beta=beta)
        # Outside, single precision draws no γ.
        if not 1e-6 <= beta <= 1e6:
            raise ValueError(f"beta must be above 0, in 1e-6..1e6. Received: beta={beta}")
        self.beta = beta

    @property
    def initial_confidence(self) -> np.ndarray:
        """Ordinary mixup, 1 − γ, at the middle of each bucket: float [N]."""
        return 1.0 - distance_of(self.num_buckets) / 2.0

    @untranslated
    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> MixupDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``."""
        return self.draw_pairs(labels, tf.random.split(seed, 5), bucket)

    def draw_pairs(
        self, labels: tf.Tensor, seeds: tf.Tensor, bucket: int | tf.Tensor | None
    ) -> MixupDraw:
        """Draws who is mixed with whom, and how much; ``seeds`` are int32 [5, 2]."""
        size = tf.shape(labels)[0]
        partner = tf.random.experimental.stateless_shuffle(tf.range(size), seed=seeds[0])
        if bucket is None:
            distance = 2.0 * smaller_share([size], self.beta, seeds[1:])
            return MixupDraw(distance, bucket_of(distance, self.num_buckets), partner)
        return MixupDraw(*self.draw_distance(labels, seeds[1], bucket), partner)

    def draw_own(self, labels: tf.Tensor, seed: tf.Tensor) -> Any:
        """Draws for the global batch, but partners among the rows that this replica has."""
        return with_own_partners(super().draw_own(labels, seed), seed)

    @untranslated
    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: MixupDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """``(1 − γ)·x + γ·x'``, Eq. (4); arguments as in ``Augmentation.apply``."""
        weight = drawn.distance[:, tf.newaxis, tf.newaxis, tf.newaxis] / 2.0
        return self.mixed(to_float(images), weight, labels, drawn)

    def mixed(
        self, images: tf.Tensor, weight: tf.Tensor, labels: tf.Tensor, drawn: Any
    ) -> AugmentedBatch:
        """Images, float32, and their partners by the weight of these at each pixel."""
        mixed = (1.0 - weight) * images + weight * tf.gather(images, drawn.partner)
        partners = tf.gather(labels, drawn.partner)
        return self.moved(mixed, labels, drawn)._replace(
            partners=partners, mix=drawn.distance / 2.0
        )


def with_own_partners(drawn: Any, seed: tf.Tensor) -> Any:
    """The rows that this replica has of what was drawn, with partners among these rows.

    Args:
        drawn: A named tuple of tensors [B, ...], with ``partner``.
        seed: int32 [2], the same on all replicas.
    """
    if replicas()[1] == 1:
        return drawn
    rows = tf.range(tf.shape(drawn.partner)[0])
    partner = tf.random.experimental.stateless_shuffle(rows, seed=replica_seed(seed))
    return drawn._replace(partner=partner)


def smaller_share(shape, beta: float, seeds: tf.Tensor) -> tf.Tensor:
    """min(γ, 1 − γ) of γ ~ Beta(β, β), the share of one of two gamma variables.

    Args:
        shape: Shape of the result.
        beta: β.
        seeds: int32 [4, 2].

    Returns:
        float32 of that shape in [0, 0.5].

    Example:
        >>> share = smaller_share([1000], 1.0, tf.random.split(tf.constant([1, 2]), 4))
        >>> 0.24 < float(tf.reduce_mean(share)) < 0.26  # uniform on [0, 0.5]
        True
    """
    one, other = (_log_gamma_variable(shape, beta, seeds[2 * i :]) for i in range(2))
    return tf.sigmoid(-tf.abs(one - other))


def _log_gamma_variable(shape, beta: float, seeds: tf.Tensor) -> tf.Tensor:
    """Logarithm of a Gamma(β) variable: Gamma(β + 1)·U^(1/β), which a tiny β rounds to 0."""
    above = tf.random.stateless_gamma(shape, seeds[0], beta + 1.0)
    uniform = tf.random.stateless_uniform(shape, seeds[1], minval=np.finfo(np.float32).tiny)
    return tf.math.log(above) + tf.math.log(uniform) / beta
