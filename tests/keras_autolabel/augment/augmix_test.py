import numpy as np
import pytest
import tensorflow as tf

from keras_autolabel import AugMix
from keras_autolabel.augment.augmix import MAGNITUDE_OF_LEVEL, AugMixDraw
from tests.keras_autolabel.augment.conftest import assert_uniform, cells_of

SEED = tf.constant([2, 3])
LABELS = tf.zeros([100_000], tf.int32)


def test_depth_operations_and_levels_are_uniform():
    drawn = AugMix(severity=3.0).draw(LABELS, SEED)
    assert_uniform(drawn.depth.numpy() - 1, 3)
    for step in range(3):
        assert_uniform(drawn.operation[:, step], 9)
        level = drawn.level.numpy()[:, step]
        # Either sign, and 10 equal parts of [0.1, 3].
        assert_uniform(10 * (level > 0) + cells_of(np.abs(level), 0.1, 3, cells=10), 20)


def test_buckets_are_those_of_the_paper_counted_from_the_clean_side():
    drawn = AugMix(num_buckets=5).draw(LABELS, SEED)
    # The paper's S_{d,⌈λN⌉}, both indices from 1 and along λ; ours is (d − 1, N − ⌈λN⌉).
    clean_weight = 1.0 - drawn.distance.numpy().astype(np.float64)
    away_from_edges = np.abs(clean_weight * 5 % 1 - 0.5) < 0.4999
    expected = (drawn.depth.numpy() - 1) * 5 + 5 - np.ceil(clean_weight * 5)
    np.testing.assert_array_equal(drawn.bucket[away_from_edges], expected[away_from_edges])
    # Asked for: every depth at every distance.
    asked = np.arange(15)
    drawn = AugMix(num_buckets=5).draw(LABELS[:15], SEED, asked)
    np.testing.assert_array_equal(drawn.depth, np.repeat([1, 2, 3], 5))
    np.testing.assert_array_equal(np.floor(drawn.distance * 5), np.tile(np.arange(5), 3))


@pytest.mark.parametrize(
    ("name", "level", "magnitude"),
    [
        ("rotate", 10.0, 30.0),
        ("rotate", -3.0, -9.0),
        ("shear_x", 3.0, 0.09),
        ("shear_y", -10.0, -0.3),
        ("translate_x", 10.0, 1 / 3),
        ("translate_y", -1.0, -1 / 30),
        ("posterize", -10.0, 0.0),
        ("posterize", 2.4, 4.0),  # 4 − 0.96: whole bits are taken off
        ("posterize", 2.5, 3.0),
        ("solarize", 10.0, 0.0),
        ("solarize", -3.0, 179.2),
        ("solarize", 0.0, 256.0),
    ],
)
def test_magnitude_of_level(name, level, magnitude):
    actual = MAGNITUDE_OF_LEVEL[name](tf.constant([level]))
    np.testing.assert_allclose(actual, [magnitude], rtol=1e-6, atol=1e-5)


def test_eq_3_by_hand():
    augmix = AugMix(num_buckets=4, max_depth=2, operations=("solarize", "posterize"))
    pixels = np.array([200, 200, 90, 200], np.uint8)
    images = np.tile(pixels[:, np.newaxis, np.newaxis, np.newaxis], [1, 2, 3, 1])
    drawn = AugMixDraw(
        distance=tf.constant([0.75, 0.5, 1.0, 0.0]),
        bucket=tf.constant([2, 5, 7, 4]),
        depth=tf.constant([1, 2, 2, 2]),
        operation=tf.constant([[0, 1], [0, 1], [1, 0], [1, 1]]),
        level=tf.constant([[10.0, 10.0], [10.0, 10.0], [-5.0, 10.0], [10.0, 10.0]]),
    )
    batch = augmix.apply(tf.constant(images), tf.constant([3, 1, 2, 0]), drawn)
    # Solarized at 0: 55. Then 0 bits: 0. 90 with 2 bits: 64, solarized at 0: 191.
    expected = [0.25 * 200 + 0.75 * 55, 0.5 * 200 + 0.5 * 0, 191, 200]
    np.testing.assert_allclose(batch.images[:, 1, 2, 0], np.array(expected) / 255, atol=1e-6)
    np.testing.assert_array_equal(batch.distance, [0.75, 0.5, 1.0, 0.0])
    np.testing.assert_array_equal(batch.bucket, [2, 5, 7, 4])
    np.testing.assert_array_equal(batch.labels, [3, 1, 2, 0])


def test_a_distance_of_0_keeps_the_precision_of_float_images(photographs):
    images = (photographs / 255 + 0.0017).clip(0, 1).astype(np.float32)
    labels = tf.zeros([len(images)], tf.int32)
    drawn = AugMix().draw(labels, SEED)._replace(distance=tf.zeros([len(images)]))
    np.testing.assert_array_equal(AugMix().apply(tf.constant(images), labels, drawn).images, images)
