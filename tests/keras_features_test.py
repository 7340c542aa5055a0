"""The table of what works (docs/keras_features.md): each row has a test; those of no other file."""

import ast
import pathlib
import re
import runpy
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import keras_autolabel as kal
from tests.conftest import Dimming, linear_network, numpy_calibration, numpy_softmax, summaries

KERAS_3 = hasattr(keras, "ops")
ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs/keras_features.md").read_text(encoding="utf-8")
SHAPE = (4, 4, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=[48, *SHAPE]).astype(np.float32)
LABELS = RNG.integers(3, size=48)


def test_every_row_has_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 20
    for row in rows:
        (path, name), *more = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert not more
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row


def _network():
    layers = [keras.layers.Flatten(), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)]
    network = keras.Sequential([keras.Input(SHAPE), *layers])
    rng = np.random.default_rng(1)
    network.set_weights([0.5 * rng.normal(size=w.shape) for w in network.get_weights()])
    return network


def test_adamw_with_everything_is_that_of_keras():
    def optimizer():
        return keras.optimizers.AdamW(
            0.01, weight_decay=0.1, clipnorm=0.05, use_ema=True, ema_momentum=0.5
        )

    options = {"batch_size": 16, "epochs": 3, "shuffle": False, "verbose": 0}
    plain, network = _network(), _network()
    plain.compile(optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    expected = plain.fit(IMAGES, LABELS, **options).history["loss"]
    model = kal.AutoLabelModel(network, num_classes=3)
    model.compile(optimizer())
    found = model.fit(IMAGES, LABELS, **options).history["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for one, other in zip(network.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


class Watching(keras.callbacks.Callback):
    """Keeps the weights and the labels after each epoch, and a loss that is lowest at the first."""

    def on_train_begin(self, logs=None):
        self.weights, self.labels = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.network.get_weights())
        self.labels.append(self.model.label_policy.confidence.numpy())
        logs["rising"] = float(epoch)


def test_early_stopping_brings_back_the_best_weights_and_their_labels():
    model = kal.AutoLabelModel(linear_network(SHAPE, 3), Dimming(), num_classes=3)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    watching = Watching()
    options = {"mode": "min", "patience": 2, "restore_best_weights": True}
    stop = keras.callbacks.EarlyStopping("rising", **options)
    callbacks = [watching, stop, kal.AutoLabel((IMAGES, LABELS), step_size=0.2)]
    history = model.fit(IMAGES, LABELS, epochs=9, verbose=0, callbacks=callbacks).history
    assert len(history["loss"]) == 3
    for one, other in zip(model.network.get_weights(), watching.weights[0], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(model.label_policy.confidence, watching.labels[0])
    assert np.any(watching.labels[0] != watching.labels[2])


def test_tensorboard_has_the_labels_in_one_group_and_a_picture_of_them(tmp_path):
    augmix = kal.AugMix(num_buckets=2, operations=("rotate",))
    model = kal.AutoLabelModel(linear_network(SHAPE, 3), augmix, num_classes=3)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    auto = kal.AutoLabel((IMAGES, LABELS), step_size=0.2)
    board = keras.callbacks.TensorBoard(str(tmp_path), write_graph=False)
    history = model.fit(IMAGES, LABELS, epochs=2, verbose=0, callbacks=[board, auto]).history
    found = summaries(tmp_path / "labels")
    details = {name for name in history if name.startswith(("label_confidence_", "holdout_"))}
    assert len(details) == 4 * 6 + 3
    assert {tag for tag, _ in found} == {"labels/table", *(f"labels/{name}" for name in details)}
    for epoch, entry in enumerate(auto.history):
        for name in details:
            value = float(tf.make_ndarray(found[f"labels/{name}", epoch].tensor))
            assert value == pytest.approx(history[name][epoch], rel=1e-6)
        width, height, picture = tf.make_ndarray(found["labels/table", epoch].tensor)
        assert (int(width), int(height)) == (64, 96)
        # White is 1, black is 1/3.
        grey = tf.io.decode_png(picture).numpy()[16::32, 16::32, 0]
        np.testing.assert_allclose(1 / 3 + grey / 255 * 2 / 3, entry["label"], atol=0.5 / 255)
    # Keras' own run has what is no detail, once.
    others = {tag for tag, _ in summaries(tmp_path / "train") if tag.startswith("epoch_")}
    assert {"epoch_loss", "epoch_label_mean"} <= others
    assert not any("label_confidence" in tag or "holdout" in tag for tag in others)


def test_tensorboard_without_labels_to_learn_is_that_of_keras(tmp_path):
    model = kal.AutoLabelModel(linear_network(SHAPE, 3), num_classes=3)
    model.compile(keras.optimizers.SGD(0.1))
    board = keras.callbacks.TensorBoard(str(tmp_path), write_graph=False)
    model.fit(IMAGES, LABELS, verbose=0, callbacks=[board])
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 has no LoRA")
def test_lora_trains_its_low_rank_part_alone():
    network = linear_network(SHAPE, 3)
    dense = network.layers[-1]
    kernel = np.array(dense.kernel)
    dense.enable_lora(2)
    model = kal.AutoLabelModel(network, num_classes=3)
    model.compile(keras.optimizers.SGD(0.5))
    start = model.predict(IMAGES, verbose=0)
    model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    # What Keras calls kernel is the sum; the part that was there is left when LoRA is taken off.
    left = np.array(dense.kernel) - np.matmul(dense.lora_kernel_a, dense.lora_kernel_b)
    np.testing.assert_allclose(left, kernel, atol=1e-6)
    assert np.abs(np.array(dense.lora_kernel_b)).max() > 0.0
    assert np.abs(model.predict(IMAGES, verbose=0) - start).max() > 0.01


def test_many_classes_are_measured_as_numpy_does():
    classes = 21_841
    network = linear_network((2, 2, 1), classes, scale=3.0)
    images = RNG.uniform(size=[40, 2, 2, 1]).astype(np.float32)
    probabilities = numpy_softmax(network(images).numpy().astype(np.float64))
    labels = np.where(np.arange(40) % 2, probabilities.argmax(axis=-1), classes - 1 - np.arange(40))
    model = kal.AutoLabelModel(network, Dimming(), num_classes=classes)
    model.compile("sgd", metrics=["accuracy", kal.ExpectedCalibrationError()])
    logs = model.evaluate(images, labels, verbose=0, return_dict=True)
    ece, _, accuracy = numpy_calibration(labels, probabilities)
    loss = -np.log(probabilities[np.arange(40), labels]).mean()
    found = [logs[name] for name in ("loss", "accuracy", "ece")]
    np.testing.assert_allclose(found, [loss, accuracy, ece], rtol=1e-4, atol=1e-5)
    # An update with labels softened by a half: of all classes but the true one, each gets the rest.
    model.label_policy.confidence.assign(np.full(3, 0.5))
    start = np.array(network.layers[-1].bias)
    batch = model.augment(images, labels)
    p = numpy_softmax(network(batch.images).numpy().astype(np.float64))
    model.compile(keras.optimizers.SGD(1.0))
    model.train_on_batch(images, labels)
    targets = np.full([40, classes], 0.5 / (classes - 1))
    targets[np.arange(40), labels] = 0.5
    expected = start - (p - targets).mean(axis=0)
    np.testing.assert_allclose(network.layers[-1].bias, expected, atol=1e-5)


def _trained():
    """A model of its own: HDF5's test compiles it again."""
    model = kal.AutoLabelModel(_network(), kal.Mixup(num_buckets=2), num_classes=3)
    metrics = ["accuracy", kal.ExpectedCalibrationError()]
    model.compile(keras.optimizers.Adam(0.01), metrics=metrics, run_eagerly=True)
    callbacks = [kal.AutoLabel((IMAGES, LABELS), step_size=0.2)]
    model.fit(IMAGES, LABELS, verbose=0, callbacks=callbacks)
    return model


@pytest.fixture(scope="module")
def trained():
    """One model for all exports."""
    return _trained()


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 writes no subclassed model as HDF5")
def test_files_of_hdf5_load_by_themselves(tmp_path):
    model = _trained()
    model.save(tmp_path / "model.h5")
    copy = keras.models.load_model(tmp_path / "model.h5")
    for one, other in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert copy.evaluate(IMAGES, LABELS, verbose=0) == model.evaluate(IMAGES, LABELS, verbose=0)
    # Keras builds the optimizer of an HDF5 file for other variables, of its own models too.
    for one in (model, copy):
        one.compile(keras.optimizers.SGD(0.1), loss=one.loss, run_eagerly=True)
    options = {"verbose": 0, "shuffle": False}
    with pytest.warns(UserWarning, match="AutoLabel"):
        histories = [one.fit(IMAGES, LABELS, **options).history for one in (model, copy)]
    # The same labels, those of the table, and the same draws.
    assert histories[0]["loss"] == pytest.approx(histories[1]["loss"], rel=1e-5)


def _interpreted(content: bytes, images: np.ndarray, signature=None) -> dict[str, np.ndarray]:
    interpreter = tf.lite.Interpreter(model_content=content)
    run = interpreter.get_signature_runner(signature)
    (name,) = run.get_input_details()
    rows = [run(**{name: images[row : row + 1]}) for row in range(len(images))]
    return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}


def test_the_export_converts_to_tflite(trained, tmp_path):
    trained.export(str(tmp_path / "exported"), temperature=2.0)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(tmp_path / "exported"), signature_keys=["serving_default"]
    )
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    images = np.round(255 * IMAGES[:5]).astype(np.uint8)
    found = _interpreted(converter.convert(), images, "serving_default")
    logits = trained.predict(images, verbose=0).astype(np.float64)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], numpy_softmax(logits / 2.0), atol=1e-5)
    np.testing.assert_array_equal(found["class"], logits.argmax(axis=-1))


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 exports in one format")
def test_keras_exports_as_litert(trained, tmp_path):
    trained.export(str(tmp_path / "model.tflite"), format="litert", verbose=False)
    (found,) = _interpreted((tmp_path / "model.tflite").read_bytes(), IMAGES[:5]).values()
    np.testing.assert_allclose(found, trained.predict(IMAGES[:5], verbose=0), atol=1e-5)


