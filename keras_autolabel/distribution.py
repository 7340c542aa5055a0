"""The one place for what several replicas need."""

import tensorflow as tf


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over all replicas, inside ``strategy.run`` or on a single device.

    Args:
        value: Tensor of any shape.

    Returns:
        Tensor of the same shape, the same on every replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def replica_seed(seed: tf.Tensor) -> tf.Tensor:
    """The stateless seed of this replica, so that replicas draw different numbers.

    Args:
        seed: int32 [2].

    Returns:
        int32 [2].
    """
    context = tf.distribute.get_replica_context()
    replica = 0 if context is None else context.replica_id_in_sync_group
    return tf.random.experimental.stateless_fold_in(seed, replica)


def num_replicas() -> int:
    """Number of replicas in sync; 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync
