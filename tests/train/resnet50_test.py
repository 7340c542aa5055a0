import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from train.resnet50 import bottleneck_block, resnet50


@pytest.fixture(scope="module")
def imagenet_network():
    return resnet50((224, 224, 3), 1000)


def _layers(network, kind):
    return [layer for layer in network.layers if isinstance(layer, kind)]


def _convolution_shapes():
    """Table 1 of the paper: (kernel side, channels in, channels out) of each convolution."""
    shapes = [(7, 3, 64)]
    before = 64
    for filters, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(1, before, filters), (3, filters, filters), (1, filters, 4 * filters)]
            shapes += [(1, before, 4 * filters)] if block == 0 else []
            before = 4 * filters
    return shapes


def test_parameters_are_those_of_the_paper(imagenet_network):
    shapes = _convolution_shapes()
    kernels = sum(side * side * before * after for side, before, after in shapes)
    channels = sum(after for _, _, after in shapes)  # a batch norm after each convolution
    dense = 2048 * 1000 + 1000
    assert (len(shapes), kernels, channels) == (53, 23_454_912, 26_560)
    trainable = kernels + 2 * channels + dense
    assert trainable == 25_557_032
    weights = imagenet_network.trainable_weights
    assert sum(int(np.prod(weight.shape)) for weight in weights) == trainable
    assert imagenet_network.count_params() == trainable + 2 * channels == 25_610_152


def test_stages_halve_the_image(imagenet_network):
    sums = [tuple(layer.output.shape[1:]) for layer in _layers(imagenet_network, keras.layers.Add)]
    assert sums == (
        [(56, 56, 256)] * 3 + [(28, 28, 512)] * 4 + [(14, 14, 1024)] * 6 + [(7, 7, 2048)] * 3
    )


def test_strides_sit_in_the_3x3_convolutions(imagenet_network):
    strided = [
        layer.kernel_size[0]
        for layer in _layers(imagenet_network, keras.layers.Conv2D)
        if layer.strides == (2, 2)
    ]
    # The stem, then a 3x3 and the 1x1 of the shortcut in each of the last three stages.
    assert sorted(strided) == [1, 1, 1, 3, 3, 3, 7]


def test_penalty_lies_on_kernels_and_biases_only():
    network = resnet50((32, 32, 3), 5, l2=0.5)
    dense = network.layers[-1]
    dense.set_weights([dense.get_weights()[0], np.full(5, 2.0)])
    squares = [
        np.sum(np.square(layer.get_weights()[0]))
        for layer in [*_layers(network, keras.layers.Conv2D), dense]
    ]
    expected = 0.5 * (sum(squares) + 5 * 2.0**2)
    assert float(tf.add_n(network.losses)) == pytest.approx(expected, rel=1e-5)


def test_batch_norm_constants(imagenet_network):
    norms = _layers(imagenet_network, keras.layers.BatchNormalization)
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}
    assert all(np.all(norm.gamma.numpy() == 1.0) for norm in norms)


def test_block_by_hand():
    # One pixel, kernels of 2, 3 and 0.5 (the middle of the 3x3), four equal outputs: the branch is
    # max(2x, 0) * 3 * 0.5, to which x is added. 1: 3 + 1 = 4. -1: 0 - 1, which ReLU makes 0.
    # Batch norm at its initial state only divides by sqrt(1 + 1e-5).
    pixels = keras.Input((1, 1, 4))
    network = keras.Model(pixels, bottleneck_block(pixels, 1, 1, None))
    for layer, value in zip(_layers(network, keras.layers.Conv2D), (0.5, 3.0, 0.5), strict=True):
        layer.set_weights([np.full(layer.weights[0].shape, value)])
    out = network(np.array([[[[1.0] * 4]], [[[-1.0] * 4]]], "float32"))
    np.testing.assert_allclose(out[:, 0, 0], [[4.0] * 4, [0.0] * 4], rtol=1e-4)


def test_bytes_and_floats_give_the_same_logits():
    network = resnet50((32, 40, 3), 4)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3)).astype("uint8")
    logits = network(images)
    np.testing.assert_allclose(logits, network(np.float32(images / 255)), rtol=1e-4, atol=1e-6)
    assert logits.shape == (2, 4) and logits.dtype == tf.float32
    assert np.ptp(logits) > 1e-2


def test_imagenet_mean_becomes_zero():
    network = resnet50((32, 32, 3), 4)
    normalised = keras.Model(network.inputs[0], network.layers[1].output)
    images = np.tile(np.float32([0.485 + 0.229, 0.456, 0.406 - 0.225]), (1, 32, 32, 1))
    np.testing.assert_allclose(normalised(images)[0, 0, 0], [1.0, 0.0, -1.0], atol=1e-5)


def test_first_convolution_is_centred_on_every_other_pixel():
    network = resnet50((32, 32, 1), 4, mean=0.0, std=1.0)
    first = _layers(network, keras.layers.Conv2D)[0]
    kernel = np.zeros((7, 7, 1, 64))
    kernel[3, 3] = 1.0
    first.set_weights([kernel])
    image = np.random.default_rng(0).random((1, 32, 32, 1), "float32")
    out = keras.Model(network.inputs[0], first.output)(image)
    np.testing.assert_allclose(out[0, :, :, 5], image[0, ::2, ::2, 0], rtol=1e-6)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match=r"at least 32 pixels\. Received: input_shape=\(28, 28, 3"):
        resnet50((28, 28, 3), 10)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