def _run_by_onnx(path, images: np.ndarray) -> dict[str, np.ndarray]:
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {given.name: images}), strict=True))


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 exports in one format")
def test_keras_exports_as_onnx(trained, tmp_path):
    pytest.importorskip("tf2onnx")
    trained.export(str(tmp_path / "model.onnx"), format="onnx", verbose=False)
    (found,) = _run_by_onnx(tmp_path / "model.onnx", IMAGES).values()
    np.testing.assert_allclose(found, trained.predict(IMAGES, verbose=0), atol=1e-5)


def test_the_export_converts_to_onnx(trained, tmp_path, monkeypatch):
    pytest.importorskip("tf2onnx")
    trained.export(str(tmp_path / "exported"), temperature=2.0)
    convert = ["tf2onnx.convert", "--saved-model", str(tmp_path / "exported")]
    convert += ["--signature_def", "serving_default", "--output", str(tmp_path / "model.onnx")]
    # As ``python -m`` does, but in this process: another one would import TensorFlow for seconds.
    monkeypatch.setattr(sys, "argv", convert)
    runpy.run_module(convert[0], run_name="__main__")
    images = np.round(255 * IMAGES).astype(np.uint8)
    found = _run_by_onnx(tmp_path / "model.onnx", images)
    logits = trained.predict(images, verbose=0).astype(np.float64)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], numpy_softmax(logits / 2.0), atol=1e-5)
    np.testing.assert_array_equal(found["class"], logits.argmax(axis=-1))
