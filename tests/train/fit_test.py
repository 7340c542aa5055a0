import json
import re

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score, log_loss
from tensorflow import keras

import data
import keras_autolabel as kal
from tests.conftest import numpy_calibration, summaries
from tests.train.conftest import EPOCHS, SMALL_RUN, flags_of_fit, settings_on_the_page
from train import fit, training
from train.image_network import ImageNetwork
from train.report import table_of
from train.run_folder import read_history, table_in
from train.settings import Settings

MISTAKES = {
    "positional argument": (["digits"], "Unknown arguments: digits"),
    "a setting that nothing reads": (["--epsilon=0.1"], "--epsilon .*--augmentation=augmix.* pgd"),
    "combination": (["--augmentation=none"], "--augmentation=none .*--labels=autolabel"),
    "unwritable folder": (["--output_dir=/dev/null/run"], "/dev/null/run is not writable"),
    "missing data": (
        ["--dataset=cifar10", "--data_dir=/nowhere"],
        "/nowhere/cifar10.* tfds build cifar10",
    ),
    "a folder that would not be read": (["--data_dir=/nowhere"], "/nowhere"),
    "too many examples": (["--train_examples=5000"], "Received: 5000"),
    "batch too large": (["--batch_size=1249"], "--batch_size=1249 .*1248 training images"),
    "network does not fit": (["--network=resnet50"], "at least 32 pixels.*16, 16, 1"),
}


