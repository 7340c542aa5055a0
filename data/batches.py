"""Batches for training and for evaluation, whatever the images are stored in."""

import tensorflow as tf

from data.crops import crop_seed
from data.source import Order, Source


def training_batches(
    source: Source, order: Order, *, epochs: range, initial_step: int, crop_and_flip: bool
) -> tf.data.Dataset:
    """Shuffled batches of some epochs; see ``Split.training_batches``.

    What an epoch reads is known from its number; images are read behind that, several at once,
    and no more of them than the next few batches hold.
    """
    batch_size = order.batch_size
    if len(source) < batch_size:
        raise ValueError(
            f"There are fewer training images than one batch. Received: {len(source)} images, "
            f"batch_size={batch_size}"
        )
    rows_here, rows_per_replica = share_of(batch_size, order.input_context)
    images_here = len(source) // batch_size * rows_here

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        crops = crop_seed(order.seed, epoch) if crop_and_flip else None
        return source.epoch(epoch, order, crops).take(images_here)

    done = initial_step * rows_here
    keys = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch).skip(done)
    steps = (images_here * len(epochs) - done) // rows_per_replica
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
    options = tf.data.Options()
    # At the end of a fit TensorFlow waits for the tuning of parallel reads, up to seconds; where
    # nothing is read, there is nothing to tune.
    options.autotune.enabled = not source.in_memory
    read_batches = read_batches.with_options(options)
    # Keras would make a step too many to find the end of a data set whose length it is not told.
    return read_batches.apply(tf.data.experimental.assert_cardinality(number)).prefetch(2)


def share_of(batch_size: int, input_context: tf.distribute.InputContext | None) -> tuple[int, int]:
    """How many rows of each global batch this worker reads, and how many one of its replicas has.

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
    of all workers together are those of a single one: int32, for whole batches.

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
