"""What every network here shares: raw images in, whether uint8 or float, and float32 logits out."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import to_float

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@keras.utils.register_keras_serializable(package="keras_autolabel.train")
class ImageNetwork(keras.Model):
    """A functional model that may be called on raw images, uint8 in 0..255 or float in [0, 1].

    Keras casts what a functional model is given to the dtype of its ``Input`` before the first
    layer sees it, so no layer can tell the byte 255 from the float 255. The dtype is therefore
    looked at here, one step earlier. All else (``input_shape``, ``summary``, saving, cloning) is
    what every functional model has. As a layer of another functional model it gets what that one
    has cast to float: scale bytes before.

    Example:

        >>> pixels = keras.Input((1, 2, 1))
        >>> network = ImageNetwork(pixels, keras.layers.Flatten()(pixels))
        >>> network(np.array([[[[0], [255]]]], "uint8")).numpy().tolist()
        [[0.0, 1.0]]
        >>> network(np.array([[[[0.0], [0.5]]]], "float32")).numpy().tolist()
        [[0.0, 0.5]]
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the float32 logits of images, uint8 in 0..255 or float in [0, 1]."""
        return super().call(to_float(inputs), training=training, mask=mask)


def normalise(
    images: tf.Tensor, mean: float | Sequence[float], std: float | Sequence[float]
) -> tf.Tensor:
    """Applies the layer (images - mean) / std, in float32 whatever the global dtype policy is.

    Bfloat16 would round a pixel near 1 to steps of 1/256, as coarse as a step of an attack.

    Mean and standard deviation are one number for all channels, or one per channel.

    Raises:
        ValueError: If there are neither one nor ``channels`` numbers, or a deviation is not
            positive.
    """
    channels, moments = images.shape[-1], {}
    for name, values in (("mean", mean), ("std", std)):
        # Lists of Python's numbers: these can be saved.
        values = np.atleast_1d(values).astype(float).tolist()
        if len(values) not in (1, channels):
            raise ValueError(
                f"`{name}` must be one number or one per channel. "
                f"Received: {name}={values} for {channels} channels"
            )
        moments[name] = values * (channels // len(values))
    if min(moments["std"]) <= 0.0:
        raise ValueError(f"`std` must be positive. Received: std={moments['std']}")
    variance = [deviation**2 for deviation in moments["std"]]
    mean = moments["mean"]
    return keras.layers.Normalization(mean=mean, variance=variance, dtype="float32")(images)


def check_image_shape(input_shape: Sequence[int], minimum_side: int) -> tuple[int, int, int]:
    """Returns (height, width, channels) of an image as a tuple.

    Raises:
        ValueError: If there are not three numbers, or a side has less than ``minimum_side`` pixels.
    """
    input_shape = tuple(input_shape)
    if len(input_shape) != 3 or min(input_shape[:2]) < minimum_side:
        raise ValueError(
            "`input_shape` must be (height, width, channels) with sides of at least "
            f"{minimum_side} pixels. Received: input_shape={input_shape}"
        )
    return input_shape
