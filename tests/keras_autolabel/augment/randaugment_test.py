import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from tensorflow import keras

from keras_autolabel import AutoLabelModel, RandAugment
from keras_autolabel.augment.randaugment import (
    MAGNITUDE_OF_LEVEL,
    RANDAUGMENT_OPERATIONS,
    RandAugmentDraw,
)
from tests.conftest import linear_network, numpy_softmax

DRAWS = 100_000
SEED = tf.constant([2, 3])
WITHOUT_MAGNITUDE = ("autocontrast", "equalize")
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def _assert_uniform(index: np.ndarray, cells: int) -> None:
    counts = np.bincount(np.ravel(index), minlength=cells)
    assert len(counts) == cells
    if cells > 1:
        assert stats.chisquare(counts).pvalue > 1e-3, counts


def _assert_same(first, second) -> None:
    """The same batch, but for one grey level at one pixel in a thousand.

    A graph may fold the constants of a magnitude, which is then off by a unit in the last place.
    """
    gap = np.abs(first.images - second.images)
    assert gap.max() < 1.01 / 255 and np.mean(gap > 1e-6) < 1e-3
    np.testing.assert_allclose(first.distance, second.distance, atol=2e-7)
    for name in ("labels", "partners", "mix", "bucket"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def _pillow(image: np.ndarray, name: str, level: float) -> np.ndarray:
    """One operation at a level of -10 to 10 by Pillow."""
    source = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    # The factors are single precision numbers.
    factor = float(np.float32(1.0) + np.float32(0.9) * np.float32(level) / np.float32(10.0))
    if name == "posterize":
        result = ImageOps.posterize(source, 8 - int(np.round(0.4 * abs(level))))
    elif name == "solarize":
        result = ImageOps.solarize(source, 256 - 25.6 * abs(level))
    elif name in WITHOUT_MAGNITUDE:
        result = getattr(ImageOps, name)(source)
    else:
        result = getattr(ImageEnhance, name.capitalize())(source).enhance(factor)
    return np.asarray(result).reshape(image.shape)


# --- draw -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """The parameters of 100,000 images with three operations each."""
    randaugment = RandAugment(num_buckets=7, num_operations=3)
    draw = randaugment.draw(tf.zeros([DRAWS], tf.int32), SEED)
    return {name: field.numpy() for name, field in draw._asdict().items()}


def test_distance_is_uniform_and_its_bucket_is_right(drawn):
    distance = drawn["distance"].astype(np.float64)
    assert 0.0 <= distance.min() and distance.max() <= 1.0
    _assert_uniform(np.minimum((20 * distance).astype(int), 19), 20)
    n = drawn["bucket"]
    assert np.all((n - 1e-5 < 7 * distance) & (7 * distance < n + 1 + 1e-5))
    _assert_uniform(n, 7)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_operations_and_directions_are_uniform(drawn, step):
    _assert_uniform(drawn["operation"][:, step], 13)
    direction = drawn["direction"][:, step]
    assert set(direction) == {-1.0, 1.0}
    _assert_uniform((direction > 0).astype(int), 2)


def test_everything_drawn_is_independent(drawn):
    columns = [(20 * drawn["distance"]).astype(int).clip(0, 19)]
    for step in range(3):
        columns.append(drawn["operation"][:, step])
        columns.append((drawn["direction"][:, step] > 0).astype(int))
    p_values = []
    for i, first in enumerate(columns):
        for second in columns[i + 1 :]:
            counts = np.zeros([first.max() + 1, second.max() + 1])
            np.add.at(counts, (first, second), 1)
            p_values.append(stats.chi2_contingency(counts).pvalue)
    # 21 pairs are tested at once.
    assert min(p_values) > 1e-3 / len(p_values)


@pytest.mark.parametrize("num_buckets", [1, 4, 10])
def test_a_given_bucket_is_filled_uniformly(num_buckets):
    bucket = tf.range(20_000) % num_buckets
    randaugment = RandAugment(num_buckets=num_buckets)
    draw = randaugment.draw(tf.zeros_like(bucket), SEED, bucket)
    np.testing.assert_array_equal(draw.bucket, bucket)
    position = draw.distance.numpy() * num_buckets - bucket.numpy()
    assert -1e-5 < position.min() <= position.max() < 1 + 1e-5
    _assert_uniform(np.clip(20 * position, 0, 19).astype(int), 20)
    whole = randaugment.draw(tf.zeros([5], tf.int32), SEED, num_buckets - 1)
    np.testing.assert_array_equal(whole.bucket, [num_buckets - 1] * 5)


# --- apply ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level", "magnitude"),
    [
        ("rotate", 10.0, 30.0),
        ("rotate", -3.0, -9.0),
        ("shear_y", -10.0, -0.3),
        ("translate_x", 10.0, 1 / 3),
        ("posterize", 0.0, 8.0),
        ("posterize", 1.2, 8.0),
        ("posterize", -1.3, 7.0),
        ("posterize", 10.0, 4.0),
        ("solarize", 0.0, 256.0),
        ("solarize", -10.0, 0.0),
        ("color", 0.0, 1.0),
        ("contrast", 10.0, 1.9),
        ("brightness", -10.0, 0.1),
        ("sharpness", 5.0, 1.45),
    ],
)
def test_magnitude_of_level(name, level, magnitude):
    actual = MAGNITUDE_OF_LEVEL[name](tf.constant([level]))
    np.testing.assert_allclose(actual, [magnitude], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("max_magnitude", [10.0, 4.0])
def test_a_chain_without_geometry_equals_pillow(photographs, channels, max_magnitude):
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
            chain = _pillow(chain, operations[int(operation)], level)
        np.testing.assert_allclose(actual[row], chain / 255, atol=1e-6)


def test_apply_by_hand():
    randaugment = RandAugment(num_buckets=4, operations=("brightness", "solarize", "posterize"))
    images = np.full([4, 2, 3, 1], 100, np.uint8)
    drawn = RandAugmentDraw(
        distance=tf.constant([1.0, 0.5, 1.0, 0.25]),
        operation=tf.constant([[0, 1], [0, 0], [2, 0], [1, 1]]),
        direction=tf.constant([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]),
        bucket=tf.constant([3, 1, 3, 0]),
    )
    batch = randaugment.apply(tf.constant(images), tf.constant([3, 1, 2, 0]), drawn)
    # 1.9·100 = 190, solarized at 0 to 65. 0.55·100 = 55, then 1.45·55 = 79.75. Four bits of 100
    # are 96, then 0.1·96 = 9.6. 100 is below 256 - 64 = 192, twice.
    np.testing.assert_allclose(batch.images[:, 1, 2, 0] * 255, [65, 79, 9, 100], atol=1e-4)
    np.testing.assert_array_equal(batch.distance, [1.0, 0.5, 1.0, 0.25])
    np.testing.assert_array_equal(batch.bucket, [3, 1, 3, 0])
    np.testing.assert_array_equal(batch.labels, [3, 1, 2, 0])
    np.testing.assert_array_equal(batch.partners, [3, 1, 2, 0])
    np.testing.assert_array_equal(batch.mix, [0.0] * 4)


@pytest.mark.parametrize("name", RANDAUGMENT_OPERATIONS)
def test_a_distance_of_0_leaves_all_but_two_operations_without_effect(photographs, name):
    randaugment = RandAugment(num_operations=1, operations=(name,))
    labels = tf.zeros([len(photographs)], tf.int32)
    for direction in (1.0, -1.0):
        drawn = RandAugmentDraw(
            tf.zeros([8]), labels, tf.zeros([8, 1], tf.int32), tf.fill([8, 1], direction)
        )
        images = randaugment.apply(tf.constant(photographs), labels, drawn).images
        expected = photographs
        if name in WITHOUT_MAGNITUDE:
            expected = np.stack([_pillow(image, name, 0.0) for image in photographs])
            assert np.any(expected != photographs)
        np.testing.assert_allclose(images * 255, expected, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(RANDAUGMENT_OPERATIONS) - set(WITHOUT_MAGNITUDE)))
