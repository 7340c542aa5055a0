import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AutoLabelModel, OneHot
from tests.conftest import linear_network
from train.predictor import Predictor
from train.small_resnet import small_resnet

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's folder, the model in it, and its logits by the network itself."""
    folder = tmp_path_factory.mktemp("run")
    network = small_resnet((8, 8, 1), 4, mean=0.5, std=0.25)
    model = AutoLabelModel(network, None, num_classes=4, label_policy=OneHot())
    model.compile("sgd")
    model.fit(IMAGES, np.arange(7) % 4, verbose=0)
    model.save(folder / "model.keras")
    model.export(str(folder / "saved_model"), temperature=2.5)
    return folder, network(tf.constant(IMAGES), training=False).numpy()


@pytest.mark.parametrize(
    ("inside", "temperature"), [("", 2.5), ("saved_model", 2.5), ("model.keras", 1.0)]
)
def test_each_form_gives_the_logits_of_the_network(saved, inside, temperature):
    folder, logits = saved
    predictor = Predictor(str(folder / inside))
    np.testing.assert_allclose(predictor.logits(IMAGES), logits, atol=1e-5)
    assert predictor.temperature == temperature
    assert predictor.name == str(folder / inside)
    # What attacks call: floats in [0, 1], with a gradient.
    scaled = tf.constant(IMAGES / 255.0, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(scaled)
        outputs = predictor.network(scaled, training=False)
    np.testing.assert_allclose(outputs, logits, atol=1e-5)
    assert np.abs(tape.gradient(outputs, scaled)).max() > 0.0
    assert np.ptp(logits) > 0.01


def test_run_without_an_export_uses_its_keras_file(saved, tmp_path):
    folder, logits = saved
    (tmp_path / "model.keras").write_bytes((folder / "model.keras").read_bytes())
    predictor = Predictor(f"{tmp_path}/")
    assert predictor.name == str(tmp_path)
    np.testing.assert_allclose(predictor.logits(IMAGES), logits, atol=1e-5)


def test_plain_keras_model_is_taken_as_it_is(tmp_path):
    network = linear_network((8, 8, 1), 4)
    network.save(tmp_path / "plain.keras")
    weights, bias = network.get_weights()
    expected = IMAGES.reshape(7, -1) / 255.0 @ weights + bias
    logits = Predictor(str(tmp_path / "plain.keras")).logits(IMAGES)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_missing_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no model at .*nowhere"):
        Predictor(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["notes.txt", "broken.keras", "broken.h5"])
def test_file_that_is_no_model(tmp_path, name):
    (tmp_path / name).write_text("no model", "utf-8")
    with pytest.raises(ValueError, match=f"{name} is no Keras model that can be loaded: ."):
        Predictor(str(tmp_path / name))


def test_folder_without_a_model_says_what_it_holds(tmp_path):
    with pytest.raises(ValueError, match="holds no SavedModel; it holds nothing"):
        Predictor(str(tmp_path))
    (tmp_path / "b.txt").write_text("", "utf-8")
    (tmp_path / "a.txt").write_text("", "utf-8")
    with pytest.raises(ValueError, match=r"it holds a\.txt, b\.txt"):
        Predictor(str(tmp_path))


def test_saved_model_of_others_says_which_signatures_it_has(tmp_path):
    bare = tf.Module()
    bare.number = tf.Variable(1.0)
    tf.saved_model.save(bare, str(tmp_path / "bare"))
    with pytest.raises(ValueError, match="float_images.*Found signatures: none"):
        Predictor(str(tmp_path / "bare"))
    module = tf.Module()
    module.scores = tf.function(
        lambda images: {"scores": tf.reduce_sum(images, axis=[1, 2])},
        input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / "other"), signatures={"classify": module.scores})
    with pytest.raises(ValueError, match=r"Found signatures: classify: \['scores'\]"):
        Predictor(str(tmp_path / "other"))


