"""A trained classifier, whatever it was saved as."""

import json
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow import keras

import keras_autolabel as kal

# Registers the layers that a model.keras of ours is made of.
from train import image_network as image_network


class Predictor:
    """Logits of images, from a SavedModel or a ``.keras`` file.

    Args:
        path: A folder that ``AutoLabelModel.export`` wrote, a ``.keras`` file, or the folder of a
            run that holds one of them.

    Attributes:
        run_settings: The settings of the run that it comes from, out of its ``settings.json``; None
            where there is none.
        name: The path, for reports.
        network: ``network(images, training=False)`` -> logits [B, K], for attacks; images float32
            in [0, 1].
        temperature: That of the export; 1.0 where there is none.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is no model of ours; says what was found.
    """

    def __init__(self, path: str):
        self.name = path.rstrip("/")
        self.temperature = 1.0
        self.run_settings = _settings_beside(path)
        for inside in ("saved_model", "model.keras"):
            if os.path.isdir(path) and os.path.exists(os.path.join(path, inside)):
                path = os.path.join(path, inside)
                break
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no model at {path}.")
        if os.path.isfile(path):
            self.network = _keras_network(path)
        else:
            loaded = _saved_model(path)
            # The loaded object is kept: its functions do not keep its variables alive.
            self.loaded = loaded
            self.temperature = float(loaded.temperature)
            self.network = lambda images, training=False: loaded(images)["logits"]
        self._logits = tf.function(
            lambda images: self.network(images, training=False), reduce_retracing=True
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits of a batch.

        Args:
            images: uint8 [B, H, W, C].

        Returns:
            float32 [B, K].

        Raises:
            ValueError: If the images are not of the size that the model takes.
        """
        try:
            return self._logits(tf.cast(images, tf.float32) / 255.0).numpy()
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{self.name} does not take images of shape {images.shape[1:]}: {reason}"
            ) from error


def _settings_beside(path: str) -> dict | None:
    """What ``settings.json`` in the folder of the run says: in ``path``, or beside it."""
    for folder in (path, os.path.dirname(path.rstrip("/"))):
        settings = os.path.join(folder, "settings.json")
        if os.path.isfile(settings):
            with open(settings, encoding="utf-8") as file:
                return json.load(file)
    return None


def _saved_model(path: str):
    try:
        loaded = tf.saved_model.load(path)
    except (OSError, ValueError) as error:
        found = ", ".join(sorted(os.listdir(path))[:5]) or "nothing"
        raise ValueError(f"{path} holds no SavedModel; it holds {found}.") from error
    signatures = getattr(loaded, "signatures", {})
    ours = "float_images" in signatures and hasattr(loaded, "temperature")
    if not ours or "logits" not in signatures["float_images"].structured_outputs:
        described = "; ".join(
            f"{name}: {sorted(function.structured_outputs)}"
            for name, function in signatures.items()
        )
        raise ValueError(
            f"{path} was not written by AutoLabelModel.export: it needs a signature float_images "
            f"that returns logits. Found signatures: {described or 'none'}."
        )
    return loaded


def _keras_network(path: str) -> Callable:
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is no Keras model that can be loaded: {reason}") from error
    return model.network if isinstance(model, kal.AutoLabelModel) else model
