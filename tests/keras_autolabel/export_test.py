import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AugMix, AutoLabelModel
from keras_autolabel.export import save_for_serving
from tests.conftest import Dimming, linear_network, numpy_softmax

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
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(images[:64], labels[:64], epochs=2, verbose=0)
    model.label_policy.confidence.assign([[0.5, 0.6], [0.7, 0.8]])
    folder = tmp_path_factory.mktemp("export")
    model.export(str(folder / "model"), class_names=NAMES, temperature=2.0)
    np.save(folder / "images.npy", images[:50])
    return model, folder


@pytest.fixture(scope="module")
def served(exported) -> tuple:
    """What a process without Keras reads from the export."""
    _, folder = exported
    answers = folder / "answers.npz"
    printed = _run(sys.executable, "-c", LOADER, folder / "model", folder / "images.npy", answers)
    return json.loads(printed.splitlines()[-1]), np.load(answers)


def test_the_loading_process_has_no_keras(served):
    assert served[0]["blocked"]


@pytest.mark.parametrize("how", ["serving_default", "float_images", "call_uint8", "call_float"])
def test_outputs_equal_predict(exported, served, digits, how):
    model, _ = exported
    outputs = {name.split("/")[1]: served[1][name] for name in served[1] if name.startswith(how)}
    logits = model.predict(digits[0][:50], verbose=0)
    probabilities = numpy_softmax(logits / 2.0)
    assert outputs.keys() == {"logits", "probabilities", "class", "confidence"}
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(outputs["confidence"], probabilities.max(axis=-1), atol=1e-5)
    np.testing.assert_array_equal(outputs["class"], logits.argmax(axis=-1))


def test_the_export_carries_what_a_prediction_needs(served):
    assert served[0]["temperature"] == 2.0
    assert served[0]["class_names"] == NAMES
    assert served[0]["names_file"].splitlines() == NAMES
    np.testing.assert_allclose(served[0]["label_table"], [[0.5, 0.6], [0.7, 0.8]], atol=1e-7)


def test_saved_model_cli_runs_it(exported, digits):
    model, folder = exported
    cli = shutil.which("saved_model_cli", path=Path(sys.executable).parent)
    _run(
        *(cli, "run", "--dir", folder / "model", "--tag_set", "serve"),
        *("--signature_def", "serving_default"),
        *("--inputs", f"images={folder / 'images.npy'}", "--outdir", folder / "out"),
    )
    probabilities = numpy_softmax(model.predict(digits[0][:50], verbose=0) / 2.0)
    np.testing.assert_allclose(
        np.load(folder / "out" / "probabilities.npy"), probabilities, atol=1e-5
    )


def _model() -> AutoLabelModel:
    model = AutoLabelModel(linear_network((8, 8, 1), 10), Dimming(), num_classes=10)
    model.compile("sgd")
    return model


def test_defaults(tmp_path, digits):
    model = _model()
    model.export(str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    assert [name.decode() for name in loaded.class_names.numpy()] == [str(k) for k in range(10)]
    outputs = loaded(tf.constant(digits[0][:5]))
    expected = numpy_softmax(model.predict(digits[0][:5], verbose=0))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(loaded.label_table, [0.7, 0.7, 0.7], atol=1e-7)


def test_images_of_any_size(tmp_path, digits):
    network = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    model = AutoLabelModel(network, num_classes=10)
    model.export(str(tmp_path / "model"))
    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    for images in (digits[0][:3], digits[0][:2, :5, :7]):
        logits = network(images / np.float32(255))
        np.testing.assert_allclose(signature(images=images)["logits"], logits, atol=1e-5)


def test_a_plain_function_is_saved(tmp_path):
    weights = tf.Variable([[1.0, -1.0]])
    save_for_serving(
        lambda images, training: tf.reduce_sum(images, [1, 2, 3])[:, tf.newaxis] * weights,
        str(tmp_path / "model"),
        image_shape=(1, 2, 1),
        label_table=np.ones(3),
        class_names=["a", "b"],
        temperature=0.5,
    )
    outputs = tf.saved_model.load(str(tmp_path / "model"))(tf.constant([[[[51], [102]]]], tf.uint8))
    # 0.2 + 0.4, and its negative; divided by 0.5 they are 2.4 apart.
    np.testing.assert_allclose(outputs["logits"], [[0.6, -0.6]], atol=1e-6)
    np.testing.assert_allclose(outputs["confidence"], [1 / (1 + np.exp(-2.4))], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ["cat", "dog"]}, "must name the 10 classes. Received: 2"),
        ({"temperature": 0.0}, "must be above 0. Received: temperature=0.0"),
        ({"temperature": float("nan")}, "Received: temperature=nan"),
    ],
)
def test_arguments_are_checked(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        _model().export(str(tmp_path / "model"), **arguments)
    assert not list(tmp_path.iterdir())


class LateNetwork(keras.Model):
    """A network whose input is unknown until it has seen images."""

    def call(self, images, training=False):
        return tf.reduce_sum(images, [1, 2])


def test_a_network_without_a_known_input_is_refused(tmp_path):
    model = AutoLabelModel(LateNetwork(), num_classes=3)
    with pytest.raises(ValueError, match="no known input shape: train it first"):
        model.export(str(tmp_path / "model"))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