@pytest.mark.parametrize("inside", ["saved_model", "model.keras"])
@pytest.mark.parametrize("shape", [(16, 16, 1), (8, 8, 3)])
def test_images_of_another_size_are_refused_in_one_line(saved, inside, shape):
    predictor = Predictor(str(saved[0] / inside))
    assert predictor.image_shape == (8, 8, 1)
    # Batches of several lengths must not make it forget the size.
    for rows in (7, 5, 3):
        assert len(predictor.logits(IMAGES[:rows])) == rows
    received = "x".join(map(str, shape))
    with pytest.raises(ValueError, match=f"takes 8x8x1 images. Received: {received}$"):
        predictor.logits(np.zeros([2, *shape], np.uint8))


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


# --- what cannot be measured ------------------------------------------------------------------


def test_probabilities_are_refused(tmp_path):
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(4, activation="softmax"))
    network.save(tmp_path / "sure.keras")
    with pytest.raises(ValueError, match="sure.keras: The network must return logits"):
        Predictor(str(tmp_path / "sure.keras"))


def test_network_that_takes_no_images_is_refused(tmp_path):
    network = keras.Sequential([keras.Input((64,)), keras.layers.Dense(4)])
    network.save(tmp_path / "flat.keras")
    with pytest.raises(ValueError, match=r"flat.keras takes no images .* inputs \[64\]"):
        Predictor(str(tmp_path / "flat.keras"))


def _cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _data_of(saved_model):
    (file,) = (saved_model / "variables").glob("*.data*")
    return file


DAMAGES = {
    "no variables file": lambda folder: _data_of(folder).unlink(),
    "variables cut": lambda folder: _cut(_data_of(folder)),
    "graph cut": lambda folder: _cut(folder / "saved_model.pb"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_saved_model_is_named_in_one_line(saved, tmp_path, damage):
    shutil.copytree(saved[0] / "saved_model", tmp_path / "damaged")
    DAMAGES[damage](tmp_path / "damaged")
    with pytest.raises(ValueError, match="damaged is damaged, export the model again: .") as raised:
        Predictor(str(tmp_path / "damaged"))
    assert len(str(raised.value).splitlines()) == 1


def test_flipped_bits_in_a_keras_file_are_found(saved, tmp_path):
    file = tmp_path / "flipped.keras"
    content = bytearray((saved[0] / "model.keras").read_bytes())
    with zipfile.ZipFile(saved[0] / "model.keras") as archive:
        weights = archive.getinfo("model.weights.h5")
    middle = weights.header_offset + weights.compress_size // 2
    content[middle : middle + 100] = bytes(100 * [0x5A])
    file.write_bytes(content)
    with pytest.raises(ValueError, match="flipped.keras is no Keras model .*: .") as raised:
        Predictor(str(file))
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
    assert predictor.name == f"{killed}, epoch 8"
    assert predictor.image_shape == (16, 16, 1) and predictor.temperature == 1.0
    assert predictor.run_settings == whole.run_settings


def test_damaged_checkpoint_is_named_in_one_line(killed):
    for file in (killed / "checkpoints").glob("*.data*"):
        _cut(file)
    with pytest.raises(ValueError, match="checkpoint .*ckpt-8 is damaged or of another") as raised:
        Predictor(str(killed))
    assert len(str(raised.value).splitlines()) == 1


def test_checkpoint_of_another_network_is_refused(killed):
    settings = json.loads((killed / "settings.json").read_text("utf-8"))
    settings |= {"network": "wide_resnet", "depth": 10, "width": 2}
    (killed / "settings.json").write_text(json.dumps(settings), "utf-8")
    with pytest.raises(ValueError, match="ckpt-8 is damaged or of another network: .") as raised:
        Predictor(str(killed))
    assert len(str(raised.value).splitlines()) == 1


def test_run_without_a_checkpoint_says_what_it_holds(killed):
    shutil.rmtree(killed / "checkpoints")
    with pytest.raises(ValueError, match="holds no SavedModel; it holds settings.json"):
        Predictor(str(killed))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
