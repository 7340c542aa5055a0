"""The network inside an ``AutoLabelModel``: in the range that it expects, and checked."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

# Layers of preprocessing and activation by the names of their classes, the same in every Keras.
PASSED_OVER = ("InputLayer", "Resizing", "CenterCrop", "ZeroPadding2D", "Cropping2D")
# What Keras 2 makes of an operation on a tensor; Keras 3 has operations that are no layers.
OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
ACTIVATIONS = ("Softmax", "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU")
# What a network's first layer makes of images spans about 1 to 5; a factor of 255 cannot hide.
SMALLEST_SPAN, LARGEST_SPAN = 0.1, 30.0


class OnUnitImages:
    """A network as a function of images in [0, 1], whatever its own range is.

    Example:
        >>> network = keras.Sequential([keras.Input((1, 2, 1)), keras.layers.Flatten()])
        >>> OnUnitImages(network, (0, 255))(tf.constant([[[[0.0], [1.0]]]])).numpy().tolist()
        [[0.0, 255.0]]
    """

    def __init__(self, network: keras.Model, value_range: tuple[float, float]) -> None:
        self.network = network
        self.value_range = value_range

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The network's outputs of float images [B, H, W, C] in [0, 1]."""
        low, high = self.value_range
        if (low, high) != (0.0, 1.0):
            images = low + (high - low) * images
        return self.network(images, training=training)

    @property
    def weights(self) -> list:
        """The weights of the network."""
        return self.network.weights


def check_construction(network: keras.Model, value_range: tuple[float, float]) -> None:
    """Refuses a network by what it is made of: its inputs, outputs, first and last layer.

    Args:
        network: The network. Of a sequential model without an input shape its layers are known, of
            a subclass only its kind; ``check_outputs`` probes them.
        value_range: The range that it is to get its images in.

    Raises:
        ValueError: If it is no Keras model of one input, images, and one output, its first layer
            or its first operations rescale another range, or its last layer is an activation.
    """
    if not isinstance(network, keras.layers.Layer):
        raise ValueError(
            "network must be a Keras model that maps images to logits, such as "
            f"keras.Sequential([...]). Received: {network!r}"
        )
    if isinstance(network, keras.Sequential) and network.layers:
        _check_layers(list(_leaves(network)), value_range)
    if not getattr(network, "inputs", None):
        return
    for name, shape in (("input", network.input_shape), ("output", network.output_shape)):
        # Of a dict of one, Keras 3 tells the shape of the one.
        named = isinstance(getattr(network, name, None), dict) or isinstance(shape, dict)
        if named or any(isinstance(size, list | tuple) for size in shape):
            raise ValueError(
                f"The network must have one {name}, a tensor: wrap what it should be in "
                f"keras.Model(images, logits). Received: {name}s of shapes {shape}"
            )
    if len(network.input_shape) != 4:
        raise ValueError(
            "The network must take images, [B, H, W, C]. "
            f"Received: an input of shape {network.input_shape}"
        )
    _check_layers(list(_leaves(network)), value_range)
    _check_first_operations(network, value_range)


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _check_layers(layers: Sequence[keras.layers.Layer], value_range) -> None:
    _check_first_layer(layers, value_range)
    _check_last_layer(layers[-1])


def _keeps_range(layer: keras.layers.Layer) -> bool:
    """Whether a layer, or all layers of a model, leave pixels in the range in which they are."""
    if isinstance(layer, keras.Model):
        return all(map(_keeps_range, layer.layers))
    kind = type(layer).__name__
    return kind in PASSED_OVER or kind.startswith("Random")


def _check_first_layer(layers: Sequence[keras.layers.Layer], value_range) -> None:
    for layer in layers:
        kind = type(layer).__name__
        if _keeps_range(layer):
            continue
        if kind == "Rescaling":
            factor = np.max(np.abs(layer.scale))
        elif kind == "Normalization" and layer.variance is not None:
            factor = 1.0 / np.sqrt(np.max(np.asarray(layer.variance)))
        else:
            return
        span = factor * (value_range[1] - value_range[0])
        if SMALLEST_SPAN <= span <= LARGEST_SPAN:
            return
        fitting = (0, 255) if span < SMALLEST_SPAN else (0, 1)
        raise ValueError(
            f"The network's layer {layer.name!r} ({kind}) expects images in another range: pass "
            f"AutoLabelModel(..., value_range={fitting}), or leave the layer out. "
            f"Received: value_range={tuple(value_range)}"
        )


