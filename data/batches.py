"""Batches for training and for evaluation, whatever the images are stored in."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from data.crops import crop_seed


class Order(NamedTuple):
    """What the order of training is drawn for.

    Attributes:
        seed: Seed of the order.
        batch_size: Rows in each batch, over all replicas.
        input_context: Of this worker; None: there is only one.
    """

    seed: int
    batch_size: int
    input_context: tf.distribute.InputContext | None = None


class Source(Protocol):
    """Where a ``Split`` gets its images from.

    Datasets of its images hold their keys: what ``reader`` needs to find each one.
    """

    @property
    def in_memory(self) -> bool:
        """Whether ``images`` are at hand; ``reader`` then takes the keys of a whole batch."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image, as it is given."""

    @property
    def labels(self) -> np.ndarray:
        """int32 [M], in order."""

    def __len__(self) -> int:
        """Number of images, M."""

    def select(self, rows: np.ndarray) -> "Source":
        """The images with these row numbers, int [m] ascending."""

    def stratified_rows(self, size: int, *, seed: int, what: str) -> np.ndarray:
        """Row numbers of a draw of every class."""

    def in_order(self) -> tf.data.Dataset:
        """The keys of all images once, in order."""

    def epoch(self, epoch: tf.Tensor, order: Order, crops: tf.Tensor | None) -> tf.data.Dataset:
        """The keys of this worker's images of an epoch, int64 [], for whole batches.

        Where there is a seed of ``crops``, int [2], each key is followed by what an image needs to
        be cropped and flipped.
        """

    def reader(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """What gives an image, uint8, and its label, int32, for the parts of a key."""


def training_batches(
    source: Source,
    *,
    crop_and_flip: bool,
    batch_size: int,
    seed: int,
    epochs: int,
    initial_epoch: int = 0,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Shuffled batches of all epochs; see ``Split.training_batches``.

    What an epoch reads is known from its number; images are read behind that, several at once,
    and no more of them than the next few batches hold.
    """
    if len(source) < batch_size:
        raise ValueError(
            f"There are fewer training images than one batch. Received: {len(source)} images, "
            f"batch_size={batch_size}"
        )
    rows_here, rows_per_replica = share_of(batch_size, input_context)
    images_here = len(source) // batch_size * rows_here
    order = Order(seed, batch_size, input_context)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        crops = crop_seed(seed, epoch) if crop_and_flip else None
        return source.epoch(epoch, order, crops).take(images_here)

    keys = tf.data.Dataset.range(initial_epoch, epochs).flat_map(one_epoch)
    steps = images_here // rows_per_replica * (epochs - initial_epoch)
    # Where tf.distribute shards batches itself, by rows and not by files: it must not split the
    # order.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return _read(source, keys, rows_per_replica, steps, drop_remainder=True).with_options(options)


def batches(source: Source, batch_size: int) -> tf.data.Dataset:
    """All images in order; see ``Split.batches``."""
    return _read(source, source.in_order(), batch_size, -(-len(source) // batch_size))


def _read(
    source: Source,
    keys: tf.data.Dataset,
    batch_size: int,
    number: int,
    *,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    read = source.reader()
    if source.in_memory:
        read_batches = keys.batch(batch_size, drop_remainder).map(read, tf.data.AUTOTUNE)
    else:
        read_batches = keys.map(read, tf.data.AUTOTUNE).batch(batch_size, drop_remainder)
    # Keras would make a step too many to find the end of a data set whose length it is not told.
    return read_batches.apply(tf.data.experimental.assert_cardinality(number)).prefetch(2)


def share_of(batch_size: int, input_context: tf.distribute.InputContext | None) -> tuple[int, int]:
    """What one worker contributes to each global batch.

    Args:
        batch_size: Rows in each batch, over all replicas.
        input_context: Of this worker; None: there is only one.

    Returns:
        ``(rows, rows_per_replica)``: how many rows of each global batch this worker reads, and
        how many of them make the batch of one replica.

    Raises:
        ValueError: If the replicas cannot have the same number of rows.

    Example:
        >>> share_of(8, tf.distribute.InputContext(2, 0, num_replicas_in_sync=4))
        (4, 2)
    """
    if input_context is None:
        return batch_size, batch_size
    replicas, workers = input_context.num_replicas_in_sync, input_context.num_input_pipelines
    if batch_size % replicas or replicas % workers:
        raise ValueError(
            "Each replica must get the same number of rows. Received: "
            f"batch_size={batch_size} for {replicas} replicas of {workers} workers"
        )
    return batch_size // workers, batch_size // replicas


def epoch_rows(num_examples: int, epoch: tf.Tensor, order: Order) -> tf.Tensor:
    """The rows of an epoch in the order in which they are trained on.

    All workers draw the same order and take their share of each global batch, so that the batches
    of all workers together are those of a single one.

    Args:
        num_examples: M, at least a batch.
        epoch: int64 [], counted from 0.
        order: What it is drawn for.

    Returns:
        int32 [M // batch_size * rows of this worker], in 0..M - 1, each at most once.

    Example:
        >>> rows = epoch_rows(5, tf.constant(0, tf.int64), Order(seed=0, batch_size=5))
        >>> sorted(rows.numpy().tolist())
        [0, 1, 2, 3, 4]
    """
    seed, batch_size, input_context = order
    rows = tf.random.experimental.stateless_shuffle(
        tf.range(num_examples), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
    )
    whole = tf.reshape(rows[: num_examples // batch_size * batch_size], [-1, batch_size])
    share, _ = share_of(batch_size, input_context)
    first = share * (input_context.input_pipeline_id if input_context else 0)
    return tf.reshape(whole[:, first : first + share], [-1])
