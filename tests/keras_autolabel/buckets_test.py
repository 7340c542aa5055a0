import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from keras_autolabel.buckets import bucket_of, distance_of, uniform_in_bucket


def test_edges_are_exact_for_all_numbers_of_buckets_up_to_100():
    # Bucket n covers (n/N, (n+1)/N], and 0 belongs to bucket 0.
    for num_buckets in range(1, 101):
        edges = (np.arange(num_buckets + 1) / num_buckets).astype(np.float32)
        expected = np.maximum(np.arange(num_buckets + 1) - 1, 0)
        np.testing.assert_array_equal(bucket_of(edges, num_buckets), expected)


def test_the_next_float_above_an_edge_is_in_the_next_bucket():
    for num_buckets in range(2, 101):
        edges = (np.arange(1, num_buckets) / num_buckets).astype(np.float32)
        above = np.nextafter(edges, np.float32(2))
        np.testing.assert_array_equal(bucket_of(above, num_buckets), np.arange(1, num_buckets))
        below = np.nextafter(edges, np.float32(0))
        np.testing.assert_array_equal(bucket_of(below, num_buckets), np.arange(num_buckets - 1))


def test_buckets_count_from_the_clean_side_where_the_papers_count_along_the_clean_weight():
    # S_{d,⌈λN⌉} is ours at N − ⌈λN⌉; no λ of these is an edge.
    for num_buckets in (1, 5, 10):
        weights = [Fraction(3 * i + 1, 3 * 997) for i in range(997)]
        papers = np.array([math.ceil(weight * num_buckets) for weight in weights])
        ours = bucket_of(tf.constant([float(1 - weight) for weight in weights]), num_buckets)
        np.testing.assert_array_equal(ours, num_buckets - papers)
    # The table of the module's docstring, a column each.
    papers, ours = np.array([1, 2, 3, 4, 5]), bucket_of([0.9, 0.7, 0.5, 0.3, 0.1], 5)
    np.testing.assert_array_equal(ours, 5 - papers)


def test_a_bucket_stands_for_its_middle():
    np.testing.assert_allclose(distance_of(5), [0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_array_equal(bucket_of(distance_of(7), 7), range(7))


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
