"""Distance <-> bucket. The only place that knows how buckets are counted.

Bucket 0 is clean, for every augmentation: distances grow with the index. The paper counts from 1,
and for AugMix along λ, the weight of the *clean* image: its ``S_{d,⌈λN⌉}`` is our bucket
``(d − 1, N − ⌈λN⌉)``, since the distance is 1 − λ. With N = 5:

    λ        (0, .2]   (.2, .4]   (.4, .6]   (.6, .8]   (.8, 1]
    ⌈λN⌉        1          2          3          4         5       the paper's second index
    bucket      4          3          2          1         0       ours, by 1 − λ
"""

import numpy as np
import tensorflow as tf


def bucket_of(distance: tf.Tensor, num_buckets: int) -> tf.Tensor:
    """Index of the bucket that each distance falls into.

    Bucket ``n`` of ``N`` covers ``(n/N, (n+1)/N]``; a distance of 0 belongs to bucket 0. This is
    ``S_⌈sN⌉`` of Table 1 of the AutoLabel paper, counted from 0, with its footnote 2.

    Args:
        distance: Float tensor of any shape, values in [0, 1].
        num_buckets: Number of buckets N, at least 1.

    Returns:
        int32 tensor of the same shape, values in [0, N - 1].

    Example:
        >>> bucket_of(tf.constant([0.0, 0.2, 0.21, 1.0]), 5).numpy().tolist()
        [0, 0, 1, 4]
    """
    distance = tf.convert_to_tensor(distance)
    # Counting the inner edges below is exact where ceil(distance * N) may round up an edge.
    inner_edges = tf.range(1, num_buckets, dtype=distance.dtype) / num_buckets
    return tf.reduce_sum(tf.cast(distance[..., tf.newaxis] > inner_edges, tf.int32), axis=-1)


def uniform_in_bucket(bucket: tf.Tensor, num_buckets: int, *, seed: tf.Tensor) -> tf.Tensor:
    """Distances drawn uniformly from the given buckets: ``s ~ U(n/N, (n+1)/N)``.

    Args:
        bucket: int32 tensor of any shape, values in [0, N - 1].
        num_buckets: Number of buckets N.
        seed: int32 tensor of shape [2], a stateless seed.

    Returns:
        float32 tensor of the shape of ``bucket``, values in [0, 1].

    Example:
        >>> distance = uniform_in_bucket(tf.constant([0, 9]), 10, seed=tf.constant([1, 2]))
        >>> bool(0.0 <= distance[0] <= 0.1) and bool(0.9 <= distance[1] <= 1.0)
        True
    """
    uniform = tf.random.stateless_uniform(tf.shape(bucket), seed)
    return (tf.cast(bucket, tf.float32) + uniform) / num_buckets


def distance_of(num_buckets: int) -> np.ndarray:
    """The distance that each bucket stands for, its middle: ``(n + ½)/N``.

    Args:
        num_buckets: Number of buckets N, at least 1.

    Returns:
        float64 [N], ascending, in (0, 1).

    Example:
        >>> distance_of(5).round(1).tolist()
        [0.1, 0.3, 0.5, 0.7, 0.9]
    """
    return (np.arange(num_buckets) + 0.5) / num_buckets
