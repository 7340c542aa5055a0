"""Projected gradient descent: as an augmentation, and as an attack for evaluation."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment.attack import (
    assert_logits,
    check_epsilon,
    gradient_step,
    random_start,
)
from keras_autolabel.batch import AugmentedBatch, check_batch, to_float, without_partner
from keras_autolabel.buckets import bucket_of, uniform_in_bucket


class PGDDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        epsilon: float32 [B] in [0, ε_max], the largest change of a pixel.
        seed: int32 [2], of the random start.
        bucket: int32 [B].
    """

    epsilon: tf.Tensor
    seed: tf.Tensor
    bucket: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class PGD:
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

    initial_confidence = 1.0

    def __init__(
        self,
        *,
        epsilon: float,
        num_buckets: int = 10,
        num_steps: int = 10,
        relative_step_size: float = 0.25,
        random_start: bool = True,
    ):
        check_epsilon(epsilon)
        for name, value in (("num_buckets", num_buckets), ("num_steps", num_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
        if not 0.0 < relative_step_size < float("inf"):
            raise ValueError(
                "relative_step_size must be a number above 0. "
                f"Received: relative_step_size={relative_step_size}"
            )
        self.epsilon = epsilon
        self.num_buckets = num_buckets
        self.num_steps = num_steps
        self.relative_step_size = relative_step_size
        self.random_start = random_start

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
            images: uint8, or float in [0, 1], [B, H, W, C].
            labels: int [B].
            seed: int32 [2], a stateless seed: the same seed gives the same batch.
            bucket: None: ε uniform on [0, ε_max]. An int or int32 [B]: ε uniform inside that
                bucket.
            network: ``network(images, training=False)`` -> logits [B, K].

        Returns:
            An ``AugmentedBatch``; its images carry no gradient.

        Raises:
            ValueError: If there is no network, or images or labels are of the wrong type or rank.
            tf.errors.InvalidArgumentError: If the network returns probabilities, or a gradient is
                not finite (the message names weights that are not finite either).
        """
        images, labels = check_batch(images, labels)
        return self.apply(images, labels, self.draw(labels, seed, bucket), network)

    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> PGDDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``."""
        size = tf.shape(labels)[0]
        seeds = tf.random.split(seed, 2)
        if bucket is None:
            distance = tf.random.stateless_uniform([size], seeds[0])
            bucket = bucket_of(distance, self.num_buckets)
        else:
            bucket = tf.broadcast_to(tf.cast(bucket, tf.int32), [size])
            distance = uniform_in_bucket(bucket, self.num_buckets, seed=seeds[0])
        return PGDDraw(distance * self.epsilon, seeds[1], bucket)

    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: PGDDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Attacks with drawn parameters: deterministic; arguments as in ``__call__``."""
        check_attackable(network)
        clean = to_float(images)
        epsilon = tf.reshape(drawn.epsilon, [-1, 1, 1, 1])
        start = random_start(clean, epsilon, drawn.seed) if self.random_start else clean

        def step(index, adversarial):
            moved, _, logits = gradient_step(
                network, adversarial, clean, labels, epsilon, self.relative_step_size * epsilon
            )
            with tf.control_dependencies([assert_logits(logits)]):
                return index + 1, tf.identity(moved)

        _, adversarial = tf.while_loop(lambda index, _: index < self.num_steps, step, (0, start))
        return without_partner(
            tf.stop_gradient(adversarial),
            labels,
            distance=drawn.epsilon / self.epsilon,
            bucket=drawn.bucket,
        )

    def dataset_transform(self, *, seed: int) -> Callable:
        """Always refused: an attack needs the network, which ``tf.data`` does not have.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "PGD attacks the network that is trained, so that it cannot run in a dataset; give "
            "it to AutoLabelModel, which attacks inside its train step."
        )

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            "epsilon": self.epsilon,
            "num_buckets": self.num_buckets,
            "num_steps": self.num_steps,
            "relative_step_size": self.relative_step_size,
            "random_start": self.random_start,
        }

    @classmethod
    def from_config(cls, config: dict) -> "PGD":
        """The augmentation that ``get_config`` describes."""
        return cls(**config)


@keras.utils.register_keras_serializable(package="keras_autolabel")
class HalfAdversarial:
    """The batches of CCAT (Stutz et al., 2020): one half clean, one half attacked at ε_max.

    The distance is the size of the perturbation really made, ‖δ‖∞ / ε_max, which
    ``ConfidenceCalibrated`` turns into labels. The attack is that of ``PGD``; the authors' own
    maximises the confidence in any other class, with momentum and backtracking, from a start of
    random size. Signed steps end at ε_max almost always, where the label is uniform whatever ρ.

    Args:
        attack: The ``PGD`` that attacks the second half of a batch.

    Example:
        >>> network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(),
        ...                             keras.layers.Dense(3)])
        >>> batch = HalfAdversarial(PGD(epsilon=0.1))(
        ...     tf.fill([4, 4, 4, 1], 0.5), [0, 1, 2, 0], seed=tf.constant([1, 2]), network=network)
        >>> batch.distance.numpy().round(3).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """

    def __init__(self, attack: PGD):
        self.attack = attack

    @property
    def bucket_shape(self) -> tuple[int]:
        """Shape of the buckets: those of the attack."""
        return self.attack.bucket_shape

    def __call__(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        seed: tf.Tensor,
        bucket: int | tf.Tensor | None = None,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Attacks the second half of a batch; arguments as in ``PGD``, ``bucket`` is refused.

        Returns:
            An ``AugmentedBatch``.

        Raises:
            ValueError: If a bucket is asked for, or as ``PGD`` raises.
        """
        if bucket is not None:
            raise ValueError("HalfAdversarial has no buckets to draw from; use PGD for that.")
        images, labels = check_batch(images, labels)
        half = tf.shape(labels)[0] // 2
        clean, attacked = to_float(images[:half]), to_float(images[half:])
        full = tf.ones_like(labels[half:], tf.float32) * self.attack.epsilon
        drawn = PGDDraw(full, seed, tf.zeros_like(labels[half:]))
        moved = self.attack.apply(attacked, labels[half:], drawn, network).images
        size = tf.reduce_max(tf.abs(moved - attacked), axis=[1, 2, 3])
        distance = tf.concat([tf.zeros([half]), tf.minimum(size / self.attack.epsilon, 1.0)], 0)
        return without_partner(
            tf.ensure_shape(tf.concat([clean, moved], 0), images.shape),
            labels,
            distance=distance,
            bucket=bucket_of(distance, self.attack.num_buckets),
        )

    def dataset_transform(self, *, seed: int) -> Callable:
        """Always refused, as by ``PGD``.

        Raises:
            ValueError: Always.
        """
        return self.attack.dataset_transform(seed=seed)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"attack": keras.utils.serialize_keras_object(self.attack)}

    @classmethod
    def from_config(cls, config: dict) -> "HalfAdversarial":
        """The augmentation that ``get_config`` describes."""
        return cls(keras.utils.deserialize_keras_object(config["attack"]))


def check_attackable(network: Callable | None) -> None:
    """Refuses an attack without a network."""
    if network is None:
        raise ValueError(
            "PGD needs the network that it attacks: pass network=..., or train with "
            "AutoLabelModel, which does; it cannot run in Dataset.map."
        )
