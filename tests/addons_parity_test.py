"""Image operations beside those of tensorflow-addons, on photographs, with parameters per example.

Where they differ by design stands with the test: the sign of a translation, the origin of a shear,
and how sharpness rounds. Ours follow Pillow in all three.
"""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from keras_autolabel.augment import image_ops

tfa_image = pytest.importorskip(
    "tensorflow_addons.image", reason="tensorflow-addons imports beside TensorFlow 2.15 only"
)


@pytest.fixture(scope="module", name="photographs")
def fixture_photographs():
    picture = load_sample_image("china.jpg")
    corners = [(10, 20), (120, 200), (200, 400), (300, 100), (60, 500), (250, 320)]
    return tf.constant(np.stack([picture[y : y + 48, x : x + 64] for y, x in corners]))


def apply(images, name, magnitude):
    operation = tf.zeros([len(images)], tf.int32)
    return image_ops.apply_operations(images, operation, magnitude, [name]).numpy().astype(int)


def assert_within_one_grey_level(ours, theirs):
    assert np.abs(ours - np.asarray(theirs).astype(int)).max() <= 1


DEGREES = tf.constant([-30.0, -11.0, -1.0, 4.0, 17.0, 30.0])


def test_rotate(photographs):
    theirs = tfa_image.rotate(photographs, DEGREES * np.pi / 180.0, interpolation="bilinear")
    assert_within_one_grey_level(apply(photographs, "rotate", DEGREES), theirs)


FRACTIONS = tf.constant([-0.3, -0.125, 0.0, 0.01, 0.2, 0.33])


@pytest.mark.parametrize(
    ("name", "direction"), [("translate_x", (64.0, 0.0)), ("translate_y", (0.0, 48.0))]
)
def test_translate(photographs, name, direction):
    # tensorflow-addons moves the image, Pillow and we move where it is read: hence the sign.
    pixels = -FRACTIONS[:, tf.newaxis] * tf.constant(direction)
    theirs = tfa_image.translate(photographs, pixels, interpolation="bilinear")
    assert_within_one_grey_level(apply(photographs, name, FRACTIONS), theirs)


SLOPES = tf.constant([-0.3, -0.1, 0.0, 0.05, 0.2, 0.3])


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_shear_by_transform(photographs, name):
    # Its own shear_x and shear_y shear about pixel 0 and take one level for all images; its
    # transform takes a matrix per image. Pixel centres lie half a pixel inside.
    zero, one = tf.zeros_like(SLOPES), tf.ones_like(SLOPES)
    rows = {
        "shear_x": [one, SLOPES, SLOPES / 2, zero, one, zero, zero, zero],
        "shear_y": [one, zero, zero, SLOPES, one, SLOPES / 2, zero, zero],
    }
    theirs = tfa_image.transform(photographs, tf.stack(rows[name], -1), interpolation="bilinear")
    assert_within_one_grey_level(apply(photographs, name, SLOPES), theirs)


def test_equalize(photographs):
    theirs = tfa_image.equalize(photographs)
    ours = apply(photographs, "equalize", tf.zeros([len(photographs)]))
    assert_within_one_grey_level(ours, theirs)


def test_sharpness(photographs):
    # Its sharpness takes one factor for all images, and cuts the smooth image to whole numbers
    # where Pillow rounds it: a grey level at most, which a factor above 1 would enlarge.
    for factor in (0.0, 0.1, 0.5, 1.0):
        theirs = tfa_image.sharpness(photographs, factor)
        ours = apply(photographs, "sharpness", tf.fill([len(photographs)], factor))
        assert_within_one_grey_level(ours, theirs)
