import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AugMix, AutoLabelModel
from tests.conftest import ROOT, Dimming, linear_network, numpy_softmax

NAMES = [f"digit {k}" for k in range(10)]

# Loads the export where neither Keras nor this package can be imported.
LOADER = """
import json, sys

# None makes every import of the name fail.
blocked = dict.fromkeys(("keras", "tf_keras", "keras_autolabel"))
sys.modules.update(blocked)
import numpy as np
import tensorflow as tf

folder, images, answers = sys.argv[1:]
images = np.load(images)
floats = (images / 255).astype(np.float32)
loaded = tf.saved_model.load(folder)
outputs = {
    "serving_default": loaded.signatures["serving_default"](images=tf.constant(images)),
    "float_images": loaded.signatures["float_images"](images=tf.constant(floats)),
    "call_uint8": loaded(tf.constant(images)),
    "call_float": loaded(tf.constant(floats)),
}
np.savez(answers, **{f"{k}/{n}": v for k, out in outputs.items() for n, v in out.items()})
with open(loaded.class_names_file.asset_path.numpy(), encoding="utf-8") as file:
    names_file = file.read()
print(json.dumps({
    "label_table": loaded.label_table.numpy().tolist(),
    "temperature": float(loaded.temperature),
    "class_names": [name.decode() for name in loaded.class_names.numpy()],
    "names_file": names_file,
    "blocked": all(sys.modules[name] is None for name in blocked),
}))
"""


def _run(*command) -> str:
    result = subprocess.run([str(x) for x in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory, digits) -> tuple:
    """A small network with BatchNorm, trained for a step, exported with temperature 2."""
    images, labels = digits
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model = AutoLabelModel(network, AugMix(num_buckets=2, max_depth=2), num_classes=10)
    # To trace AugMix takes longer than four steps.
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    model.fit(images[:64], labels[:64], epochs=2, verbose=0)
    model.label_policy.confidence.assign([[0.5, 0.6], [0.7, 0.8]])
    folder = tmp_path_factory.mktemp("export")
    model.export(str(folder / "model"), class_names=NAMES, temperature=2.0)
    np.save(folder / "images.npy", images[:50])
    return model.predict(images[:50], verbose=0), folder


def test_a_process_without_keras_reads_all_that_a_prediction_needs(exported):
    logits, folder = exported
    answers = folder / "answers.npz"
    printed = _run(sys.executable, "-c", LOADER, folder / "model", folder / "images.npy", answers)
    carried, served = json.loads(printed.splitlines()[-1]), np.load(answers)
    assert carried["blocked"]
    assert carried["temperature"] == 2.0
    assert carried["class_names"] == carried["names_file"].splitlines() == NAMES
    np.testing.assert_allclose(carried["label_table"], [[0.5, 0.6], [0.7, 0.8]], atol=1e-7)
    probabilities = numpy_softmax(logits / 2.0)
    expected = {
        "logits": logits,
        "probabilities": probabilities,
        "confidence": probabilities.max(axis=-1),
        "class": logits.argmax(axis=-1),
    }
    ways = ("serving_default", "float_images", "call_uint8", "call_float")
    assert set(served) == {f"{way}/{name}" for way in ways for name in expected}
    for key in served:
        value = expected[key.split("/")[1]]
        np.testing.assert_allclose(served[key], value, atol=1e-5, err_msg=key)


def export_alike_layers(folder: str) -> list[np.ndarray]:
    """Exports a network, always the same, whose layers only their names tell apart."""
    keras.utils.set_random_seed(3)
    keras.backend.clear_session()
    layers = [keras.layers.Dense(5, bias_initializer="normal") for _ in range(6)]
    layers.insert(3, keras.layers.BatchNormalization())
    network = keras.Sequential([keras.Input((5, 1, 1)), keras.layers.Flatten(), *layers])
    AutoLabelModel(network, num_classes=5).export(folder)
    return network.get_weights()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Path, list[np.ndarray]]:
    """Two exports of the same weights, one of them of a process that orders sets otherwise."""
    here, there = (tmp_path_factory.mktemp(name) / "exported" for name in ("here", "there"))
    weights = export_alike_layers(str(here))
    code = f"from {__name__} import export_alike_layers as run; run({str(there)!r})"
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return here, there, weights


def test_variables_are_written_in_the_order_of_the_network(written):
    here, _, weights = written
    found = tf.train.load_checkpoint(str(here / "variables" / "variables"))
    for number, weight in enumerate(weights):
        name = f"network_variables/{number}/.ATTRIBUTES/VARIABLE_VALUE"
        np.testing.assert_array_equal(found.get_tensor(name), weight)


def test_the_same_weights_are_the_same_variables_in_every_process(written):
    # Names, shapes, checksums of the values, and of what says which object has which name.
    one, other = ((path / "variables" / "variables.index").read_bytes() for path in written[:2])
    assert one == other
    one, other = (
        [variable.name for variable in tf.saved_model.load(str(path)).network_variables]
        for path in written[:2]
    )
    assert one == other and len(set(one)) == len(one) > len(written[2])


def test_saved_model_cli_runs_it(exported, run_commands):
    logits, folder = exported
    cli = ["tensorflow.python.tools.saved_model_cli", "run", "--dir", str(folder / "model")]
    cli += ["--tag_set", "serve", "--signature_def", "serving_default"]
    cli += ["--inputs", f"images={folder / 'images.npy'}", "--outdir", str(folder / "out")]
    (ended,) = run_commands([cli], folder / "printed")
    assert ended.status == 0, ended.stderr[-3000:]
    probabilities = np.load(folder / "out" / "probabilities.npy")
    np.testing.assert_allclose(probabilities, numpy_softmax(logits / 2.0), atol=1e-5)


def test_images_of_any_size_and_defaults(tmp_path, digits):
    network = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    AutoLabelModel(network, Dimming(), num_classes=10).export(str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    for images in (digits[0][:3], digits[0][:2, :5, :7]):
        outputs = loaded.signatures["serving_default"](images=images)
        logits = network(images / np.float32(255)).numpy()
        np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)
        np.testing.assert_allclose(outputs["probabilities"], numpy_softmax(logits), atol=1e-5)
    assert [name.decode() for name in loaded.class_names.numpy()] == [str(k) for k in range(10)]
    np.testing.assert_allclose(loaded.label_table, [0.7, 0.7, 0.7], atol=1e-7)


class LateNetwork(keras.Model):
    """A network whose input is unknown until it has seen images."""

    def call(self, images, training=False):
        return tf.reduce_sum(images, [1, 2])


@pytest.mark.parametrize(
    ("network", "arguments", "value"),
    [
        (linear_network((8, 8, 1), 3), {"class_names": ["cat", "dog"]}, "3 classes. Received: 2"),
        (linear_network((8, 8, 1), 3), {"temperature": 0.0}, "temperature=0.0"),
        (linear_network((8, 8, 1), 3), {"temperature": float("nan")}, "temperature=nan"),
        (LateNetwork(), {}, "train it first"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, network, arguments, value):
    with pytest.raises(ValueError, match=value):
        AutoLabelModel(network, num_classes=3).export(str(tmp_path / "model"), **arguments)
    assert not list(tmp_path.iterdir())
