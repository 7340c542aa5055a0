import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from train.image_network import ImageNetwork, check_image_shape, normalise

PIXELS = np.array([[[[0], [51]], [[102], [255]]]], "uint8")  # 0, 0.2, 0.4 and 1


@pytest.fixture
def mixed_bfloat16():
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy(before)


def _identity():
    """A network that returns the pixels it is given as logits."""
    images = keras.Input((2, 2, 1))
    return ImageNetwork(images, keras.layers.Flatten(dtype="float32")(images))


def _linear():
    """(pixel - 0.5) / 0.25 for each of the four pixels, then the sum with weights 1, 2, 3, 4."""
    images = keras.Input((2, 2, 1))
    half, quarter = np.float32([0.5]), np.float32([0.25])  # NumPy's numbers must be saved, too
    pixels = keras.layers.Flatten(dtype="float32")(normalise(images, half, quarter))
    logits = keras.layers.Dense(1, dtype="float32")(pixels)
    network = ImageNetwork(images, logits, name="linear")
    network.set_weights([np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([10.0])])
    return network


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_whole_numbers_are_divided_by_255(dtype):
    np.testing.assert_allclose(_identity()(PIXELS.astype(dtype)), [[0, 0.2, 0.4, 1]], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_are_taken_as_they_are(dtype):
    images = np.array([[[[0], [0.2]], [[0.4], [1]]]], dtype)
    np.testing.assert_allclose(_identity()(images), [[0, 0.2, 0.4, 1]], rtol=1e-6)


def _in_a_dataset(network, images):
    return network.predict(tf.data.Dataset.from_tensor_slices(images).batch(1), verbose=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda network, images: network(images),
        lambda network, images: network(tf.constant(images)),
        lambda network, images: network(images, training=True),
        lambda network, images: tf.function(network)(tf.constant(images)),
        lambda network, images: network.predict(images, verbose=0),
        lambda network, images: network.predict_on_batch(images),
        _in_a_dataset,
    ],
    ids=["array", "tensor", "training", "function", "predict", "predict_on_batch", "dataset"],
)
def test_bytes_and_floats_agree_however_it_is_called(call):
    # ((0, 0.2, 0.4, 1) - 0.5) / 0.25 = (-2, -1.2, -0.4, 2), by 1, 2, 3, 4: -2 - 2.4 - 1.2 + 8 = 2.4
    network = _linear()
    np.testing.assert_allclose(call(network, PIXELS), [[12.4]], rtol=1e-6)
    np.testing.assert_allclose(call(network, np.float32(PIXELS / 255)), [[12.4]], rtol=1e-6)


def test_gradient_with_respect_to_float_images():
    network, images = _linear(), tf.constant(PIXELS / 255, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = network(images)
    expected = [[[[4], [8]], [[12], [16]]]]  # weight / 0.25
    np.testing.assert_allclose(tape.gradient(logits, images), expected, rtol=1e-6)


def test_fit_on_bytes_learns_from_scaled_pixels():
    # d(mean squared error)/d(weight) = 2 * (12.4 - 11.4) * normalised pixel, d/d(bias) = 2.
    network = _linear()
    network.compile(keras.optimizers.SGD(0.1), loss="mse")
    network.fit(PIXELS, np.array([[11.4]]), verbose=0)
    kernel, bias = network.get_weights()
    np.testing.assert_allclose(kernel[:, 0], [1.4, 2.24, 3.08, 3.6], rtol=1e-5)
    np.testing.assert_allclose(bias, [9.8], rtol=1e-5)


def test_saved_model_still_scales(tmp_path):
    path = tmp_path / "linear.keras"
    _linear().save(path)
    network = keras.models.load_model(path)
    assert isinstance(network, ImageNetwork)
    assert (network.name, network.input_shape) == ("linear", (None, 2, 2, 1))
    np.testing.assert_allclose(network(PIXELS), [[12.4]], rtol=1e-6)


def test_weights_travel_by_file(tmp_path):
    path = tmp_path / "linear.weights.h5"
    network = _linear()
    network.save_weights(path)
    network.set_weights([np.zeros((4, 1)), np.zeros(1)])
    network.load_weights(path)
    np.testing.assert_allclose(network(PIXELS), [[12.4]], rtol=1e-6)


def test_clone_still_scales():
    clone = keras.models.clone_model(_linear())
    clone.set_weights(_linear().get_weights())
    np.testing.assert_allclose(clone(PIXELS), [[12.4]], rtol=1e-6)


def test_one_replica_per_device_scales_too():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        network = _linear()
    logits = strategy.run(network, args=(tf.constant(PIXELS),))
    np.testing.assert_allclose(strategy.reduce("sum", logits, axis=None), [[12.4]], rtol=1e-6)


def test_pixels_keep_float32_under_mixed_precision(mixed_bfloat16):
    # In bfloat16 0.998 would become 1.0, and (1 - 0.5) / 0.25 = 2 instead of 1.992.
    images = keras.Input((1, 1, 1))
    network = ImageNetwork(
        images, keras.layers.Flatten(dtype="float32")(normalise(images, 0.5, 0.25))
    )
    np.testing.assert_allclose(network(np.full((1, 1, 1, 1), 0.998, "float32")), [[1.992]], 1e-6)


@pytest.mark.parametrize(
    ("channels", "mean", "std", "expected"),
    [
        (1, None, None, [(1 - 0.2860) / 0.3530]),
        (3, None, None, [(1 - 0.4914) / 0.247, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616]),
        (3, 0.5, (0.5, 0.25, 0.1), [1.0, 2.0, 5.0]),
        (2, (0.0, 0.5), 0.5, [2.0, 1.0]),
        (2, np.float32([0.0, 0.5]), np.float32(0.5), [2.0, 1.0]),
    ],
)
def test_normalise_a_white_pixel(channels, mean, std, expected):
    images = keras.Input((1, 1, channels))
    network = ImageNetwork(images, keras.layers.Flatten()(normalise(images, mean, std)))
    white = np.full((1, 1, 1, channels), 255, "uint8")
    np.testing.assert_allclose(network(white), [expected], rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "mean", "std", "message"),
    [
        (3, (0.5, 0.5), 1.0, r"Received: mean=\[0.5, 0.5\] for 3 channels"),
        (2, None, 1.0, "Received: 2 channels and mean=None"),
        (1, 0.5, 0.0, r"Received: std=\[0.0\]"),
    ],
)
def test_normalise_refuses(channels, mean, std, message):
    with pytest.raises(ValueError, match=message):
        normalise(keras.Input((4, 4, channels)), mean, std)


@pytest.mark.parametrize("shape", [(32, 32), (8, 7, 3), (7, 8, 3)])
def test_image_shape_is_checked(shape):
    with pytest.raises(ValueError, match=r"at least 8 pixels\. Received: input_shape="):
        check_image_shape(shape, minimum_side=8)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
