import json
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AutoLabelModel, OneHot
from tests.conftest import linear_network
from tests.train.conftest import EPOCHS
from train.predictor import Predictor

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a run, the models in it, and the logits of its network by hand."""
    folder = tmp_path_factory.mktemp("run")
    network = linear_network((8, 8, 1), 4, scale=0.1)
    network.save(folder / "plain.keras")
    model = AutoLabelModel(network, None, num_classes=4, label_policy=OneHot())
    model.compile("sgd")
    model.save(folder / "model.keras")
    model.export(str(folder / "saved_model"), temperature=2.5)
    weights, bias = network.get_weights()
    return folder, IMAGES.reshape(7, -1) / 255.0 @ weights + bias


@pytest.mark.parametrize(
    ("inside", "temperature"),
    [("", 2.5), ("saved_model", 2.5), ("model.keras", 1.0), ("plain.keras", 1.0)],
)
def test_each_form_gives_the_logits_of_the_network(saved, inside, temperature):
    folder, logits = saved
    predictor = Predictor(str(folder / inside))
    assert predictor.temperature == temperature
    assert predictor.name == str(folder / inside) and predictor.image_shape == (8, 8, 1)
    # Batches of several lengths must not make it forget the size.
    for rows in (7, 5, 3):
        np.testing.assert_allclose(predictor.logits(IMAGES[:rows]), logits[:rows], atol=1e-5)
    with pytest.raises(ValueError, match="takes 8x8x1 images. Received: 8x8x3$"):
        predictor.logits(np.zeros([2, 8, 8, 3], np.uint8))
    # What attacks call: floats in [0, 1], with a gradient.
    scaled = tf.constant(IMAGES / 255.0, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(scaled)
        outputs = predictor.network(scaled, training=False)
    np.testing.assert_allclose(outputs, logits, atol=1e-5)
    assert np.abs(tape.gradient(outputs, scaled)).max() > 0.0


def test_run_without_an_export_uses_its_keras_file(saved, tmp_path):
    folder, logits = saved
    shutil.copy(folder / "model.keras", tmp_path)
    predictor = Predictor(f"{tmp_path}/")
    assert predictor.name == str(tmp_path)
    np.testing.assert_allclose(predictor.logits(IMAGES), logits, atol=1e-5)


def test_network_of_any_size_takes_any_size(tmp_path):
    inputs = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 5)(inputs))
    keras.Model(inputs, pooled).save(tmp_path / "any.keras")
    predictor = Predictor(str(tmp_path / "any.keras"))
    assert predictor.image_shape == (None, None, 3)
    for shape in ((2, 8, 8, 3), (3, 12, 6, 3)):
        assert predictor.logits(np.zeros(shape, np.uint8)).shape == (shape[0], 4)
    with pytest.raises(ValueError, match="takes anyxanyx3 images. Received: 8x8x1"):
        predictor.logits(np.zeros([2, 8, 8, 1], np.uint8))
    with pytest.raises(ValueError, match="any.keras does not take 2x2x3 images") as raised:
        predictor.logits(np.zeros([2, 2, 2, 3], np.uint8))
    assert len(str(raised.value).splitlines()) == 1


# --- a run that was killed --------------------------------------------------------------------


@pytest.fixture
def killed(finished_run, tmp_path):
    """What a run leaves that is killed behind its last epoch."""
    folder = tmp_path / "killed"
    shutil.copytree(finished_run[0] / "checkpoints", folder / "checkpoints")
    settings = json.loads((finished_run[0] / "settings.json").read_text("utf-8"))
    # An older run knew less, and what is forgotten by now.
    del settings["image_size"], settings["skip_unreadable"]
    text = json.dumps({**settings, "forgotten": 1})
    (folder / "settings.json").write_text(text, "utf-8")
    return folder


def test_checkpoint_of_a_killed_run_gives_the_logits_of_its_network(finished_run, killed):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1)).astype(np.uint8)
    predictor = Predictor(f"{killed}/")
    whole = Predictor(str(finished_run[0] / "model.keras"))
    np.testing.assert_allclose(predictor.logits(images), whole.logits(images), atol=1e-5)
    assert predictor.name == f"{killed}, epoch {EPOCHS}"
    assert predictor.image_shape == (16, 16, 1) and predictor.temperature == 1.0
    assert predictor.run_settings == whole.run_settings


def _cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _of_another_network(folder):
    settings = json.loads((folder / "settings.json").read_text("utf-8"))
    settings |= {"network": "wide_resnet", "depth": 10, "width": 2}
    (folder / "settings.json").write_text(json.dumps(settings), "utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            # Damaged ones are named and skipped; here it is each of them.
            lambda folder: [_cut(path) for path in (folder / "checkpoints").glob("*.data*")],
            "holds no SavedModel; it holds checkpoints",
        ),
        (_of_another_network, f"ckpt-{EPOCHS} is damaged or of another network: ."),
        (
            lambda folder: shutil.rmtree(folder / "checkpoints"),
            "holds no SavedModel; it holds settings.json",
        ),
    ],
    ids=["damaged", "another network", "no checkpoint"],
)
def test_checkpoint_that_does_not_fit_is_named_in_one_line(killed, change, message):
    change(killed)
    with pytest.raises(ValueError, match=message) as raised:
        Predictor(str(killed))
    assert len(str(raised.value).splitlines()) == 1


# --- what cannot be measured ------------------------------------------------------------------


def _keras_model(path, *layers):
    keras.Sequential(layers).save(path)


def _saved_model_without_signatures(path):
    bare = tf.Module()
    bare.number = tf.Variable(1.0)
    tf.saved_model.save(bare, str(path))


def _saved_model_of_others(path):
    module = tf.Module()
    module.scores = tf.function(
        lambda images: {"scores": tf.reduce_sum(images, axis=[1, 2])},
        input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32)],
    )
    tf.saved_model.save(module, str(path), signatures={"classify": module.scores})


def _flip_bits_of_the_weights(file):
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        weights = archive.getinfo("model.weights.h5")
    middle = weights.header_offset + weights.compress_size // 2
    content[middle : middle + 100] = bytes(100 * [0x5A])
    file.write_bytes(content)


# What is copied from the run (or nothing), what is done with it, and what is said.
REFUSED = {
    "nothing": (None, lambda path: None, "There is no model at .*/nothing"),
    "notes.txt": (None, lambda path: path.write_text("no model"), "notes.txt is no Keras model"),
    "broken.keras": (
        None,
        lambda path: path.write_text("no model"),
        "broken.keras is no Keras model that can be loaded: .",
    ),
    "flipped.keras": ("model.keras", _flip_bits_of_the_weights, "flipped.keras is no Keras .*: ."),
    "empty": (None, lambda path: path.mkdir(), "holds no SavedModel; it holds nothing"),
    "bare": (None, _saved_model_without_signatures, "float_images.*Found signatures: none"),
    "other": (None, _saved_model_of_others, r"Found signatures: classify: \['scores'\]"),
    "sure.keras": (
        None,
        lambda path: _keras_model(
            path,
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ),
        "sure.keras: The network must return logits",
    ),
    "flat.keras": (
        None,
        lambda path: _keras_model(path, keras.Input((64,)), keras.layers.Dense(4)),
        r"flat.keras takes no images .* inputs \[64\]",
    ),
    "without_variables": (
        "saved_model",
        lambda path: next((path / "variables").glob("*.data*")).unlink(),
        "without_variables is damaged, export the model again: .",
    ),
    "cut_variables": (
        "saved_model",
        lambda path: _cut(next((path / "variables").glob("*.data*"))),
        "cut_variables is damaged, export the model again: .",
    ),
    "cut_graph": (
        "saved_model",
        lambda path: _cut(path / "saved_model.pb"),
        "cut_graph is damaged, export the model again: .",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_model_of_ours_is_named_in_one_line(saved, name, tmp_path):
    inside, make, message = REFUSED[name]
    if inside:
        copy = shutil.copytree if (saved[0] / inside).is_dir() else shutil.copy
        copy(saved[0] / inside, tmp_path / name)
    make(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        Predictor(str(tmp_path / name))
    assert len(str(raised.value).splitlines()) == 1
