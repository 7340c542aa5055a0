"""The three networks against their papers, and their blocks by hand."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from train.image_network import IMAGENET_MEAN, IMAGENET_STD, ImageNetwork
from train.resnet50 import bottleneck_block, resnet50
from train.small_resnet import small_resnet
from train.wide_resnet import batch_norm_relu, pre_activation_block, wide_resnet

MOMENTS = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
# Name, side of the images, classes; parameters that are trained, and the mean and the variance of
# each channel of a batch norm; the shapes of what the blocks add up.
NETWORKS = {
    # First kernel 9*16. Blocks with a batch norm (2 a channel) before each 3x3 kernel:
    # 16 -> 16: 32 + 9*16*16 + 32 + 9*16*16 = 4672
    # 16 -> 32: 32 + 9*16*32 + 64 + 9*32*32, shortcut 16*32 = 14432
    # 32 -> 64: 64 + 9*32*64 + 128 + 9*64*64, shortcut 32*64 = 57536
    # Last batch norm 128, dense 64*10 + 10.
    "small_resnet": (
        lambda: small_resnet((28, 28, 1), 10, mean=0.5, std=0.25, l2=0.5),
        (144 + 4672 + 14432 + 57536 + 128 + 650, 2 * (16 + 16 + 16 + 32 + 32 + 64 + 64)),
        [(14, 14, 16), (7, 7, 32), (4, 4, 64)],
    ),
    # 36.5 million (Zagoruyko & Komodakis, table 4). A block sees its input's and its own channels.
    "wide_resnet_28_10": (
        lambda: wide_resnet((8, 8, 3), 10, **MOMENTS, l2=0.5),
        (36_479_194, 2 * (16 + 160 * 7 + 160 + 320 * 7 + 320 + 640 * 7 + 640)),
        [(8, 8, 160)] * 4 + [(4, 4, 320)] * 4 + [(2, 2, 640)] * 4,
    ),
    # As torchvision's; a batch norm behind each of the 53 convolutions sees 26,560 channels.
    "resnet50": (
        lambda: resnet50((32, 64, 3), 1000, **MOMENTS, l2=0.5),
        (25_557_032, 2 * 26_560),
        [(8, 16, 256)] * 3 + [(4, 8, 512)] * 4 + [(2, 4, 1024)] * 6 + [(1, 2, 2048)] * 3,
    ),
}


def _layers(network, kind):
    return [layer for layer in network.layers if isinstance(layer, kind)]


@pytest.fixture(scope="module", params=NETWORKS)
def built(request):
    """A network whose hidden layers compute in bfloat16, its parameters and its sums."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = NETWORKS[request.param][0]()
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert network.name == request.param
    return network, *NETWORKS[request.param][1:]


def test_parameters_and_resolutions_are_those_of_the_paper(built):
    network, (trainable, moving), sums = built
    assert sum(math.prod(weight.shape) for weight in network.trainable_weights) == trainable
    assert network.count_params() == trainable + moving
    assert [tuple(layer.output.shape[1:]) for layer in _layers(network, keras.layers.Add)] == sums


def test_bytes_and_floats_give_the_same_logits_in_single_precision(built):
    network, *_ = built
    assert isinstance(network, ImageNetwork)
    assert _layers(network, keras.layers.Conv2D)[0].compute_dtype == "bfloat16"
    images = np.random.default_rng(0).integers(0, 2, (2, *network.input_shape[1:]))
    logits = network((255 * images).astype("uint8"))
    assert logits.dtype == tf.float32 and np.ptp(logits) > 1e-2
    np.testing.assert_array_equal(logits, network(images.astype("float32")))


