"""ResNet-50 for ImageNet."""

from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras

from train.image_network import ImageNetwork, check_image_shape, normalise
from train.wide_resnet import convolution


def batch_norm(x: tf.Tensor, synchronized: bool) -> tf.Tensor:
    """Normalises over the batch with momentum 0.9 and epsilon 1e-5; the scale starts at one."""
    norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, synchronized=synchronized)
    return norm(x)


def bottleneck_block(
    x: tf.Tensor,
    filters: int,
    strides: int,
    regularizer: keras.regularizers.Regularizer,
    synchronized: bool,
) -> tf.Tensor:
    """Adds 1x1, 3x3 and 1x1 convolutions, batch norm after each, to ``x``; ReLU follows the sum.

    The third one has four times as many filters. The 3x3 one is strided, in version 1.5; the paper
    strides the first 1x1.
    """
    y = batch_norm(convolution(x, filters, 1, 1, regularizer), synchronized)
    y = convolution(keras.layers.ReLU()(y), filters, 3, strides, regularizer)
    y = keras.layers.ReLU()(batch_norm(y, synchronized))
    y = batch_norm(convolution(y, 4 * filters, 1, 1, regularizer), synchronized)
    if strides != 1 or x.shape[-1] != 4 * filters:
        x = batch_norm(convolution(x, 4 * filters, 1, strides, regularizer), synchronized)
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


def resnet50(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    l2: float = 1e-4,
    synchronized: bool = False,
) -> keras.Model:
    """Builds ResNet-50, version 1.5, that takes raw images.

    The defaults are those of uncertainty-baselines on ImageNet, where it reaches 76.2% top-1 with
    224 x 224 pixels. Sides have at least 32 pixels, and the penalty ``l2 * sum(w**2)`` lies on
    kernels and biases, not on batch norm; else arguments, result and errors are those of
    ``wide_resnet``.

    References:
        He et al., "Deep Residual Learning for Image Recognition", 2015, table 1,
        https://arxiv.org/abs/1512.03385

    Example:

        >>> resnet50((224, 224, 3), 1000, mean=0.5, std=0.25).count_params()
        25610152
    """
    regularizer = keras.regularizers.L2(l2)
    images = keras.Input(check_image_shape(input_shape, minimum_side=32))
    x = normalise(images, mean, std)
    # "Same" would pad an even side by 2 and 3 pixels, half a stride off the published network.
    x = keras.layers.ZeroPadding2D(3)(x)
    x = convolution(x, 64, 7, 2, regularizer, padding="valid")
    x = keras.layers.ReLU()(batch_norm(x, synchronized))
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for filters, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for strides in [first_stride] + [1] * (blocks - 1):
            x = bottleneck_block(x, filters, strides, regularizer, synchronized)
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        kernel_regularizer=regularizer,
        bias_regularizer=regularizer,
        dtype="float32",
    )(x)
    return ImageNetwork(images, logits, name="resnet50")
