"""The order of training batches, a pure function of (seed, epoch), and each worker's share."""

from collections.abc import Callable

import tensorflow as tf


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Whole batches in one pass.

    Args:
        num_examples: Training images.
        batch_size: Rows in each batch, over all replicas.

    Returns:
        At least 1.

    Raises:
        ValueError: If there are fewer images than ``batch_size``.

    Example:
        >>> steps_per_epoch(10, 4)
        2
    """
    if num_examples < batch_size:
        raise ValueError(
            f"There are fewer training images than one batch. Received: {num_examples} images, "
            f"batch_size={batch_size}"
        )
    return num_examples // batch_size


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


def epoch_order(
    num_examples: int,
    epoch: tf.Tensor,
    *,
    seed: int,
    batch_size: int,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.Tensor:
    """The rows of an epoch in the order in which they are trained on.

    All workers draw the same order and take their share of each global batch, so that the batches
    of all workers together are those of a single one.

    Args:
        num_examples: M.
        epoch: int64 [], counted from 0.
        seed: Seed of the order.
        batch_size: Rows in each batch, over all replicas.
        input_context: Of this worker; None: there is only one.

    Returns:
        int32 [steps_per_epoch * rows of this worker], in 0..M - 1, each at most once.

    Example:
        >>> order = epoch_order(5, tf.constant(0, tf.int64), seed=0, batch_size=5)
        >>> sorted(order.numpy().tolist())
        [0, 1, 2, 3, 4]
    """
    order = tf.random.experimental.stateless_shuffle(
        tf.range(num_examples), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
    )
    whole = tf.reshape(
        order[: steps_per_epoch(num_examples, batch_size) * batch_size], [-1, batch_size]
    )
    rows, _ = share_of(batch_size, input_context)
    first = rows * (input_context.input_pipeline_id if input_context else 0)
    return tf.reshape(whole[:, first : first + rows], [-1])


def all_epochs(
    one_epoch: Callable[[tf.Tensor], tf.data.Dataset], *, initial_epoch: int, epochs: int
) -> tf.data.Dataset:
    """The elements of all epochs, one epoch behind the other.

    Args:
        one_epoch: From the number of an epoch, int64 [], to its elements.
        initial_epoch: The first epoch to give.
        epochs: Number of epochs, counted from 0.

    Returns:
        ``tf.data.Dataset``.

    Example:
        >>> data = all_epochs(lambda epoch: tf.data.Dataset.from_tensors(epoch),
        ...                   initial_epoch=1, epochs=3)
        >>> [int(epoch) for epoch in data]
        [1, 2]
    """
    return tf.data.Dataset.range(initial_epoch, epochs).flat_map(one_epoch)


def finished(batches: tf.data.Dataset, cardinality: int) -> tf.data.Dataset:
    """Batches that Keras and ``tf.distribute`` take as they are.

    The number of batches is asserted: Keras would make a step too many to find the end. Where
    ``tf.distribute`` shards them itself, it shards rows, not files: it must not split the order.

    Args:
        batches: What to train on.
        cardinality: How many there are.

    Returns:
        The same batches.

    Example:
        >>> len(finished(tf.data.Dataset.range(9).filter(lambda x: x < 4), 4))
        4
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = batches.apply(tf.data.experimental.assert_cardinality(cardinality))
    return batches.prefetch(2).with_options(options)
