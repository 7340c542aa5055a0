"""Training batches whose order is a pure function of (seed, epoch)."""

import tensorflow as tf

from data.loaders import Split


def training_batches(
    split: Split, *, batch_size: int, seed: int, epochs: int, initial_epoch: int = 0
) -> tf.data.Dataset:
    """Shuffled batches of all epochs, one epoch behind the other.

    A run that is resumed at epoch e sees what it would have seen, since the order of an epoch
    depends on nothing but the seed and its number. The last, incomplete batch of an epoch is left
    out: it would weigh its examples more than others.

    Args:
        split: The training images.
        batch_size: Rows in each batch, over all replicas.
        seed: Seed of the order.
        epochs: Number of epochs, counted from 0.
        initial_epoch: The first epoch to give.

    Returns:
        ``tf.data.Dataset`` of (uint8 [batch_size, H, W, C], int32 [batch_size]), with
        ``len(split) // batch_size`` batches per epoch.

    Raises:
        ValueError: If there are fewer images than ``batch_size``.

    Example:
        >>> import numpy as np
        >>> split = Split(np.zeros([10, 8, 8, 1], np.uint8), np.arange(10))
        >>> len(training_batches(split, batch_size=4, seed=0, epochs=3))
        6
    """
    steps = len(split) // batch_size
    if not steps:
        raise ValueError(
            f"There are fewer training images than one batch. Received: {len(split)} images, "
            f"batch_size={batch_size}"
        )
    with tf.device("CPU:0"):
        images, labels = tf.constant(split.images), tf.constant(split.labels, tf.int32)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(split)), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        return tf.data.Dataset.from_tensor_slices(order[: steps * batch_size]).batch(batch_size)

    def gather(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.ensure_shape(rows, [batch_size])
        return tf.gather(images, rows), tf.gather(labels, rows)

    order = tf.data.Dataset.range(initial_epoch, epochs).flat_map(one_epoch)
    batches = order.map(gather, num_parallel_calls=tf.data.AUTOTUNE)
    total = steps * (epochs - initial_epoch)
    return batches.apply(tf.data.experimental.assert_cardinality(total)).prefetch(2)
