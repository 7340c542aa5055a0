"""The one place for what several replicas need.

Replicas share a global batch, in equal parts, in the order of their ids. What is random is drawn
for all of it, alike on every replica, which then takes its own rows: training does not depend on
the number of replicas.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import keras

# A variable that all replicas advance alike is advanced by one of them; Keras 3 has a word for it.
ONE_FOR_ALL_REPLICAS = (
    "only_first_replica" if hasattr(keras, "ops") else tf.VariableAggregation.ONLY_FIRST_REPLICA
)
# TensorFlow's number of the generator that stateless draws come from, and what a step of it gives.
PHILOX, NUMBERS_A_STEP = 1, 4


def check_strategy() -> None:
    """Refuses the strategy of several machines under Keras 3, whose ``fit`` fails there.

    Raises:
        ValueError: Inside the scope of a ``MultiWorkerMirroredStrategy``.
    """
    several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    if several and hasattr(keras, "ops"):
        raise ValueError(
            "Keras 3 does not train under MultiWorkerMirroredStrategy: pip install tf_keras, and "
            "set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported."
        )


def is_of_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy is that of several machines.

    Args:
        strategy: What a model is trained under.
    """
    return getattr(strategy, "cluster_resolver", None) is not None


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes: of several workers the first, else the only one.

    Args:
        strategy: What the model is trained under.
    """
    return not (is_of_workers(strategy) and strategy.cluster_resolver.task_id)


def function_of_chief(strategy: tf.distribute.Strategy) -> Callable[[int], int]:
    """A function that gives all workers what the chief called it with.

    All must call it equally often.

    Args:
        strategy: What the model is trained under.
    """
    if not is_of_workers(strategy):
        return lambda number: number

    def of_first_replica(number):
        return tf.where(replicas()[0] == 0, number, 0)

    @tf.function
    def on_all(number):
        numbers = strategy.run(of_first_replica, args=(number,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None)

    return lambda number: int(on_all(tf.constant(number)))


def variables_apart(strategy: tf.distribute.Strategy, variables: Iterable) -> list[tf.Variable]:
    """The variables of which each of several replicas keeps its own value.

    Args:
        strategy: What they were made under.
        variables: Those of a model.
    """
    if strategy.num_replicas_in_sync == 1:
        return []
    on_read = tf.VariableSynchronization.ON_READ
    return [v for v in variables if getattr(v, "synchronization", None) == on_read]


class Rows(NamedTuple):
    """What each replica keeps of its own in some variables; all workers must call both.

    Attributes:
        gather: ``gather() -> rows``, float64 [replicas, numbers].
        give_back: ``give_back(rows)`` assigns each replica its row.
    """

    gather: Callable[[], tf.Tensor]
    give_back: Callable[[tf.Tensor], None]


def functions_of_rows(strategy: tf.distribute.Strategy, variables: Sequence) -> Rows:
    """Functions that gather what each replica keeps of its own, and that give it back.

    Args:
        strategy: What the variables were made under.
        variables: What ``variables_apart`` returned.
    """
    if not variables:
        nothing = tf.zeros([strategy.num_replicas_in_sync, 0], tf.float64)
        return Rows(lambda: nothing, lambda rows: None)
    sizes = [variable.shape.num_elements() for variable in variables]

    def own_row():
        values = [tf.cast(tf.convert_to_tensor(v), tf.float64) for v in variables]
        return tf.concat([tf.reshape(value, [1, -1]) for value in values], axis=1)

    def assign(rows):
        parts = tf.split(rows[replicas()[0]], sizes)
        for variable, part in zip(variables, parts, strict=True):
            variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))

    @tf.function
    def gather():
        return strategy.gather(strategy.run(own_row), axis=0)

    @tf.function
    def give_back(rows):
        strategy.run(assign, args=(rows,))

    return Rows(gather, give_back)


def batches_under(
    strategy: tf.distribute.Strategy, batches: Callable[..., tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Batches for ``fit``, of which each of several workers makes its own part alone, without end.

    Args:
        strategy: What the model is trained under.
        batches: ``batches(input_context=...)`` gives the part of a worker, in batches of one
            replica; without, those of all.
    """
    if not is_of_workers(strategy):
        return batches()
    # Of batches that may end, workers would ask each other in every step whether there is one.
    return strategy.distribute_datasets_from_function(
        lambda context: batches(input_context=context).repeat()
    )