def test_the_farther_the_more_an_image_moves(photographs, name):
    randaugment = RandAugment(num_operations=1, operations=(name,))
    moved = []
    for distance in (0.0, 0.2, 0.5, 1.0):
        drawn = RandAugmentDraw(
            tf.fill([8], distance),
            tf.zeros([8], tf.int32),
            tf.zeros([8, 1], tf.int32),
            tf.ones([8, 1]),
        )
        images = randaugment.apply(tf.constant(photographs), drawn.bucket, drawn).images
        moved.append(np.abs(images - photographs / 255).mean())
    assert np.all(np.diff(moved) > 0), moved


def test_float_images_equal_integer_images(photographs):
    labels = tf.zeros([len(photographs)], tf.int32)
    expected = RandAugment()(photographs, labels, seed=SEED)
    for dtype in (np.float32, np.float64):
        actual = RandAugment()((photographs / 255).astype(dtype), labels, seed=SEED)
        _assert_same(actual, expected)


# --- seeds and graphs -----------------------------------------------------------------------------


def test_dataset_transform_gives_what_its_own_draws_say(photographs):
    randaugment = RandAugment(num_operations=1, operations=("brightness",))
    labels = np.arange(len(photographs))
    data = tf.data.Dataset.from_tensors((photographs, labels)).repeat(3)
    for batch, truth in data.apply(randaugment.dataset_transform(seed=1)):
        np.testing.assert_array_equal(truth, labels)
        factor = 0.9 * batch.distance.numpy()[:, np.newaxis, np.newaxis, np.newaxis]
        both = [photographs * (1.0 + sign * factor) / 255.0 for sign in (1.0, -1.0)]
        # The direction is not told: each image is one of two, and rounded down.
        gaps = [np.abs(batch.images - x.clip(0, 1)).max(axis=(1, 2, 3)) for x in both]
        assert np.all(np.minimum(*gaps) < 1.01 / 255)
        assert np.any(gaps[0] < gaps[1]) and np.any(gaps[1] < gaps[0])