def _check_first_operations(network: keras.Model, value_range) -> None:
    """Refuses what begins with arithmetic of another range, as ``preprocess_input`` does.

    What it makes of a range that fits may be as wide as 255: some networks only take a mean off.
    """
    last = None
    for operation in getattr(network, "operations", network.layers):
        is_layer = isinstance(operation, keras.layers.Layer)
        if is_layer and _keeps_range(operation):
            continue
        if is_layer and type(operation).__name__ not in OPERATIONS:
            break
        last = operation
    if last is None:
        return
    size = [size or 32 for size in network.inputs[0].shape[1:]]
    noise = np.random.default_rng(0).uniform(size=(1, *size))
    unit = np.concatenate([np.zeros_like(noise), np.ones_like(noise), noise])
    images = value_range[0] + (value_range[1] - value_range[0]) * unit
    outputs = keras.Model(network.inputs, last.output)(tf.constant(images, tf.float32))
    if np.ptp(outputs) < SMALLEST_SPAN:
        raise ValueError(
            f"The network begins with arithmetic of images in another range ({last.name!r}): pass "
            "AutoLabelModel(..., value_range=(0, 255)), or leave it out. "
            f"Received: value_range={tuple(value_range)}"
        )


def _check_last_layer(layer: keras.layers.Layer) -> None:
    kind = type(layer).__name__
    activation = getattr(layer, "activation", None)
    name = kind.lower() if kind in ACTIVATIONS else getattr(activation, "__name__", "linear")
    if name != "linear":
        raise ValueError(
            "The network must return logits, one a class (two for a binary classifier), without an "
            f"activation behind them. Received: a last layer {layer.name!r} that ends in {name}"
        )


def check_outputs(
    classifier: OnUnitImages, image_shape: Sequence[int | None], num_classes: int
) -> None:
    """Refuses a network that does not return logits of ``num_classes`` classes, by a probe.

    Sizes that are not known, of (H, W, C), are probed at 32 pixels and 3 channels.

    Raises:
        ValueError: If it does not take such images, or returns probabilities, only numbers that
            are not negative, or not [B, K].
    """
    size = [size or default for size, default in zip(image_shape, (32, 32, 3), strict=True)]
    noise = np.random.default_rng(0).uniform(size=(4, *size))
    outputs = _probe(classifier, noise, size)
    if tuple(outputs.shape) != (4, num_classes):
        raise ValueError(
            f"The network must return logits of shape [B, num_classes={num_classes}]. "
            f"Received: outputs of shape [B{''.join(f', {size}' for size in outputs.shape[1:])}]"
        )
    # Probabilities in half precision sum to 1 no better than this.
    tolerance = {tf.bfloat16: 2e-2, tf.float16: 5e-3}.get(outputs.dtype, 1e-3)
    outputs = tf.cast(outputs, tf.float32).numpy()
    if np.all(outputs >= 0.0) and np.allclose(outputs.sum(axis=-1), 1.0, atol=tolerance):
        raise ValueError(
            "The network returns probabilities, it must return logits: leave out the softmax."
        )
    # What no layer tells (of a subclass, a Lambda, an operation), far outputs do: a sigmoid stays
    # below 1, a ReLU cuts single classes to 0.
    outputs = tf.cast(_probe(classifier, _far_from_images(size), size), tf.float32).numpy()
    low, high = outputs.min(), outputs.max()
    cut = np.any((outputs == 0.0) & (outputs.max(axis=-1, keepdims=True) > 0.0))
    # The same for every image, they tell nothing.
    varied = np.any(outputs != outputs[0])
    if low >= 0.0 and varied and (high <= 1.0 or cut):
        raise ValueError(
            "The network returns no negative number whatever it is shown: it must return logits, "
            f"without a sigmoid or ReLU behind them. Received: outputs from {low} to {high}"
        )


def _far_from_images(size: Sequence[int]) -> np.ndarray:
    """Noise, slopes and levels in many mixtures, a hundred times as large as images are."""
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(*(np.linspace(-1.0, 1.0, side) for side in size[:2]), indexing="ij")
    slopes = (a * y + b * x + c for a, b, c in rng.normal(size=(16, 3)))
    mixtures = np.stack([100.0 * slope[..., np.newaxis] for slope in slopes])
    return mixtures + rng.normal(scale=100.0, size=(16, *size))


def _probe(classifier: Callable, images: np.ndarray, size: Sequence[int]) -> tf.Tensor:
    try:
        outputs = classifier(tf.constant(images, tf.float32), training=False)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            "The network cannot be called with such images; resize them, or build it for them. "
            f"Received: images of shape {tuple(size)}"
        ) from error
    if isinstance(outputs, dict | list | tuple):
        raise ValueError(
            "The network must return one tensor, its logits. "
            f"Received: {type(outputs).__name__} of {len(outputs)}"
        )
    return tf.convert_to_tensor(outputs)
