import numpy as np
import pytest
import tensorflow as tf

from keras_autolabel import RandAugment
from keras_autolabel.augment.randaugment import (
    MAGNITUDE_OF_LEVEL,
    RANDAUGMENT_OPERATIONS,
    RandAugmentDraw,
)
from tests.keras_autolabel.augment.conftest import assert_uniform
from tests.keras_autolabel.augment.image_ops_test import pillow

SEED = tf.constant([2, 3])
WITHOUT_MAGNITUDE = ("autocontrast", "equalize")
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def test_operations_and_directions_are_uniform():
    drawn = RandAugment(num_operations=3).draw(tf.zeros([100_000], tf.int32), SEED)
    assert set(np.ravel(drawn.direction)) == {-1.0, 1.0}
    for step in range(3):
        forward = drawn.direction.numpy()[:, step] > 0
        assert_uniform(2 * drawn.operation[:, step] + forward, 2 * 13)


@pytest.mark.parametrize(
    ("name", "level", "magnitude"),
    [
        ("rotate", -3.0, -9.0),
        ("translate_x", 10.0, 1 / 3),
        ("posterize", 1.2, 8.0),
        ("posterize", -1.3, 7.0),
        ("posterize", 10.0, 4.0),
        ("solarize", -10.0, 0.0),
        ("contrast", 10.0, 1.9),
        ("brightness", -10.0, 0.1),
        ("sharpness", 5.0, 1.45),
    ],
)
def test_magnitude_of_level(name, level, magnitude):
    actual = MAGNITUDE_OF_LEVEL[name](tf.constant([level]))
    np.testing.assert_allclose(actual, [magnitude], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("channels", "max_magnitude"), [(1, 4.0), (3, 10.0)])
def test_a_chain_without_geometry_equals_pillow(photographs, channels, max_magnitude):
    # Grey images are too small to be compiled for.
    photographs = photographs[:, :20, :20] if channels == 1 else photographs
    operations = tuple(name for name in RANDAUGMENT_OPERATIONS if name not in GEOMETRIC)
    randaugment = RandAugment(num_operations=3, max_magnitude=max_magnitude, operations=operations)
    images = np.tile(photographs[..., :channels], [12, 1, 1, 1])
    labels = tf.zeros([len(images)], tf.int32)
    drawn = randaugment.draw(labels, tf.constant([5, 6]))
    actual = randaugment.apply(tf.constant(images), labels, drawn).images
    assert set(np.ravel(drawn.operation)) == set(range(8))
    for row, image in enumerate(images):
        chain = image
        for operation, direction in zip(drawn.operation[row], drawn.direction[row], strict=True):
            level = np.float32(max_magnitude) * drawn.distance[row].numpy() * direction.numpy()
            name = operations[int(operation)]
            chain = pillow(chain, name, float(MAGNITUDE_OF_LEVEL[name](level)))
        np.testing.assert_allclose(actual[row], chain / 255, atol=1e-6)


def test_apply_by_hand():
    randaugment = RandAugment(num_buckets=4, operations=("brightness", "solarize", "posterize"))
    images = np.full([4, 2, 3, 1], 100, np.uint8)
    drawn = RandAugmentDraw(
        distance=tf.constant([1.0, 0.5, 1.0, 0.25]),
        bucket=tf.constant([3, 1, 3, 0]),
        operation=tf.constant([[0, 1], [0, 0], [2, 0], [1, 1]]),
        direction=tf.constant([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]),
    )
    batch = randaugment.apply(tf.constant(images), tf.constant([3, 1, 2, 0]), drawn)
    # 1.9·100 = 190, solarized at 0 to 65. 0.55·100 = 55, then 1.45·55 = 79.75. Four bits of 100
    # are 96, then 0.1·96 = 9.6. 100 is below 256 − 64 = 192, twice.
    np.testing.assert_allclose(batch.images[:, 1, 2, 0] * 255, [65, 79, 9, 100], atol=1e-4)
    np.testing.assert_array_equal(batch.distance, [1.0, 0.5, 1.0, 0.25])
    np.testing.assert_array_equal(batch.bucket, [3, 1, 3, 0])
    np.testing.assert_array_equal(batch.labels, [3, 1, 2, 0])


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_a_distance_of_0_leaves_all_but_two_operations_without_effect(photographs, direction):
    image, operation = photographs[0], tf.range(13)[:, tf.newaxis]
    none, directions = tf.zeros([13], tf.int32), tf.fill([13, 1], direction)
    drawn = RandAugmentDraw(tf.zeros([13]), none, operation, directions)
    images = tf.constant(np.stack([image] * 13))
    images = RandAugment(num_operations=1).apply(images, none, drawn).images
    for actual, name in zip(images, RANDAUGMENT_OPERATIONS, strict=True):
        expected = pillow(image, name, 0.0) if name in WITHOUT_MAGNITUDE else image
        np.testing.assert_allclose(actual * 255, expected, atol=1e-4, err_msg=name)


def test_four_channels_go_without_the_operations_that_know_colours(photographs):
    images = np.concatenate([photographs, photographs[..., :1]], axis=-1)
    # Too small to be compiled for, which takes most of the time.
    images = images[:, :15, :15]
    labels = np.zeros(len(images), int)
    with pytest.raises(ValueError, match="color and contrast need 1 or 3 .* Received: 4 channels"):
        RandAugment()(images, labels, seed=SEED)
    with pytest.raises(ValueError, match="^contrast need"):
        RandAugment(operations=("rotate", "contrast"))(images, labels, seed=SEED)
    others = tuple(name for name in RANDAUGMENT_OPERATIONS if name not in ("color", "contrast"))
    batch = RandAugment(operations=others)(images, labels, seed=SEED)
    # The fourth channel is the first one again, and all others treat channels alike.
    np.testing.assert_array_equal(batch.images[..., 3], batch.images[..., 0])
