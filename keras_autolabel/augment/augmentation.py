"""What all augmentations share: the checks, the draw of a distance, buckets, datasets, config."""

import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_autolabel.batch import (
    AugmentedBatch,
    asserted,
    check_batch,
    check_whole,
    to_float,
    untranslated,
    without_partner,
)
from keras_autolabel.buckets import bucket_of, uniform_in_bucket
from keras_autolabel.distribution import own_rows, replicas


class Draw(NamedTuple):
    """The random parameters of a batch, where an augmentation has none but its distance.

    Attributes:
        distance: float32 [B] in [0, 1].
        bucket: int32 [B], the flat index of the distance's bucket.
        seed: int32 [2], for whatever else is random.

    Example:
        >>> drawn = Augmentation(num_buckets=4).draw(tf.constant([3, 5]), tf.constant([1, 2]), 3)
        >>> drawn.bucket.numpy().tolist(), bool(tf.reduce_all(drawn.distance >= 0.75))
        ([3, 3], True)
    """

    distance: tf.Tensor
    bucket: tf.Tensor
    seed: tf.Tensor


class Augmentation:
    """Base class of augmentations: a subclass says how far images move, and moves them.

    First everything random is drawn, then it is applied. ``apply`` is all that a subclass must
    have; its other hooks have defaults:

    - ``apply(images, labels, drawn, network)`` moves the images, by the distances of ``drawn``. It
      is deterministic.
    - ``training_distance(size, seed)`` draws the distances of training, uniform on [0, 1].
    - ``draw(labels, seed, bucket)`` draws all parameters of a batch, here a ``Draw``. One that
      draws more returns a named tuple of its own, that has ``distance`` and ``bucket`` too.

    Constructor arguments that are kept under their own names make up the config; register the
    subclass with Keras, and models that hold one can be saved.

    Attributes:
        initial_confidence: Where learned labels start, a number or an array of ``bucket_shape``.
        offers: What the batches tell a label policy: ``"bucket"``; ``"mix"``, where a second image
            is mixed in; ``"perturbation"``, where the distance is the size of a perturbation.
        smallest_batch: Images that a batch must have at least.
        needs_network: Whether ``apply`` needs the network, and so cannot run in a dataset.
        jit_compiles: Whether XLA can compile it, see ``AutoLabelModel.compile``.

    Args:
        num_buckets: N, buckets of the distance, at least 1.

    Raises:
        ValueError: If ``num_buckets`` is not a whole number of at least 1.

    Example:
        >>> class Darker(Augmentation):
        ...     def apply(self, images, labels, drawn, network=None):
        ...         left = tf.reshape(1.0 - drawn.distance, [-1, 1, 1, 1])
        ...         return self.moved(left * to_float(images), labels, drawn)
        >>> images = tf.ones([2, 8, 8, 1])
        >>> batch = Darker(num_buckets=4)(images, [3, 5], seed=tf.constant([1, 2]), bucket=3)
        >>> bool(tf.reduce_all(batch.images <= 0.25))
        True
    """

    initial_confidence: float | np.ndarray = 1.0
    offers: frozenset[str] = frozenset({"bucket"})
    smallest_batch = 1
    needs_network = False
    jit_compiles = True

    def __init__(self, *, num_buckets: int = 10) -> None:
        check_whole(1, num_buckets=num_buckets)
        self.num_buckets = int(num_buckets)

    @property
    def bucket_shape(self) -> tuple[int, ...]:
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
            bucket: None: distances as in training. An int or int32 [B], a flat index into
                ``bucket_shape``: distances uniform inside that bucket.
            network: ``network(images, training=False)`` -> logits [B, K], where one is needed;
                images float32 in [0, 1].

        Returns:
            An ``AugmentedBatch``.

        Raises:
            ValueError: If images or labels are of the wrong type or rank, the batch is too small,
                or a network is missing.
            tf.errors.InvalidArgumentError: If float images leave [0, 1], or a batch whose size
                only the graph knows is too small.
        """
        if self.needs_network and network is None:
            raise ValueError(
                f"{type(self).__name__} needs the network: pass network=..., or train with "
                "AutoLabelModel, which does; it cannot run in a dataset."
            )
        images, labels = check_batch(images, labels)
        labels = self._of_enough(labels)
        own = self.draw_own(labels, seed) if bucket is None else self.draw(labels, seed, bucket)
        return self.apply(images, labels, own, network)

    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> Any:
        """Draws the random parameters of a batch; arguments as in ``__call__``.

        Returns:
            A named tuple of tensors, with ``distance`` and ``bucket`` among them.
        """
        seeds = tf.random.split(seed, 2)
        return Draw(*self.draw_distance(labels, seeds[0], bucket), seeds[1])

    def draw_own(self, labels: tf.Tensor, seed: tf.Tensor) -> Any:
        """Draws the parameters of a batch in training, of which other replicas have other parts.

        They are drawn for the global batch, so that it is augmented as on a single device.

        Args:
            labels: int32 [B], of this replica.
            seed: int32 [2], the same on all replicas.

        Returns:
            What ``draw`` returns, for the rows of this replica.
        """
        _, number = replicas()
        if number == 1:
            return self.draw(labels, seed)
        return own_rows(self.draw(tf.tile(labels, [number]), seed), tf.shape(labels)[0])

    def draw_distance(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws the distances of a batch: as in training, or uniform inside buckets.

        Args:
            labels: int32 [B].
            seed: int32 [2].
            bucket: None, an int or int32 [B], in 0..num_buckets − 1.

        Returns:
            ``(distance, bucket)``, float32 [B] and int32 [B].
        """
        size = tf.shape(labels)[0]
        if bucket is None:
            distance = self.training_distance(size, seed)
            return distance, bucket_of(distance, self.num_buckets)
        bucket = tf.broadcast_to(tf.cast(bucket, tf.int32), [size])
        return uniform_in_bucket(bucket, self.num_buckets, seed=seed), bucket

    def training_distance(self, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws the distances of training: float32 [size], here uniform on [0, 1]."""
        return tf.random.stateless_uniform([size], seed)

    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: Any,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Applies drawn parameters: deterministic. Every augmentation has its own.

        Args:
            images: uint8, or float in [0, 1], [B, H, W, C].
            labels: int32 [B].
            drawn: What ``draw`` returned.
            network: As in ``__call__``.

        Returns:
            An ``AugmentedBatch``; ``moved`` makes one.
        """
        raise TypeError(f"{type(self).__name__} must have a method apply(images, labels, drawn).")

    @untranslated
    def moved(self, images: tf.Tensor, labels: tf.Tensor, drawn: Any) -> AugmentedBatch:
        """The ``AugmentedBatch`` of moved images, cut to [0, 1], that have no second image in them.

        Args:
            images: float [B, H, W, C].
            labels: int32 [B].
            drawn: What ``draw`` returned.
        """
        images = tf.clip_by_value(to_float(images), 0.0, 1.0)
        return without_partner(images, labels, distance=drawn.distance, bucket=drawn.bucket)

    def dataset_transform(self, *, seed: int) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
        """A function for ``tf.data.Dataset.apply`` that augments batches ahead of the accelerator.

        Every batch of every epoch gets a fresh stateless seed; the same ``seed`` repeats the
        sequence.

        Args:
            seed: Seed of the sequence of seeds.

        Returns:
            A function from a dataset of ``(images, labels)`` or ``(images, labels,
            sample_weight)`` batches to one of ``(AugmentedBatch, labels)``, with the weights behind
            where there are any; ``AutoLabelModel.fit`` takes it as already augmented.

        Raises:
            ValueError: If the augmentation needs the network, which a dataset does not have, or
                ``seed`` is no whole number.
        """
        check_whole(0, seed=seed)
        if self.needs_network:
            raise ValueError(
                f"{type(self).__name__} needs the network that is trained, so that it cannot run "
                "in a dataset; give it to AutoLabelModel, which augments inside its train step."
            )

        def augment(example, pair):
            images, labels, *sample_weight = example
            images, labels = check_batch(images, labels)
            # Datasets are of the CPU, whatever else there is.
            with tf.device("CPU"):
                batch = self(images, labels, seed=tf.bitcast(tf.cast(pair, tf.uint32), tf.int32))
            return (batch, labels, *sample_weight)

        def transform(dataset: tf.data.Dataset) -> tf.data.Dataset:
            seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
            pairs = tf.data.Dataset.zip((dataset, seeds.batch(2, drop_remainder=True)))
            return pairs.map(augment, num_parallel_calls=tf.data.AUTOTUNE)

        return transform

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as they are kept under their own names."""
        parameters = inspect.signature(type(self)).parameters.values()
        names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        if len(names) < len(parameters):
            # What a subclass passes on as **kwargs is this class's.
            names += inspect.signature(Augmentation).parameters
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Augmentation":
        """The augmentation that ``get_config`` describes."""
        return cls(**config)

    @untranslated
    def _of_enough(self, labels: tf.Tensor) -> tf.Tensor:
        """The labels as they are; refuses fewer than ``smallest_batch``, in the graph too."""
        if self.smallest_batch == 1:
            return labels
        message = (
            f"{type(self).__name__} needs at least {self.smallest_batch} images in a batch. "
            "Received:"
        )
        if labels.shape[0] is not None:
            if 0 < labels.shape[0] < self.smallest_batch:
                raise ValueError(f"{message} {labels.shape[0]}")
            return labels
        size = tf.shape(labels)[0]
        return asserted(labels, (size == 0) | (size >= self.smallest_batch), message, size)


def check_operations(operations, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of image operations as a tuple.

    Raises:
        ValueError: If there are none, or one is not known.
    """
    some = isinstance(operations, Collection) and len(operations)
    if not some or not {*operations} <= {*known}:
        raise ValueError(
            f"operations must be a selection of {', '.join(known)}. "
            f"Received: operations={operations!r}"
        )
    return tuple(operations)
