import sys
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from keras_autolabel.buckets import bucket_of, distance_of, uniform_in_bucket


def _bucket_by_fractions(numerator: int, denominator: int, num_buckets: int) -> int:
    """Bucket n covers (n/N, (n+1)/N], and 0 belongs to bucket 0, in exact arithmetic."""
    distance = Fraction(numerator, denominator)
    if distance == 0:
        return 0
    return -((-distance * num_buckets) // 1) - 1


def test_edges_are_exact_for_all_numbers_of_buckets_up_to_100():
    for num_buckets in range(1, 101):
        numerators = np.arange(num_buckets + 1)
        edges = (numerators / num_buckets).astype(np.float32)
        expected = [_bucket_by_fractions(n, num_buckets, num_buckets) for n in numerators]
        np.testing.assert_array_equal(bucket_of(edges, num_buckets), expected)


def test_the_next_float_above_an_edge_is_in_the_next_bucket():
    for num_buckets in range(2, 101):
        edges = (np.arange(1, num_buckets) / num_buckets).astype(np.float32)
        above = np.nextafter(edges, np.float32(2))
        np.testing.assert_array_equal(bucket_of(above, num_buckets), np.arange(1, num_buckets))
        below = np.nextafter(edges, np.float32(0))
        np.testing.assert_array_equal(bucket_of(below, num_buckets), np.arange(num_buckets - 1))


def test_thousandths_against_fractions():
    distances = np.arange(1001)
    for num_buckets in (1, 3, 7, 10, 64):
        # An edge that is a thousandth rounds to the same float as n/N, both being the nearest.
        expected = [_bucket_by_fractions(n, 1000, num_buckets) for n in distances]
        actual = bucket_of((distances / 1000).astype(np.float32), num_buckets)
        np.testing.assert_array_equal(actual, expected)


def test_double_precision_and_any_shape():
    distance = tf.constant([[0.0, 0.1], [0.1 + 1e-12, 1.0]], tf.float64)
    np.testing.assert_array_equal(bucket_of(distance, 10), [[0, 0], [1, 9]])


@pytest.mark.parametrize("num_buckets", [1, 3, 10, 100])
def test_uniform_in_bucket_stays_inside_and_fills_it_evenly(num_buckets):
    size = 20_000
    bucket = np.arange(size) % num_buckets
    seed = tf.constant([num_buckets, 7])
    distance = uniform_in_bucket(tf.constant(bucket, tf.int32), num_buckets, seed=seed).numpy()
    assert np.all(distance >= (bucket / num_buckets).astype(np.float32))
    assert np.all(distance <= ((bucket + 1) / num_buckets).astype(np.float32))
    position = distance.astype(np.float64) * num_buckets - bucket
    # The mean of U(0, 1) over n draws has a standard deviation of 1/sqrt(12 n).
    assert abs(position.mean() - 0.5) < 4 / np.sqrt(12 * size)
    assert abs((position < 0.25).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / size)


def test_uniform_in_bucket_depends_on_the_seed_alone():
    bucket = tf.constant([0, 4, 9])
    first, again, other = (
        uniform_in_bucket(bucket, 10, seed=tf.constant(seed)).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


@pytest.mark.parametrize("num_buckets", [1, 3, 10])
def test_the_distance_of_a_bucket_is_its_middle(num_buckets):
    edges = np.linspace(0.0, 1.0, num_buckets + 1)
    np.testing.assert_allclose(distance_of(num_buckets), (edges[:-1] + edges[1:]) / 2, atol=1e-15)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