# --- training and arguments -----------------------------------------------------------------------


def test_one_step_of_training(digits):
    images, labels = (part[:32] for part in digits)
    model = AutoLabelModel(linear_network((8, 8, 1), 10), RandAugment(), num_classes=10)
    model.compile(keras.optimizers.SGD(0.5))
    model.label_policy.confidence.assign(np.linspace(1.0, 0.55, 10))
    weights, bias = model.network.get_weights()
    batch = model.augment(tf.constant(images), tf.constant(labels))
    history = model.fit(images, labels, batch_size=32, shuffle=False, verbose=0).history
    confidence = 1.0 - 0.05 * batch.bucket.numpy()[:, np.newaxis]
    one_hot = np.eye(10)[labels]
    targets = confidence * one_hot + (1.0 - confidence) / 9 * (1.0 - one_hot)
    inputs = batch.images.numpy().reshape(32, 64).astype(np.float64)
    probabilities = numpy_softmax(inputs @ weights + bias)
    losses = -(targets * np.log(probabilities)).sum(axis=-1)
    np.testing.assert_allclose(history["loss"], [losses.mean()], rtol=1e-5)
    gradient = (probabilities - targets) / 32
    after = model.network.get_weights()
    np.testing.assert_allclose(after[0], weights - 0.5 * inputs.T @ gradient, atol=1e-5)
    np.testing.assert_allclose(after[1], bias - 0.5 * gradient.sum(axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_operations": 0}, "Received: num_operations=0"),
        ({"max_magnitude": 0.0}, r"max_magnitude must be in \(0, 10\]. Received: .*=0.0"),
        ({"max_magnitude": 10.5}, "Received: max_magnitude=10.5"),
        ({"max_magnitude": float("nan")}, "Received: max_magnitude=nan"),
        ({"operations": ()}, r"Received: operations=\(\)"),
        ({"operations": ("rotate", "colour")}, "must be a selection of autocontrast,.*'colour'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandAugment(**arguments)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
