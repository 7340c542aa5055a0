"""The one place for what several replicas need."""

import tensorflow as tf
from tensorflow import keras

# A variable that all replicas advance alike is advanced by one of them; Keras 3 has a word for it.
ONE_FOR_ALL_REPLICAS = (
    "only_first_replica" if hasattr(keras, "ops") else tf.VariableAggregation.ONLY_FIRST_REPLICA
)


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