def test_penalty_lies_on_what_is_trained_but_on_no_batch_norm_of_resnet50(built):
    network, *_ = built
    network.layers[-1].bias.assign(tf.range(float(network.output_shape[-1])))
    layers = _layers(network, (keras.layers.Conv2D, keras.layers.Dense))
    if network.name != "resnet50":
        layers += _layers(network, keras.layers.BatchNormalization)
        for norm in layers[-3:]:
            norm.beta.assign(norm.beta + 0.5)
    weights = [weight.numpy() for layer in layers for weight in layer.trainable_weights]
    expected = 0.5 * sum(np.sum(np.square(weight, dtype=np.float64)) for weight in weights)
    assert float(tf.add_n(network.losses)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("built", ["resnet50"], indirect=True)
def test_resnet50_is_version_1_5(built):
    network, *_ = built
    convolutions = _layers(network, keras.layers.Conv2D)
    strided = [layer.kernel_size[0] for layer in convolutions if layer.strides == (2, 2)]
    # The stem, then a 3x3 and the 1x1 of the shortcut in each of the last three stages.
    assert sorted(strided) == [1, 1, 1, 3, 3, 3, 7]
    norms = _layers(network, keras.layers.BatchNormalization)
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}
    assert all(np.all(norm.gamma.numpy() == 1.0) for norm in norms)
    # The first kernel is centred on every other pixel.
    kernel = np.zeros((7, 7, 3, 64))
    kernel[3, 3, :, :3] = np.eye(3)
    convolutions[0].set_weights([kernel])
    image = np.random.default_rng(0).random((1, 32, 64, 3), "float32")
    out = keras.Model(network.inputs[0], convolutions[0].output)(image)
    expected = (image[:, ::2, ::2] - np.array(IMAGENET_MEAN)) / IMAGENET_STD
    np.testing.assert_allclose(tf.cast(out, tf.float32)[..., :3], expected, atol=0.02)


def test_bottleneck_by_hand():
    # One pixel, kernels of 2, 3 and 0.5 (the middle of the 3x3), four equal outputs: the branch is
    # max(2x, 0) * 3 * 0.5, to which x is added. 1: 3 + 1 = 4. -1: 0 - 1, which ReLU makes 0.
    # Batch norm at its initial state only divides by sqrt(1 + 1e-5).
    pixels = keras.Input((1, 1, 4))
    network = keras.Model(pixels, bottleneck_block(pixels, 1, 1, None, synchronized=False))
    for layer, value in zip(_layers(network, keras.layers.Conv2D), (0.5, 3.0, 0.5), strict=True):
        layer.set_weights([np.full(layer.weights[0].shape, value)])
    out = network(np.array([[[[1.0] * 4]], [[[-1.0] * 4]]], "float32"))
    np.testing.assert_allclose(out[:, 0, 0], [[4.0] * 4, [0.0] * 4], rtol=1e-4)


def test_batch_norm_constants():
    # Pixels 0 and 4 have mean 2 and variance 4; a tenth of the mean enters the moving one.
    images = keras.Input((1, 2, 1))
    network = keras.Model(images, batch_norm_relu(images, None))
    out = network(np.array([[[[0.0], [4.0]]]], "float32"), training=True)
    np.testing.assert_allclose(out[0, 0, :, 0], [0, 2 / np.sqrt(4 + 1e-5)], rtol=1e-6)
    moving_mean = next(w for w in network.non_trainable_weights if np.all(w.numpy() < 0.5))
    np.testing.assert_allclose(moving_mean, [0.2], rtol=1e-6)


@pytest.mark.parametrize(
    "network", [small_resnet, functools.partial(wide_resnet, depth=10, width=1), resnet50]
)
def test_batch_norm_is_synchronized_in_every_layer(network):
    built = network((32, 32, 3), 2, **MOMENTS, synchronized=True)
    norms = _layers(built, keras.layers.BatchNormalization)
    assert len(norms) >= 7 and all(norm.synchronized for norm in norms)


def _block(strides, filters, size):
    images = keras.Input((size, size, 1))
    return keras.Model(images, pre_activation_block(images, filters, strides, None))


def test_pre_activation_block_by_hand():
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


@pytest.mark.parametrize("depth", [4, 9, 27, -2])
def test_depth_is_checked(depth):
    with pytest.raises(ValueError, match=f"depth={depth}"):
        wide_resnet((32, 32, 3), 10, depth=depth, **MOMENTS)


@pytest.mark.parametrize(
    ("network", "shape", "side"),
    [
        (small_resnet, (7, 8, 3), 8),
        (wide_resnet, (8, 7, 3), 8),
        (wide_resnet, (32, 32), 8),
        (resnet50, (28, 32, 3), 32),
    ],
)
def test_small_images_are_refused(network, shape, side):
    with pytest.raises(ValueError, match=f"{side} pixels.*{shape[0]}, {shape[1]}"):
        network(shape, 10, **MOMENTS)
