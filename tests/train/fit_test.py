import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score, log_loss
from tensorflow import keras

import data
import keras_autolabel as kal
from tests.conftest import numpy_calibration
from tests.train.conftest import failing_message, run_commands
from train.image_network import ImageNetwork
from train.report import table_of
from train.run_folder import read_history, table_in

# Trains in seconds: no augmentation, one epoch of two steps.
TINY = (
    "--dataset=digits",
    "--augmentation=none",
    "--labels=one_hot",
    "--train_examples=64",
    "--batch_size=32",
    "--epochs=1",
)
MISTAKES = {
    "unknown data set": (["--dataset=mnist"], "", "<fashion_mnist_small|digits|fashion_mnist"),
    "unknown augmentation": (["--augmentation=blur"], "", "<none|augmix|randaugment|mixup|"),
    "unknown flag": (["--batchsize=3"], "", "Unknown command line flag 'batchsize'"),
    "negative width": (["--width=-1"], "", "--width=-1: -1 is not a positive integer"),
    "positional argument": (["digits"], "train.fit: Unknown arguments: digits", ""),
    "combination": (
        ["--augmentation=none"],
        "train.fit: --augmentation=none does not go with --labels=autolabel: ",
        "nothing moves it",
    ),
    "missing data": (
        ["--dataset=fashion_mnist", "--data_dir=/nowhere"],
        "train.fit: /nowhere/train-images-idx3-ubyte.gz is missing.",
        "apt-get install dataset-fashion-mnist",
    ),
    "too many examples": (["--train_examples=5000"], "train.fit: ", "Received: 5000"),
    "batch too large": (
        ["--train_examples=64", "--batch_size=65"],
        "train.fit: --batch_size=65 is more than the 64 training images.",
        "",
    ),
    "epsilon in grey levels": (
        ["--augmentation=pgd", "--epsilon=8"],
        "train.fit: ",
        "for 8 grey levels of 255 pass 8/255. Received: epsilon=8.0",
    ),
    "negative beta": (
        ["--augmentation=mixup", "--beta=-1"],
        "train.fit: ",
        "Received: beta=-1.0",
    ),
    "infinite beta": (
        ["--augmentation=mixup", "--beta=inf"],
        "train.fit: --beta must be a finite number. Received: --beta=inf",
        "",
    ),
    "step size that is no number": (
        ["--step_size=nan"],
        "train.fit: --step_size must be a finite number. Received: --step_size=nan",
        "",
    ),
    "no step": (
        ["--augmentation=pgd", "--relative_step_size=0"],
        "train.fit: ",
        "Received: relative_step_size=0.0",
    ),
    "a batch of one": (
        ["--augmentation=mixup", "--batch_size=1"],
        "train.fit: --augmentation=mixup does not go with --batch_size=1: ",
        "at least 2 images",
    ),
    "network does not fit": (["--network=resnet50"], "train.fit: ", "at least 32 pixels"),
    "unwritable folder": (
        ["--output_dir=/dev/null/run"],
        "train.fit: /dev/null/run is not writable",
        "",
    ),
    "a setting that nothing reads": (
        ["--epsilon=0.1"],
        "train.fit: --epsilon has no effect with --augmentation=augmix",
        "pgd",
    ),
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


@pytest.fixture(scope="module")
def refused(tmp_path_factory) -> dict:
    """What each mistake leads to; name -> ``(Ended, folder)``."""
    folder = tmp_path_factory.mktemp("mistakes")
    commands = [
        ["train.fit", f"--output_dir={folder / str(number)}", *arguments]
        for number, (arguments, _, _) in enumerate(MISTAKES.values())
    ]
    ended = run_commands(commands, folder / "printed")
    return {name: (ended[number], folder / str(number)) for number, name in enumerate(MISTAKES)}


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
    given = {"epochs": 8, "batch_size": 50, "num_buckets": 2, "augmentation": "mixup"}
    assert {name: settings[name] for name in given} == given
    assert metrics["seed"] == 0
    assert metrics["parameters"] == 78_042
    assert metrics["versions"]["tensorflow"] == tf.__version__
    assert metrics["versions"]["keras_autolabel"] == kal.__version__


def test_history_has_each_epoch_once_and_the_table(metrics, history):
    assert [row["epoch"] for row in history] == list(range(8))
    losses = [row["loss"] for row in history]
    assert losses[-1] < 0.8 * losses[0]
    table = table_in(history, "label_confidence", (2,))
    np.testing.assert_array_equal(np.float32(table[-1]), np.float32(metrics["label_table"]))
    # Equation (1) and the clip, out of the figures that stand beside the labels.
    ece, accuracy, confidence = (
        table_in(history, f"holdout_{name}", (2,)) for name in ("ece", "accuracy", "confidence")
    )
    label = np.array([0.875, 0.625])
    for epoch in range(8):
        moved = label - 0.1 * ece[epoch] * np.sign(confidence[epoch] - accuracy[epoch])
        label = np.clip(moved, np.maximum(accuracy[epoch], 0.1), 1.0)
        np.testing.assert_allclose(table[epoch], label, atol=1e-5)
    assert np.ptp(table, axis=0).min() > 0.005


def test_tensorboard_has_what_the_history_has(finished_run, history):
    (events,) = (finished_run[0] / "tensorboard" / "train").glob("events.out.*")
    logged = {}
    for record in tf.data.TFRecordDataset(str(events)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            logged[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    for row in history:
        epoch = int(row["epoch"])
        for name in ("loss", "label_confidence_0", "holdout_ece_1"):
            assert logged[f"epoch_{name}", epoch] == pytest.approx(row[name], rel=1e-6)


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
    assert metrics["figures"]["test"]["accuracy"] > 0.8
    np.testing.assert_array_equal(served.label_table, np.float32(metrics["label_table"]))
    assert [name.decode() for name in served.class_names.numpy()] == list(splits.class_names)


def test_first_test_images_are_kept_to_try_the_export_on(finished_run, splits):
    examples = np.load(finished_run[0] / "examples.npy")
    assert examples.dtype == np.uint8
    np.testing.assert_array_equal(examples, splits.test.images[:8])


def test_keras_file_is_the_same_model(finished_run, metrics, splits):
    model = keras.models.load_model(finished_run[0] / "model.keras")
    assert isinstance(model, kal.AutoLabelModel) and isinstance(model.network, ImageNetwork)
    logits = model.predict(splits.test.images, verbose=0)
    accuracy = accuracy_score(splits.test.labels, logits.argmax(axis=-1))
    assert accuracy == metrics["figures"]["test"]["accuracy"]
    np.testing.assert_array_equal(model.label_policy.confidence, np.float32(metrics["label_table"]))


def test_second_run_is_refused_until_overwrite_and_flags_come_from_a_file(tmp_path):
    folder = tmp_path / "run"
    (tmp_path / "flags.cfg").write_text("\n".join([*TINY, f"--output_dir={folder}"]), "utf-8")
    from_file = ["train.fit", f"--flagfile={tmp_path / 'flags.cfg'}"]
    first, again, other, replaced = run_commands(
        [
            from_file,
            from_file,
            [*from_file, "--seed=1"],
            [*from_file, "--seed=1", "--overwrite"],
        ],
        tmp_path / "printed",
    )
    assert first.status == 0, first.stderr
    assert "digits, none + one_hot: 64 training," in first.stdout
    for ended in (again, other):
        assert ended.message() == (
            f"train.fit: {folder} already holds a finished run; name another --output_dir, or "
            "replace it with --overwrite."
        )
    assert replaced.status == 0, replaced.stderr
    assert "seed 1." in replaced.stdout
    assert json.loads((folder / "metrics.json").read_text("utf-8"))["seed"] == 1


def test_loss_that_is_not_finite_ends_with_one_line(tmp_path):
    command = ["train.fit", *TINY, "--learning_rate=1e38", f"--output_dir={tmp_path / 'run'}"]
    (ended,) = run_commands([command], tmp_path / "printed")
    message = ended.message()
    assert message.startswith("train.fit: Training has diverged; lower --learning_rate. ")
    assert "kernel" in message and message.endswith(", ...")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_an_error_of_tensorflow_is_one_line():
    assert failing_message("fit", "training.run") == "train.fit: assertion failed: [no space]"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_clear_line_and_leaves_nothing_behind(mistake, refused):
    ended, folder = refused[mistake]
    _, start, part = MISTAKES[mistake]
    message = ended.message()
    if message.startswith("Pass --help"):
        # How absl ends what it says of a flag.
        message = " ".join(ended.stderr.strip().splitlines()[:-1])
        assert message.startswith("FATAL Flags parsing error")
    assert message.startswith(start) and part in message
    assert not folder.exists()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
