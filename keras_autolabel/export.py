"""A TF SavedModel that loads where neither Keras nor this package is installed."""

import os
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_autolabel.batch import check_images, to_float


def save_for_serving(
    network: Callable[..., tf.Tensor],
    filepath: str,
    *,
    weights: Sequence,
    image_shape: tuple[int | None, ...],
    label_table: np.ndarray,
    class_names: Sequence[str],
    temperature: float,
) -> None:
    """Writes a network with all that a prediction needs; see ``AutoLabelModel.export``.

    Args:
        network: ``network(images, training=False)`` -> logits [B, K]; images float32 in [0, 1].
        filepath: As in ``export``, as are names and temperature.
        weights: The network's Keras variables; in their order they are written.
        image_shape: (H, W, C), None where any size will do.
        label_table: The learned confidences.
        class_names: K of them.
        temperature: Divides the logits.
    """
    # A module that held the Keras model would load, but not in saved_model_cli: hold the raw
    # variables that the traced functions use instead.
    module = tf.Module()
    module.label_table = tf.Variable(label_table, trainable=False, dtype=tf.float32)
    module.temperature = tf.Variable(temperature, trainable=False, dtype=tf.float32)
    with tf.device("CPU:0"):
        module.class_names = tf.Variable(list(class_names), trainable=False)

    def predict(images):
        images = to_float(check_images(images))
        logits = tf.cast(network(images, training=False), tf.float32)
        probabilities = tf.nn.softmax(logits / module.temperature)
        return {
            "logits": logits,
            "probabilities": probabilities,
            "class": tf.argmax(probabilities, axis=-1, output_type=tf.int32),
            "confidence": tf.reduce_max(probabilities, axis=-1),
        }

    module.__call__ = tf.function(predict)
    signatures = {
        name: module.__call__.get_concrete_function(
            tf.TensorSpec([None, *image_shape], dtype, name="images")
        )
        for name, dtype in (("serving_default", tf.uint8), ("float_images", tf.float32))
    }
    # A graph has its variables in an order that changes from process to process.
    place = {_tf_variable(weight).ref(): number for number, weight in enumerate(weights)}
    variables = signatures["serving_default"].variables
    module.network_variables = sorted(variables, key=lambda v: place.get(v.ref(), len(place)))
    with tempfile.TemporaryDirectory() as folder:
        names_file = os.path.join(folder, "class_names.txt")
        with open(names_file, "w", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in class_names)
        module.class_names_file = tf.saved_model.Asset(names_file)
        tf.saved_model.save(module, filepath, signatures=signatures)


def _tf_variable(weight) -> tf.Variable:
    """What Keras 3 keeps in a variable of its own; in Keras 2 they are TensorFlow's."""
    return weight.value if isinstance(weight.value, tf.Variable) else weight
