import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from train.image_network import ImageNetwork
from train.wide_resnet import batch_norm_relu, pre_activation_block, wide_resnet


@pytest.fixture(scope="module")
def wrn_28_10():
    return wide_resnet((32, 32, 3), 10)


@pytest.fixture
def mixed_bfloat16():
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy(before)


def _layers(network, kind):
    return [layer for layer in network.layers if isinstance(layer, kind)]


def _wrn_trainable_by_hand(depth, width, channels, num_classes):
    """Kernels k * k * in * out without biases; batch norm has a scale and an offset a channel."""
    total = 9 * channels * 16
    before = 16
    for filters in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += 2 * before + 9 * before * filters
            total += 2 * filters + 9 * filters * filters
            total += before * filters if before != filters else 0
            before = filters
    return total + 2 * before + before * num_classes + num_classes


def _wrn_moving_by_hand(depth, width):
    """A mean and a variance for each channel that a batch norm sees."""
    blocks = (depth - 4) // 6
    channels = 16 + (2 * blocks - 1) * 16 * width
    channels += 16 * width + (2 * blocks - 1) * 32 * width
    channels += 32 * width + (2 * blocks - 1) * 64 * width
    return 2 * (channels + 64 * width)


def test_wrn_28_10_has_36_5_million_parameters(wrn_28_10):
    trainable = _wrn_trainable_by_hand(28, 10, 3, 10)
    moving = _wrn_moving_by_hand(28, 10)
    assert (trainable, moving) == (36_479_194, 17_952)
    assert sum(int(np.prod(weight.shape)) for weight in wrn_28_10.trainable_weights) == trainable
    assert wrn_28_10.count_params() == trainable + moving == 36_497_146
    assert round(wrn_28_10.count_params() / 1e6, 1) == 36.5


@pytest.mark.parametrize(
    ("depth", "width", "shape", "num_classes"), [(10, 1, (28, 28, 1), 10), (16, 2, (8, 9, 3), 7)]
)
def test_smaller_ones_have_the_parameters_of_the_formula(depth, width, shape, num_classes):
    network = wide_resnet(shape, num_classes, depth=depth, width=width)
    expected = _wrn_trainable_by_hand(depth, width, shape[-1], num_classes)
    assert network.count_params() == expected + _wrn_moving_by_hand(depth, width)


def test_wrn_28_10_halves_the_image_between_groups(wrn_28_10):
    sums = [tuple(layer.output.shape[1:]) for layer in _layers(wrn_28_10, keras.layers.Add)]
    assert sums == [(32, 32, 160)] * 4 + [(16, 16, 320)] * 4 + [(8, 8, 640)] * 4


def test_penalty_lies_on_every_trainable_weight():
    network = wide_resnet((8, 8, 1), 3, depth=10, width=1, l2=0.5)
    rng = np.random.default_rng(0)
    network.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in network.get_weights()])
    squares = [np.sum(np.square(weight.numpy())) for weight in network.trainable_weights]
    assert float(tf.add_n(network.losses)) == pytest.approx(0.5 * sum(squares), rel=1e-5)


def test_batch_norm_constants():
    # Pixels 0 and 4 have mean 2 and variance 4; a tenth of the mean enters the moving one.
    images = keras.Input((1, 2, 1))
    network = keras.Model(images, batch_norm_relu(images, None))
    out = network(np.array([[[[0.0], [4.0]]]], "float32"), training=True)
    np.testing.assert_allclose(out[0, 0, :, 0], [0, 2 / np.sqrt(4 + 1e-5)], rtol=1e-6)
    moving_mean = next(w for w in network.non_trainable_weights if np.all(w.numpy() < 0.5))
    np.testing.assert_allclose(moving_mean, [0.2], rtol=1e-6)


def _block(strides, filters, size):
    images = keras.Input((size, size, 1))
    return keras.Model(images, pre_activation_block(images, filters, strides, None))


def test_block_by_hand():
    # Pixel 3: (3 - 1) / 2 * 2 + 0.5 = 2.5; times 2 is 5; minus 1 is 4; times 3 is 12; plus 3 is 15.
    # Pixel -3: -4 / 2 * 2 + 0.5 < 0, so ReLU, convolution, -1 and ReLU leave 0, and -3 remains.
    network = _block(strides=1, filters=1, size=1)
    norms = _layers(network, keras.layers.BatchNormalization)
    norms[0].set_weights([np.full(1, v) for v in (2.0, 0.5, 1.0, 4.0 - 1e-5)])
    norms[1].set_weights([np.full(1, v) for v in (1.0, -1.0, 0.0, 1.0 - 1e-5)])
    for layer, value in zip(_layers(network, keras.layers.Conv2D), (2.0, 3.0), strict=True):
        layer.set_weights([np.full((3, 3, 1, 1), value)])
    out = network(np.array([3.0, -3.0], "float32").reshape(2, 1, 1, 1))
    np.testing.assert_allclose(np.ravel(out), [15.0, -3.0], rtol=1e-5)


def test_projection_sees_the_block_s_input():
    # With all 3x3 kernels zero only the strided 1x1 convolution of the raw image is left.
    network = _block(strides=2, filters=2, size=4)
    for layer in _layers(network, keras.layers.Conv2D):
        kernel = np.zeros(layer.weights[0].shape)
        if layer.kernel_size == (1, 1):
            kernel[0, 0, 0] = [1.0, -10.0]
        layer.set_weights([kernel])
    image = np.arange(-8, 8, dtype="float32").reshape(1, 4, 4, 1)
    corners = np.array([[-8, -6], [0, 2]])
    np.testing.assert_allclose(network(image)[0, :, :, 0], corners)
    np.testing.assert_allclose(network(image)[0, :, :, 1], -10 * corners)


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_and_floats_give_the_same_logits(channels):
    network = wide_resnet((12, 9, channels), 4, depth=10, width=1)
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 9, channels)).astype("uint8")
    np.testing.assert_allclose(network(images), network(np.float32(images / 255)), atol=1e-6)
    assert np.ptp(network(images), axis=0).min() > 1e-3


def test_it_learns_eight_images_by_heart(tmp_path):
    keras.utils.set_random_seed(0)
    network = wide_resnet((8, 8, 1), 4, depth=10, width=1, l2=0.0)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype("uint8")
    labels = np.arange(8) % 4
    network.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = network.fit(images, labels, epochs=30, verbose=0).history["loss"]
    assert losses[0] > 1.0 > 0.05 > losses[-1]
    network.save(tmp_path / "network.keras")
    copy = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_allclose(copy(images), network(images), rtol=1e-5)


def test_logits_are_float32_under_mixed_precision(mixed_bfloat16):
    network = wide_resnet((8, 8, 3), 4, depth=10, width=1)
    logits = network(np.zeros((1, 8, 8, 3), "uint8"))
    assert logits.dtype == tf.float32
    assert _layers(network, keras.layers.Conv2D)[0].compute_dtype == "bfloat16"


def test_name_and_type():
    network = wide_resnet((8, 8, 3), 4, depth=16, width=1)
    assert isinstance(network, ImageNetwork)
    assert (network.name, network.input_shape) == ("wide_resnet_16_1", (None, 8, 8, 3))


@pytest.mark.parametrize("depth", [4, 9, 27, -2])
def test_depth_is_checked(depth):
    with pytest.raises(ValueError, match=rf"Received: depth={depth}"):
        wide_resnet((32, 32, 3), 10, depth=depth)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
