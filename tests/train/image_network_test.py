import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from train.image_network import ImageNetwork, normalise

PIXELS = np.array([[[[0], [51]], [[102], [255]]]], "uint8")  # 0, 0.2, 0.4 and 1


@pytest.fixture
def linear():
    """(pixel - 0.5) / 0.25 for each of the four pixels, then the sum with weights 1, 2, 3, 4."""
    images = keras.Input((2, 2, 1))
    half, quarter = np.float32([0.5]), np.float32([0.25])  # NumPy's numbers must be saved, too
    pixels = keras.layers.Flatten(dtype="float32")(normalise(images, half, quarter))
    logits = keras.layers.Dense(1, dtype="float32")(pixels)
    network = ImageNetwork(images, logits, name="linear")
    network.set_weights([np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([10.0])])
    return network


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64"])
def test_whole_numbers_are_divided_by_255_and_floats_are_not(dtype):
    images = keras.Input((2, 2, 1))
    identity = ImageNetwork(images, keras.layers.Flatten(dtype="float32")(images))
    given = (PIXELS / 255.0 if "float" in dtype else PIXELS).astype(dtype)
    np.testing.assert_allclose(identity(given), [[0, 0.2, 0.4, 1]], rtol=1e-6)


def _in_a_dataset(network, images):
    return network.predict(tf.data.Dataset.from_tensor_slices(images).batch(1), verbose=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda network, images: network(images),
        lambda network, images: network(tf.constant(images), training=True),
        lambda network, images: tf.function(network)(tf.constant(images)),
        lambda network, images: network.predict_on_batch(images),
        _in_a_dataset,
    ],
    ids=["array", "training", "function", "predict_on_batch", "dataset"],
)
def test_bytes_and_floats_agree_however_it_is_called(call, linear):
    # ((0, 0.2, 0.4, 1) - 0.5) / 0.25 = (-2, -1.2, -0.4, 2), by 1, 2, 3, 4: -2 - 2.4 - 1.2 + 8 = 2.4
    np.testing.assert_allclose(call(linear, PIXELS), [[12.4]], rtol=1e-6)
    np.testing.assert_allclose(call(linear, np.float32(PIXELS / 255)), [[12.4]], rtol=1e-6)


def test_gradient_with_respect_to_float_images(linear):
    images = tf.constant(PIXELS / 255, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = linear(images)
    expected = [[[[4], [8]], [[12], [16]]]]  # weight / 0.25
    np.testing.assert_allclose(tape.gradient(logits, images), expected, rtol=1e-6)


def test_saved_model_and_clone_still_scale(linear, tmp_path):
    linear.save(tmp_path / "linear.keras")
    loaded = keras.models.load_model(tmp_path / "linear.keras")
    clone = keras.models.clone_model(linear)
    clone.set_weights(linear.get_weights())
    for copy in (loaded, clone):
        assert isinstance(copy, ImageNetwork)
        assert (copy.name, copy.input_shape) == ("linear", (None, 2, 2, 1))
        np.testing.assert_allclose(copy(PIXELS), [[12.4]], rtol=1e-6)


def test_pixels_keep_float32_under_mixed_precision(mixed_precision):
    # In bfloat16 0.998 would become 1.0, and (1 - 0.5) / 0.25 = 2 instead of 1.992.
    images = keras.Input((1, 1, 1))
    network = ImageNetwork(
        images, keras.layers.Flatten(dtype="float32")(normalise(images, 0.5, 0.25))
    )
    np.testing.assert_allclose(network(np.full((1, 1, 1, 1), 0.998, "float32")), [[1.992]], 1e-6)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        (0.5, (0.5, 0.25, 0.1), [1.0, 2.0, 5.0]),
        ((0.0, 0.5, 0.0), 0.5, [2.0, 1.0, 2.0]),
        (np.array([0.0, 0.5, 0.0]), np.float32(0.5), [2.0, 1.0, 2.0]),
    ],
)
def test_normalise_a_white_pixel(mean, std, expected):
    white = normalise(tf.ones([1, 1, 1, 3]), mean, std)
    np.testing.assert_allclose(white[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("mean", "std", "value"),
    [([0.5, 0.5], 1.0, r"mean=\[0.5, 0.5\] for 3 channels"), (0.5, 0.0, r"std=\[0.0, 0.0, 0.0\]")],
)
def test_normalise_refuses(mean, std, value):
    with pytest.raises(ValueError, match=value):
        normalise(keras.Input((4, 4, 3)), mean, std)
