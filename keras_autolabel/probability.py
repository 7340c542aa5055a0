"""Images to calibrated probabilities, as a plain Keras model."""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import refused_in_one_line
from keras_autolabel.checks import check_temperature


@keras.utils.register_keras_serializable(package="keras_autolabel")
class ProbabilityModel(keras.Model):
    """Probabilities of a model's logits: ``softmax(logits / temperature)``.

    Args:
        model: Keras model, images to logits; what it takes, this one takes.
        temperature: Divides the logits, above 0.
        name: Name of the model.

    Raises:
        ValueError: If the temperature is not above 0.

    Example:
        >>> network = keras.Sequential([keras.Input((1, 2, 1)), keras.layers.Flatten()])
        >>> model = ProbabilityModel(network, temperature=2.0)
        >>> model(tf.zeros([1, 1, 2, 1])).numpy().tolist()
        [[0.5, 0.5]]
    """

    def __init__(
        self, model: keras.Model, temperature: float = 1.0, *, name: str = "probability_model"
    ) -> None:
        super().__init__(name=name, autocast=False)
        check_temperature(temperature)
        self.model = model
        self.temperature = float(temperature)
        if model.built:
            self.build()

    def build(self, input_shape=None) -> None:
        """Nothing to build but the model itself, which does so on its first images."""
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Probabilities, float32 [B, K], of images [B, H, W, C]."""
        return tf.nn.softmax(self.model(images, training=training) / self.temperature)

    @refused_in_one_line()
    def predict(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """``keras.Model.predict``: probabilities, float32 [M, K]."""
        return super().predict(*args, **kwargs)

    @refused_in_one_line()
    def predict_on_batch(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """``keras.Model.predict_on_batch``: probabilities, float32 [B, K]."""
        return super().predict_on_batch(*args, **kwargs)

    @refused_in_one_line()
    def __call__(self, *args: Any, **kwargs: Any) -> tf.Tensor:
        """``keras.Model.__call__``: probabilities, see ``call``."""
        return super().__call__(*args, **kwargs)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            "model": keras.utils.serialize_keras_object(self.model),
            "temperature": self.temperature,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "ProbabilityModel":
        """The model that ``get_config`` describes."""
        model = keras.utils.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        return cls(**dict(config, model=model))