@pytest.fixture(scope="module")
def metrics(finished_run) -> dict:
    return json.loads((finished_run[0] / "metrics.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def history(finished_run) -> list[dict[str, float]]:
    return read_history(str(finished_run[0]))


@pytest.fixture(scope="module")
def splits() -> data.Splits:
    return data.load("digits", train_examples=400, holdout_examples=100)


def test_all_results_are_there(finished_run):
    folder, _ = finished_run
    assert {path.name for path in folder.iterdir()} == {
        "checkpoints",
        "examples.npy",
        "figures",
        "history.csv",
        "metrics.json",
        "model.keras",
        "saved_model",
        "settings.json",
        "tensorboard",
    }
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "examples.png",
        "figure_1.png",
        "holdout_calibration.png",
        "label_table.png",
        "reliability.png",
    }
    for picture in (folder / "figures").iterdir():
        height, width, _ = tf.io.decode_png(picture.read_bytes()).shape
        assert min(height, width) > 200


def test_metrics_say_what_was_run(metrics, finished_run):
    assert metrics["data"] == {
        "name": "digits",
        "source": "scikit-learn load_digits, 8x8 brought to 16x16",
        "train": 400,
        "holdout": 100,
        "test": 300,
    }
    settings = json.loads((finished_run[0] / "settings.json").read_text("utf-8"))
    assert metrics["settings"] == settings
    given = {"epochs": EPOCHS, "batch_size": 50, "num_buckets": 2, "augmentation": "mixup"}
    assert {name: settings[name] for name in given} == given
    assert metrics["seed"] == 0
    assert metrics["parameters"] == 78_042
    assert metrics["versions"]["tensorflow"] == tf.__version__
    assert metrics["versions"]["keras_autolabel"] == kal.__version__


def test_history_has_each_epoch_once_and_the_table(metrics, history):
    assert [row["epoch"] for row in history] == list(range(EPOCHS))
    table = table_in(history, "label_confidence", (2,))
    np.testing.assert_array_equal(np.float32(table[-1]), np.float32(metrics["label_table"]))
    # Equation (1) and the clip, out of the figures that stand beside the labels.
    ece, accuracy, confidence = (
        table_in(history, f"holdout_{name}", (2,)) for name in ("ece", "accuracy", "confidence")
    )
    label = np.array([0.875, 0.625])
    for epoch in range(EPOCHS):
        moved = label - 0.1 * ece[epoch] * np.sign(confidence[epoch] - accuracy[epoch])
        label = np.clip(moved, np.maximum(accuracy[epoch], 0.1), 1.0)
        np.testing.assert_allclose(table[epoch], label, atol=1e-5)
    assert np.ptp(table, axis=0).min() > 0.005


def test_tensorboard_has_what_the_history_has(finished_run, history):
    board = finished_run[0] / "tensorboard"
    logged = summaries(board / "train") | summaries(board / "labels")
    for row in history:
        for tag, name in (
            ("epoch_loss", "loss"),
            ("labels/label_confidence_0", "label_confidence_0"),
            ("labels/holdout_ece_1", "holdout_ece_1"),
        ):
            value = float(tf.make_ndarray(logged[tag, int(row["epoch"])].tensor))
            assert value == pytest.approx(row[name], rel=1e-6)


def test_tensorboard_has_the_settings_beside_the_figures(finished_run, metrics):
    pages = {path.name: path for path in (finished_run[0] / "tensorboard" / "hparams").iterdir()}
    assert list(sorted(pages)) == ["clean_holdout", "none"]
    for name, figures in zip(("none", "clean_holdout"), metrics["figures"].values(), strict=True):
        found = summaries(pages[name])
        settings = settings_on_the_page(found)
        assert settings.pop("temperature") == name
        assert settings == {name: metrics["settings"][name] for name in settings}
        # Those that mixup and its labels read, and no others.
        assert {"beta", "num_buckets", "step_size", "learning_rate"} <= set(settings)
        assert not {"epsilon", "severity", "smoothing", "image_size"} & set(settings)
        values = {tag: value for (tag, step), value in found.items() if step == EPOCHS}
        for figure, value in figures.items():
            assert float(tf.make_ndarray(values[figure].tensor)) == pytest.approx(value, rel=1e-6)


def test_screen_shows_the_table_of_the_metrics(finished_run, metrics):
    folder, ended = finished_run
    lines = ended.stdout.splitlines()
    counts = "400 training, 100 hold-out (stratified draws), 300 test images; seed 0."
    assert lines[0] == f"digits ({metrics['data']['source']}): {counts}"
    first = lines.index(f"digits, mixup + autolabel: {counts}")
    table = table_of(metrics["figures"])
    assert lines[first + 1 : first + 4] == table.splitlines()
    accuracy, nll = metrics["figures"]["test"]["accuracy"], metrics["figures"]["test"]["nll"]
    assert lines[first + 2].split()[:2] == ["test", f"{100 * accuracy:.2f}"]
    assert f"{nll:.4f}" in lines[first + 2]
    assert str(folder) in lines[-1]


def test_figures_are_those_of_the_export(finished_run, metrics, splits):
    served = tf.saved_model.load(str(finished_run[0] / "saved_model"))
    outputs = served.signatures["serving_default"](tf.constant(splits.test.images))
    logits = outputs["logits"].numpy().astype(np.float64)
    temperature = metrics["temperature"]
    assert float(served.temperature) == pytest.approx(temperature, rel=1e-6)
    assert list(metrics["figures"]) == ["test", f"test, T = {temperature:.3f}"]
    for figures, divisor in zip(metrics["figures"].values(), (1.0, temperature), strict=True):
        probabilities = tf.nn.softmax(logits / divisor).numpy()
        labels = splits.test.labels
        assert figures["accuracy"] == accuracy_score(labels, probabilities.argmax(axis=-1))
        assert figures["nll"] == pytest.approx(log_loss(labels, probabilities), rel=1e-4)
        ece, _, _ = numpy_calibration(labels, probabilities)
        assert figures["ece"] == pytest.approx(ece, abs=1e-3)
    np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
    # The best temperature of the hold-out: the likelihood falls on both sides of it.
    logits = served(splits.holdout.images)["logits"].numpy().astype(np.float64)
    nll = [
        log_loss(splits.holdout.labels, tf.nn.softmax(logits / (temperature * factor)).numpy())
        for factor in (0.98, 1.0, 1.02)
    ]
    assert nll[1] < min(nll[0], nll[2])
    np.testing.assert_array_equal(served.label_table, np.float32(metrics["label_table"]))
    assert [name.decode() for name in served.class_names.numpy()] == list(splits.class_names)


def test_keras_file_is_the_same_model_and_the_first_test_images_are_kept(
    finished_run, metrics, splits
):
    model = keras.models.load_model(finished_run[0] / "model.keras")
    assert isinstance(model, kal.AutoLabelModel) and isinstance(model.network, ImageNetwork)
    logits = model.predict(splits.test.images, verbose=0)
    accuracy = accuracy_score(splits.test.labels, logits.argmax(axis=-1))
    assert accuracy == metrics["figures"]["test"]["accuracy"]
    np.testing.assert_array_equal(model.label_policy.confidence, np.float32(metrics["label_table"]))
    examples = np.load(finished_run[0] / "examples.npy")
    assert examples.dtype == np.uint8
    np.testing.assert_array_equal(examples, splits.test.images[:8])


def _message(*arguments) -> str:
    """The one line with which train.fit ends."""
    with flags_of_fit(*arguments) as argv, pytest.raises(SystemExit) as ended:
        fit.main(argv)
    assert len(ended.value.code.splitlines()) == 1
    return ended.value.code.removeprefix("train.fit: ")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_clear_line_and_leaves_nothing_behind(mistake, tmp_path, monkeypatch):
    arguments, message = MISTAKES[mistake]
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("training has begun"))
    said = _message("--dataset=digits", f"--output_dir={tmp_path / 'new'}", *arguments)
    assert re.match(f".*{message}", said)
    assert not (tmp_path / "new").exists()


def test_second_run_is_refused(finished_run):
    folder, _ = finished_run
    before = (folder / "metrics.json").read_bytes()
    for flag in ("--seed=0", "--seed=1"):
        message = _message(*SMALL_RUN, flag, f"--output_dir={folder}")
        assert re.match(f"{folder} already holds a finished run.*--overwrite", message)
    assert (folder / "metrics.json").read_bytes() == before


def test_flags_come_from_a_file_and_an_error_of_tensorflow_is_one_line(tmp_path, monkeypatch):
    called = []

    def fail(*arguments, **options):
        called.append((arguments, options))
        raise tf.errors.ResourceExhaustedError(None, None, "a graph:\nno space\n\t [[{{node a}}]]")

    monkeypatch.setattr(training, "run", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags.cfg").write_text("--dataset=digits\n--seed=3\n--epochs=7", "utf-8")
    assert _message("--flagfile=flags.cfg", "--overwrite", "--labels=one_hot") == "no space"
    ((settings, splits, folder), options) = called[0]
    assert settings == Settings(dataset="digits", seed=3, epochs=7, labels="one_hot")
    assert splits.counts() == {"train": 1248, "holdout": 249, "test": 300}
    assert folder == "runs/digits-augmix-one_hot-seed3"
    assert options == {"overwrite": True, "keep": 2, "minutes": 30.0}
