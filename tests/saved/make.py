"""Writes a tiny trained model in every format: ``python -m tests.saved.make FOLDER``.

``tests/saved_across_stacks_test.py`` reads what Keras 2 and Keras 3 wrote here.
"""

import os
import sys

import numpy as np
import tensorflow as tf
from tensorflow import keras

import keras_autolabel as kal

IMAGES = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1) * 7


def tiny_model() -> kal.AutoLabelModel:
    """A linear network with known weights and a table with known labels."""
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    network.set_weights([np.linspace(-1, 1, 48).reshape(16, 3), np.array([0.1, 0.2, 0.3])])
    model = kal.AutoLabelModel(network, kal.AugMix(num_buckets=2), num_classes=3)
    model.label_policy.confidence.assign(np.linspace(0.5, 1.0, 6).reshape(3, 2))
    model.compile("sgd")
    model(IMAGES)
    return model


def main(folder: str) -> None:
    """Writes model.keras, weights.weights.h5, checkpoint/ and saved_model/."""
    os.makedirs(folder, exist_ok=True)
    model = tiny_model()
    model.save(os.path.join(folder, "model.keras"))
    model.save_weights(os.path.join(folder, "model.weights.h5"))
    tf.train.Checkpoint(model=model).write(os.path.join(folder, "checkpoint"))
    model.export(os.path.join(folder, "saved_model"))


if __name__ == "__main__":
    main(sys.argv[1])