def replicas() -> tuple[Any, int]:
    """The number of this replica, an int or an int32 tensor, and how many there are."""
    context = tf.distribute.get_replica_context()
    if context is None:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync


def replicas_of_non_finite(variable: Any) -> tuple[list[int], int]:
    """The replicas whose own value of a variable holds a NaN or an infinity.

    Args:
        variable: A variable of Keras, such as the sum that a metric keeps on each replica.

    Returns:
        Their numbers, counted from 0 on this machine, and how many replicas it has.

    Example:
        >>> replicas_of_non_finite(tf.Variable([1.0, float("nan")]))
        ([0], 1)
    """
    # Keras 3 keeps TensorFlow's in one of its own.
    inner = variable.value if isinstance(variable.value, tf.Variable) else variable
    values = tf.distribute.get_strategy().experimental_local_results(inner)
    broken = [n for n, value in enumerate(values) if not np.all(tf.math.is_finite(value))]
    return broken, len(values)


def replica_seed(seed: tf.Tensor) -> tf.Tensor:
    """The stateless seed of this replica, so that replicas draw different numbers.

    Args:
        seed: int32 [2].

    Returns:
        int32 [2]; as it is where there is one replica.
    """
    replica, several = replicas()
    return seed if several == 1 else tf.random.experimental.stateless_fold_in(seed, replica)


def block_seed(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """The stateless seed of the rows that this replica has of a batch.

    Replicas with blocks of one size draw for each what a single device would, block after block.

    Args:
        seed: int32 [2].
        number: The number of the global batch, from 0.

    Returns:
        int32 [2].
    """
    replica, several = replicas()
    seed = tf.random.experimental.stateless_fold_in(seed, number * several + replica)
    return tf.random.experimental.stateless_fold_in(seed, 0)


def own_rows(drawn: Any, size: tf.Tensor) -> Any:
    """This replica's rows of what was drawn for the global batch.

    Args:
        drawn: A named tuple of tensors [replicas · size, ...], but for two fields. A ``seed``
            becomes one of this replica's own; beside a ``first_row`` it stays, and that becomes the
            number of this replica's first row in the global batch, for ``uniform_rows``.
        size: Rows of this replica.

    Returns:
        The named tuple with tensors [size, ...].

    Example:
        >>> from typing import NamedTuple
        >>> class Drawn(NamedTuple):
        ...     distance: tf.Tensor
        >>> own_rows(Drawn(tf.constant([0.1, 0.5])), 2).distance.numpy().tolist() # of one replica
        [0.10000000149011612, 0.5]
    """
    replica, _ = replicas()
    first = replica * size
    common = {"seed": replica_seed(drawn.seed)} if hasattr(drawn, "seed") else {}
    if hasattr(drawn, "first_row"):
        common = {"seed": drawn.seed, "first_row": first}
    rows = {k: x[first : first + size] for k, x in drawn._asdict().items() if k not in common}
    return drawn._replace(**rows, **common)


def uniform_rows(shape: tf.Tensor, seed: tf.Tensor, first_row: tf.Tensor | int) -> tf.Tensor:
    """Some rows of a ``tf.random.stateless_uniform``, without those before them.

    The generator counts its steps, and so can begin anywhere.

    Args:
        shape: int32 [rank], of the result.
        seed: int32 [2].
        first_row: The number of its first row.

    Returns:
        float32 of that shape in [0, 1).

    Example:
        >>> seed = tf.constant([1, 2])
        >>> bool(tf.reduce_all(uniform_rows([2, 5], seed, 3)
        ...                    == tf.random.stateless_uniform([5, 5], seed)[3:]))
        True
    """
    numbers = tf.reduce_prod(tf.cast(shape, tf.int64))
    before = tf.cast(first_row, tf.int64) * tf.reduce_prod(tf.cast(shape[1:], tf.int64))
    steps, rest = before // NUMBERS_A_STEP, before % NUMBERS_A_STEP
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    drawn = tf.raw_ops.StatelessRandomUniformV2(
        shape=[rest + numbers],
        key=key,
        counter=counter + tf.stack([tf.cast(steps, tf.uint64), tf.constant(0, tf.uint64)]),
        alg=PHILOX,
    )
    return tf.reshape(drawn[rest:], shape)
