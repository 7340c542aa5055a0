"""The scripts of docs/keras_examples.md, before and after the change that the page shows.

``pytest -s tests/keras_examples_test.py`` prints the rows of the page's table.
"""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow import keras

from tests.conftest import numpy_calibration, numpy_softmax

KERAS_3 = hasattr(keras, "ops")
PAGE = (pathlib.Path(__file__).parents[1] / "docs/keras_examples.md").read_text(encoding="utf-8")
(START,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
DIFFS = dict(re.findall(r"\n## (\w+)\n.*?```diff\n(.*?)```", PAGE, flags=re.DOTALL))
# Of those before the change: the others take 0 to 255.
TAKE_UNIT_IMAGES = ("mnist_convnet", "mixup", "cutmix")
NEED_KERAS_3 = ("mixup", "cutmix", "randaugment")
# The page says why their ECE need not fall.
EXPLAINED = (
    "image_classification_from_scratch",
    "image_classification_efficientnet_fine_tuning",
)
FIRST_TEST_IMAGE = 1000


def _write_folders(folder, images, labels) -> None:
    """The digits 3 and 8 as a folder of images, those of the training set alone."""
    for label in (3, 8):
        (folder / "images" / str(label)).mkdir(parents=True)
        for index in np.flatnonzero(labels[:FIRST_TEST_IMAGE] == label):
            encoded = tf.io.encode_png(images[index]).numpy()
            (folder / "images" / str(label) / f"{index}.png").write_bytes(encoded)


def _write_backbone(folder, images, labels) -> None:
    """A network that was trained on other classes, without its head."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.BatchNormalization(momentum=0.9),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    network = keras.Sequential([backbone, layers.Dense(5)])
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    known = np.flatnonzero(labels[:FIRST_TEST_IMAGE] < 5)
    network.fit(images[known].astype("float32"), labels[known], epochs=10, verbose=0)
    backbone.save(folder / "backbone.keras")


def _script(name: str, sign: str) -> str:
    """One side of a diff."""
    return START + "\n".join(
        line[1:] for line in DIFFS[name].splitlines() if line[0] in (" ", sign)
    )


def _run(name: str, sign: str, folder, monkeypatch) -> tuple[float, float]:
    """Accuracy and ECE of one side, in percent, on the test images, with NumPy."""
    monkeypatch.chdir(folder)
    names = {"keras": keras}
    exec(_script(name, sign), names)
    images, labels = (names["pixels"][FIRST_TEST_IMAGE:], names["digit"][FIRST_TEST_IMAGE:])
    if name == "image_classification_from_scratch":
        images, labels = images[np.isin(labels, (3, 8))], labels[np.isin(labels, (3, 8))] == 8
    if sign == "-":
        images = images / np.float32(255 if name in TAKE_UNIT_IMAGES else 1)
    outputs = names["model"].predict(images, verbose=0).astype(np.float64)
    if outputs.shape[-1] == 1:
        outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=-1)
    if np.min(outputs) < 0.0 or not np.allclose(outputs.sum(axis=-1), 1.0, atol=1e-4):
        outputs = numpy_softmax(outputs)
    ece, _, accuracy = numpy_calibration(labels.astype(int), outputs)
    return 100 * accuracy, 100 * ece


@pytest.mark.parametrize("name", DIFFS)
def test_the_change_keeps_the_accuracy_and_lowers_the_ece(name, tmp_path, monkeypatch):
    if not KERAS_3 and name in NEED_KERAS_3:
        pytest.skip("a layer of Keras 3")
    images, labels = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype("uint8")
    _write_folders(tmp_path, images, labels)
    if "backbone.keras" in DIFFS[name]:
        _write_backbone(tmp_path, images, labels)
    accuracy, ece = _run(name, "-", tmp_path, monkeypatch)
    accuracy_after, ece_after = _run(name, "+", tmp_path, monkeypatch)
    print(f"\n| {name} | {accuracy:.1f} | {ece:.1f} | {accuracy_after:.1f} | {ece_after:.1f} |")
    # What trained to little more than chance is no example.
    assert min(accuracy, accuracy_after) >= 85.0
    if not KERAS_3:
        return  # Other random numbers: the page says what they gave, and that it is no gain.
    assert accuracy_after >= accuracy - 2.0
    assert ece_after < ece or name in EXPLAINED


def test_a_change_has_at_most_eight_lines():
    assert len(DIFFS) == 6
    assert re.findall(r"^\| (\w+) \| \d", PAGE, flags=re.MULTILINE) == [*DIFFS]
    for name, diff in DIFFS.items():
        signs = [line[0] for line in diff.splitlines()]
        assert 0 < signs.count("+") <= 8 and 0 < signs.count("-") <= 8, name
