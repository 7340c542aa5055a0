import sys

import numpy as np
import pytest
import tensorflow as tf

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
    numbers = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"does not take images of shape \({numbers}\)") as raised:
        predictor.logits(np.zeros([2, *shape], np.uint8))
    assert len(str(raised.value).splitlines()) == 1


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
