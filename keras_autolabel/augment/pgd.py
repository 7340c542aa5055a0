"""Projected gradient descent: as an augmentation, and as an attack for evaluation."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment.attack import (
    check_epsilon,
    gradient_step,
    of_logits,
    random_start,
)
from keras_autolabel.augment.augmentation import Augmentation
from keras_autolabel.batch import AugmentedBatch, check_numbers, check_whole, to_float, untranslated
from keras_autolabel.buckets import bucket_of
from keras_autolabel.distribution import replica_seed


class PGDDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        distance: float32 [B] in [0, 1], the share of ε_max.
        bucket: int32 [B].
        seed: int32 [2], of the random start.
        first_row: int32, where the batch begins in the global batch of several replicas, whose
            random start is drawn with one seed.
    """

    distance: tf.Tensor
    bucket: tf.Tensor
    seed: tf.Tensor
    first_row: tf.Tensor | int = 0


@keras.utils.register_keras_serializable(package="keras_autolabel")
class PGD(Augmentation):
    """Adversarial examples within an ε of their own per image, as in section 4.4 of the paper.

    ε is uniform on [0, ε_max] where Madry et al. (2018) keep it fixed; the distance is ε / ε_max.
    The attack maximises the cross-entropy of the true class with the network in inference mode,
    by steps of relative_step_size·ε along the sign of the gradient, from a random start inside
    the ball. It is one loop in the graph, whatever the number of steps.

    Args:
        epsilon: ε_max on the scale of [0, 1], in (0, 1].
        num_buckets: N, buckets of the distance, at least 1.
        num_steps: Steps of the attack, at least 1.
        relative_step_size: Length of a step as a share of ε, above 0.
        random_start: Whether to start at a random point of the ball instead of the clean image.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(),
        ...                             keras.layers.Dense(3)])
        >>> images = tf.fill([2, 4, 4, 1], 0.5)
        >>> batch = PGD(epsilon=0.1)(images, [0, 1], seed=tf.constant([1, 2]), network=network)
        >>> bool(tf.reduce_all(tf.abs(batch.images - images) <= 0.1 + 1e-6))
        True
    """

    needs_network = True
    # The names of weights that are not finite are strings, of which XLA knows nothing.
    jit_compiles = False

    def __init__(
        self,
        *,
        epsilon: float,
        num_buckets: int = 10,
        num_steps: int = 10,
        relative_step_size: float = 0.25,
        random_start: bool = True,
    ) -> None:
        super().__init__(num_buckets=num_buckets)
        check_numbers(epsilon=epsilon, relative_step_size=relative_step_size)
        check_epsilon(epsilon)
        check_whole(1, num_steps=num_steps)
        if not 0.0 < relative_step_size < float("inf"):
            raise ValueError(
                "relative_step_size must be a number above 0. "
                f"Received: relative_step_size={relative_step_size}"
            )
        self.epsilon = epsilon
        self.num_steps = int(num_steps)
        self.relative_step_size = relative_step_size
        self.random_start = random_start

    @untranslated
    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> PGDDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``."""
        return PGDDraw(*super().draw(labels, seed, bucket))

    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: PGDDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Attacks with ε = distance·ε_max; arguments as in ``Augmentation.apply``.

        Raises:
            tf.errors.InvalidArgumentError: If the network returns probabilities, or a gradient is
                not finite (the message names weights that are not finite either).
        """
        clean = to_float(images)
        epsilon = tf.reshape(drawn.distance * self.epsilon, [-1, 1, 1, 1])
        start = clean
        if self.random_start:
            start = random_start(clean, epsilon, drawn.seed, drawn.first_row)

        def step(index, adversarial):
            moved, _, logits = gradient_step(
                network, adversarial, clean, labels, epsilon, self.relative_step_size * epsilon
            )
            return index + 1, of_logits(moved, logits)

        _, adversarial = tf.while_loop(lambda index, _: index < self.num_steps, step, (0, start))
        return self.moved(tf.stop_gradient(adversarial), labels, drawn)


@keras.utils.register_keras_serializable(package="keras_autolabel")
class HalfAdversarial(Augmentation):
    """The batches of CCAT (Stutz et al., 2020): one half clean, one half attacked at ε_max.

    The distance is the size of the perturbation really made, ‖δ‖∞ / ε_max, which
    ``ConfidenceCalibrated`` turns into labels. The attack is that of ``PGD``; the authors' own
    maximises the confidence in any other class, with momentum and backtracking, from a start of
    random size. Signed steps end at ε_max almost always, where the label is uniform whatever ρ.

    Asked for a bucket, it attacks all of the batch, with the ε of that bucket.

    Args:
        attack: The ``PGD`` that attacks the second half of a batch.

    Raises:
        ValueError: If ``attack`` is no ``PGD``.

    Example:
        >>> network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(),
        ...                             keras.layers.Dense(3)])
        >>> batch = HalfAdversarial(PGD(epsilon=0.1))(
        ...     tf.fill([4, 4, 4, 1], 0.5), [0, 1, 2, 0], seed=tf.constant([1, 2]), network=network)
        >>> batch.distance.numpy().round(3).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """

    offers = frozenset({"bucket", "perturbation"})
    needs_network = True
    # How many images are attacked is only known when the graph runs.
    jit_compiles = False

    def __init__(self, attack: PGD) -> None:
        if not isinstance(attack, PGD):
            raise ValueError(f"attack must be a PGD(...). Received: attack={attack!r}")
        super().__init__(num_buckets=attack.num_buckets)
        self.attack = attack

    @untranslated
    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> PGDDraw:
        """Distance 0 in the first half of a batch, 1 in the second; or inside the buckets."""
        if bucket is not None:
            return self.attack.draw(labels, seed, bucket)
        rows = tf.range(tf.shape(labels)[0])
        distance = tf.cast(rows >= tf.shape(labels)[0] // 2, tf.float32)
        return PGDDraw(distance, bucket_of(distance, self.num_buckets), seed)

    def draw_own(self, labels: tf.Tensor, seed: tf.Tensor) -> PGDDraw:
        """Half of each replica's rows: none has only attacked ones, or clean ones."""
        return self.draw(labels, replica_seed(seed))

    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: PGDDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Attacks what is not clean, and measures how far it moved; arguments as above."""
        images = to_float(images)
        rows = tf.where(drawn.distance > 0.0)
        chosen = (tf.gather_nd(x, rows) for x in (images, labels, drawn.distance, drawn.bucket))
        clean, truth, distance, bucket = chosen
        attack = PGDDraw(distance, bucket, drawn.seed)
        moved = self.attack.apply(clean, truth, attack, network).images
        size = tf.reduce_max(tf.abs(moved - clean), axis=[1, 2, 3]) / self.attack.epsilon
        # One that was asked for is the distance of its ε, as in PGD.
        distance = tf.where(distance < 1.0, distance, tf.minimum(size, 1.0))
        distance = tf.tensor_scatter_nd_update(drawn.distance, rows, distance)
        drawn = drawn._replace(distance=distance, bucket=bucket_of(distance, self.num_buckets))
        images = tf.ensure_shape(tf.tensor_scatter_nd_update(images, rows, moved), images.shape)
        return self.moved(images, labels, drawn)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"attack": keras.utils.serialize_keras_object(self.attack)}

    @classmethod
    def from_config(cls, config: dict) -> "HalfAdversarial":
        """The augmentation that ``get_config`` describes."""
        return cls(keras.utils.deserialize_keras_object(config["attack"]))
