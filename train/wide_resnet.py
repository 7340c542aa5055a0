"""Wide residual networks, and the pre-activation block that they are made of."""

from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras

from train.image_network import ImageNetwork, check_image_shape, normalise


def convolution(
    x: tf.Tensor,
    filters: int,
    kernel_size: int,
    strides: int,
    regularizer: keras.regularizers.Regularizer,
    padding: str = "same",
) -> tf.Tensor:
    """Convolves with He-normal kernels and no bias."""
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=regularizer,
    )(x)


def batch_norm_relu(
    x: tf.Tensor, regularizer: keras.regularizers.Regularizer, synchronized: bool = False
) -> tf.Tensor:
    """Normalises over the batch (momentum 0.9, epsilon 1e-5), then ReLU."""
    x = keras.layers.BatchNormalization(
        momentum=0.9,
        epsilon=1e-5,
        gamma_regularizer=regularizer,
        beta_regularizer=regularizer,
        synchronized=synchronized,
    )(x)
    return keras.layers.ReLU()(x)


def pre_activation_block(
    x: tf.Tensor,
    filters: int,
    strides: int,
    regularizer: keras.regularizers.Regularizer,
    synchronized: bool = False,
) -> tf.Tensor:
    """Adds twice (batch norm, ReLU, 3x3 convolution) to ``x`` (He et al. 2016, figure 4e).

    The penalty is on kernels and on scale and offset of each batch norm; the first convolution is
    strided. The shortcut is the identity where the shape stays, and a 1x1 convolution elsewhere.
    """
    y = batch_norm_relu(x, regularizer, synchronized)
    y = convolution(y, filters, 3, strides, regularizer)
    y = batch_norm_relu(y, regularizer, synchronized)
    y = convolution(y, filters, 3, 1, regularizer)
    if strides != 1 or x.shape[-1] != filters:
        x = convolution(x, filters, 1, strides, regularizer)
    return keras.layers.Add()([x, y])


def classify(
    x: tf.Tensor,
    num_classes: int,
    regularizer: keras.regularizers.Regularizer,
    synchronized: bool = False,
) -> tf.Tensor:
    """Averages features over the image and maps them to float32 logits ``[batch, num_classes]``."""
    x = batch_norm_relu(x, regularizer, synchronized)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(
        num_classes,
        kernel_initializer="he_normal",
        kernel_regularizer=regularizer,
        bias_regularizer=regularizer,
        dtype="float32",
    )(x)


def wide_resnet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    depth: int = 28,
    width: int = 10,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    l2: float = 2e-4,
    synchronized: bool = False,
) -> keras.Model:
    """Builds WRN-depth-width, version 2 (pre-activation), that takes raw images.

    The defaults are those of uncertainty-baselines on CIFAR, where WRN-28-10 reaches 96.0% on
    CIFAR-10 and 79.8% on CIFAR-100.

    Args:
        input_shape: Height, width and channels; sides of at least 8 pixels.
        num_classes: Number of logits.
        depth: Convolutions along the longest path, those of the projections not counted: 6n + 4.
        width: Multiplies the 16, 32 and 64 channels of the three groups.
        mean: Of the training pixels in [0, 1], per channel or one number.
        std: The same for the standard deviation.
        l2: Strength of the penalty ``l2 * sum(w**2)`` on all trainable weights, batch norm's
            included.
        synchronized: Whether batch norm takes mean and variance over the batch of all replicas;
            else each has its own part of the batch, as published networks are trained.

    Returns:
        A model from images [batch, height, width, channels], uint8 in 0..255 or float in [0, 1], to
        float32 logits [batch, num_classes].

    Raises:
        ValueError: If ``depth`` is not 6n + 4, n > 0, or the image shape, the mean or the standard
            deviation does not fit.

    References:
        Zagoruyko and Komodakis, "Wide Residual Networks", 2016, https://arxiv.org/abs/1605.07146

    Example:

        >>> wide_resnet((32, 32, 3), 10, depth=10, width=1, mean=0.5, std=0.25).count_params()
        78330
    """
    if depth < 10 or (depth - 4) % 6 != 0:
        raise ValueError(f"`depth` must be 6n + 4: 10, 16, 22, 28, ... Received: depth={depth}")
    regularizer = keras.regularizers.L2(l2)
    images = keras.Input(check_image_shape(input_shape, minimum_side=8))
    x = normalise(images, mean, std)
    x = convolution(x, 16, 3, 1, regularizer)
    for filters, first_stride in ((16, 1), (32, 2), (64, 2)):
        for strides in [first_stride] + [1] * ((depth - 4) // 6 - 1):
            x = pre_activation_block(x, filters * width, strides, regularizer, synchronized)
    logits = classify(x, num_classes, regularizer, synchronized)
    return ImageNetwork(images, logits, name=f"wide_resnet_{depth}_{width}")
