"""The public names as a user types them; ``mypy --strict`` passes."""

from typing import Any

import keras
import numpy as np

import keras_autolabel as kal
from keras_autolabel.batch import to_float


class Darker(kal.Augmentation):
    """An augmentation of one's own: the distance is the light that is lost."""

    def apply(
        self,
        images: Any,
        labels: Any,
        drawn: kal.Draw,
        network: Any = None,
    ) -> kal.AugmentedBatch:
        """Multiplies each image by what its distance leaves."""
        left = 1.0 - drawn.distance[:, None, None, None]
        return self.moved(left * to_float(images), labels, drawn)


images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), dtype=np.uint8)
labels = np.arange(80) % 4
network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4)])
model = kal.AutoLabelModel(network, Darker(num_buckets=3), num_classes=4)
model.compile("sgd", metrics=["accuracy", kal.ExpectedCalibrationError()])
callback = kal.AutoLabel((images[60:], labels[60:]), step_size=0.5, examples_per_bucket=20)
model.fit(images[:60], labels[:60], epochs=2, verbose=0, callbacks=[callback])
entry: kal.LabelEpoch = callback.history[-1]
lowest = float(entry["label"].min())
logits = model.predict(images, verbose=0)
temperature: float = kal.TemperatureScaling().fit(labels, logits).temperature
probabilities = model.probability_model(temperature).predict(images, verbose=0)
ece = float(kal.expected_calibration_error(labels, probabilities))
print(f"lowest label {lowest:.2f}, T = {temperature:.2f}, ECE = {100 * ece:.1f} %")
