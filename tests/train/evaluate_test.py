import csv
import gzip
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import data
from keras_autolabel import TemperatureScaling
from tests.conftest import linear_network
from tests.train.conftest import EPOCHS
from train.evaluation import figures_of
from train.predictor import Predictor
from train.report import MEAN_COLUMNS, table_of

CORRUPTED = "--corruptions=brightness,contrast,saturate"
MISTAKES = {
    "no model": ([], "Flag --model must have a value other than None."),
    "missing model": (["--model=/nowhere"], "There is no model at /nowhere."),
    "severities": (["--model=x", "--severities=1,6"], "must be whole numbers from 1 to 5"),
    "no epsilon": (["--model=x", "--attack_epsilons=0.1,big"], "must be numbers above 0"),
    "epsilon of bytes": (["--model=x", "--attack_epsilons=8"], "at most 1"),
    "loss": (["--model=x", "--attack_loss=l2"], "<crossentropy|margin>"),
    "positional argument": (["--model=x", "y"], "train.evaluate: Unknown arguments: y"),
    "text file": (["--model={note}"], "is no Keras model that can be loaded"),
    "folder": (["--model={folder}"], "holds no SavedModel; it holds note.txt"),
    "corruption": (["--model={run}", "--corrupted_dir={new}", "--corruptions=rain"], "'rain'"),
    "other hold-out": (
        ["--model={run}/saved_model", "--dataset=fashion_mnist", "--temperature_scaling"],
        "has none for fashion_mnist",
    ),
    "no set": (["--model={run}", "--corrupted_dir={folder}"], "holds no <corruption>.npy"),
    "size": (
        ["--model={run}", "--dataset=fashion_mnist", "--data_dir={idx}"],
        "takes 16x16x1 images. Received: 28x28x1",
    ),
    "size that is fixed": (["--model={run}", "--image_size=32"], "image_size=32 for digits"),
    "a folder that would not be read": (["--model={run}", "--data_dir=/x"], "data_dir=/x"),
    "other set": (
        [
            *("--model={fashion}", "--dataset=fashion_mnist"),
            *("--data_dir={idx}", "--corrupted_dir={set}"),
        ],
        "was made of digits; the clean images are of fashion_mnist.",
    ),
    "unwritable": (["--model={run}", "--output_dir=/dev/null/x"], "/dev/null/x is not writable"),
}


@pytest.fixture(scope="module")
def evaluated(finished_run, run_commands, tmp_path_factory):
    """All that evaluation offers on one run; once more on what that made; every mistake."""
    run, _ = finished_run
    folder = tmp_path_factory.mktemp("evaluated")
    note = folder / "notes" / "note.txt"
    note.parent.mkdir()
    note.write_text("no model", "utf-8")
    corrupted = folder / "digits-c"
    common = [
        "train.evaluate",
        f"--model={run}",
        f"--corrupted_dir={corrupted}",
        CORRUPTED,
        "--severities=1,5",
        "--examples=40",
        "--processes=1",
    ]
    first = [
        *common,
        f"--output_dir={folder / 'first'}",
        "--temperature_scaling",
        "--attack_epsilons=0.01,0.1",
        "--attack_steps=3",
        "--attack_restarts=1",
        "--attack_examples=30",
    ]
    ended = {"first": run_commands([first], folder / "printed-1")[0]}
    ended["written"] = _times(corrupted)
    second = [*common, f"--model={run / 'model.keras'}", "--batch_size=33", "--num_bins=10"]
    # The set is there already, whatever seed another one would get.
    second += ["--seed=5"]
    fashion = folder / "fashion.keras"
    linear_network((28, 28, 1), 10).save(fashion)
    places = {"run": run, "note": note, "folder": note.parent, "set": corrupted}
    places |= {"fashion": fashion, "idx": _made_up_fashion_mnist(folder / "idx")}
    mistakes = [
        ["train.evaluate", *(x.format(**places, new=folder / "new") for x in arguments)]
        for arguments, _ in MISTAKES.values()
    ]
    mistakes = [
        [*command, f"--output_dir={folder / 'refused'}"]
        if not any(x.startswith("--output_dir") for x in command)
        else command
        for command in mistakes
    ]
    results = run_commands(
        [[*second, f"--output_dir={folder / 'second'}"], *mistakes], folder / "printed-2"
    )
    ended |= dict(zip(["second", *MISTAKES], results, strict=True))
    return folder, ended


def _made_up_fashion_mnist(folder):
    """The four files of Fashion-MNIST, with eighty black images in each part."""
    folder.mkdir()
    for part in ("train", "t10k"):
        for kind, header, values in (
            ("images-idx3", 16, np.zeros(80 * 28 * 28, np.uint8)),
            ("labels-idx1", 8, np.arange(80, dtype=np.uint8) % 10),
        ):
            with gzip.open(folder / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + values.tobytes())
    return folder


def _times(folder) -> dict[str, int]:
    """When each array was written."""
    arrays = (path for path in folder.glob("*.npy") if path.name != "labels.npy")
    return {path.name: path.stat().st_mtime_ns for path in arrays}


def _read(folder):
    content = json.loads((folder / "evaluation.json").read_text("utf-8"))
    with open(folder / "evaluation.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [
        {key: value if key in ("model", "corruption") else float(value) for key, value in x.items()}
        for x in rows
    ]
    return content, numbers


@pytest.fixture(scope="module")
def first(evaluated):
    folder, ended = evaluated
    assert ended["first"].status == 0, ended["first"].stderr
    return _read(folder / "first")


@pytest.fixture(scope="module")
def predictor(finished_run):
    return Predictor(str(finished_run[0]))


def test_table_is_tidy(first, finished_run, predictor):
    content, rows = first
    own = predictor.temperature
    sets = [("none", 0.0), ("brightness", 1.0), ("brightness", 5.0), ("contrast", 1.0)]
    assert {(row["corruption"], row["severity"]) for row in rows} == {*sets, ("contrast", 5.0)}
    temperatures = list(dict.fromkeys(row["temperature"] for row in rows))
    assert temperatures[:2] == [1.0, own] and len(temperatures) in (2, 3)
    assert len(rows) == 5 * len(temperatures)
    assert len({(r["corruption"], r["severity"], r["temperature"]) for r in rows}) == len(rows)
    assert {row["model"] for row in rows} == {str(finished_run[0])}
    assert list(rows[0]) == [
        "model",
        "corruption",
        "severity",
        "temperature",
        "examples",
        "accuracy",
        "ece",
        "ece_floor",
        "ece_debiased",
        "gap",
        "nll",
        "brier",
        "aurc",
        "e_aurc",
    ]
    assert [
        {key: float(x) if isinstance(x, int) else x for key, x in row.items()}
        for row in content["rows"]
    ] == rows


def test_clean_figures_are_those_of_the_run(first, finished_run):
    metrics = json.loads((finished_run[0] / "metrics.json").read_text("utf-8"))
    clean = {row["temperature"]: row for row in first[1] if row["corruption"] == "none"}
    for figures, row in zip(metrics["figures"].values(), clean.values(), strict=False):
        assert row["examples"] == 300
        assert {key: row[key] for key in figures} == pytest.approx(figures, abs=1e-4)


def test_corrupted_figures_are_those_of_the_arrays(evaluated, first, predictor):
    corrupted = evaluated[0] / "digits-c"
    labels = np.load(corrupted / "labels.npy")
    assert len(labels) == 80 and set(np.unique(labels, return_counts=True)[1]) == {8}
    for row in first[1]:
        if row["corruption"] != "none":
            half = slice(0, 40) if row["severity"] == 1 else slice(40, 80)
            images = np.load(corrupted / f"{row['corruption']}.npy")[half]
            logits = predictor.logits(images) / row["temperature"]
            expected = figures_of(labels[half], logits)
            assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-5)


def test_progress_bars_leave_logs_alone(evaluated, finished_run):
    # What the commands print goes into files; these are marks of tqdm's bars and of Keras'.
    for ended in (evaluated[1]["first"], finished_run[1]):
        for text in (ended.stdout, ended.stderr):
            assert not [mark for mark in ("%|", "━", "[==", "\b") if mark in text]


def test_report_says_what_was_measured(evaluated, first, finished_run):
    content, _ = first
    printed = evaluated[1]["first"].stdout
    name = "digits + corruptions (generated)"
    assert content["corrupted"] == {"name": f"{name}, 40 images per set", "seed": 0}
    # Of the data, what the figures are of: the run has images of its own that it was trained on.
    assert content["data"] == {
        "name": "digits",
        "source": "scikit-learn load_digits, 8x8 brought to 16x16",
        "test": 300,
        "holdout": {str(finished_run[0]): 100},
    }
    assert f"{finished_run[0]}: a temperature was fitted on 100 hold-out images" in printed
    assert content["versions"]["tensorflow"] == tf.__version__
    assert "saturate is skipped: grey images have no saturation to change" in printed
    clean, corrupted = table_of(content["means"]), table_of(content["means"], MEAN_COLUMNS)
    assert len(clean.splitlines()) == len(corrupted.splitlines()) == 1 + len(content["means"])
    assert clean in printed and corrupted in printed
    assert f"{name}, 40 images per set; seed 0; means over types and severities" in printed


def test_attack_is_reported_with_its_settings(evaluated, first, finished_run):
    content, _ = first
    (robust,) = content["robust_accuracy"].values()
    assert list(content["robust_accuracy"]) == [str(finished_run[0])]
    assert list(robust) == ["0.0", "0.01", "0.1"]
    assert robust["0.1"] < robust["0.01"] <= robust["0.0"] <= 1.0
    assert all(
        (30 * accuracy) == pytest.approx(round(30 * accuracy)) for accuracy in robust.values()
    )
    assert content["attack"] == {
        "steps": 3,
        "restarts": 1,
        "relative_step_size": 0.25,
        "loss": "crossentropy",
        "examples": 30,
        "seed": 0,
    }
    line = (
        f"accuracy {100 * robust['0.1']:.2f} under PGD, ε = 0.1, 3 steps, 1 restart, "
        "crossentropy, 30 images, seed 0"
    )
    assert line in evaluated[1]["first"].stdout


def test_temperature_is_the_best_on_the_holdout(first, predictor):
    # The images that this run held out, which those of another seed or size would not be.
    holdout = data.load("digits", train_examples=400, holdout_examples=100).holdout
    logits = predictor.logits(holdout.images)
    fitted = TemperatureScaling().fit(holdout.labels, logits).temperature
    temperatures = list(dict.fromkeys(row["temperature"] for row in first[1]))
    assert temperatures[-1] == pytest.approx(fitted, abs=1e-3)


def test_figures_are_drawn(evaluated):
    drawn = {
        name: {path.name for path in (evaluated[0] / name / "figures").iterdir()}
        for name in ("first", "second")
    }
    assert drawn == {
        "first": {"reliability_0.png", "ece_by_severity.png", "accuracy_by_epsilon.png"},
        "second": {"reliability_0.png", "reliability_1.png", "ece_by_severity.png"},
    }


def test_corrupted_set_is_made_once(evaluated):
    folder, ended = evaluated
    assert ended["second"].status == 0, ended["second"].stderr
    assert set(ended["written"]) == {"brightness.npy", "contrast.npy"}
    assert _times(folder / "digits-c") == ended["written"]
    content, _ = _read(folder / "second")
    name = "digits + corruptions (generated), 40 images per set"
    assert content["corrupted"] == {"name": name, "seed": 0}
    assert f"{name}; seed 0; means" in ended["second"].stdout
    # Nothing was fitted or attacked.
    assert content["data"]["holdout"] == {} and content["attack"] is None


def test_two_forms_of_a_model_and_another_batch_size_agree(evaluated, first, finished_run):
    content, rows = _read(evaluated[0] / "second")
    models = (str(finished_run[0]), str(finished_run[0] / "model.keras"))
    by_model = [[r for r in rows if r["model"] == m and r["temperature"] == 1.0] for m in models]
    before = [row for row in first[1] if row["temperature"] == 1.0]
    # The bins are others, so is the ECE.
    for exported, kept, earlier in zip(*by_model, before, strict=True):
        for key in ("severity", "examples", "accuracy", "nll", "brier"):
            assert exported[key] == pytest.approx(kept[key], abs=1e-5)
            assert exported[key] == pytest.approx(earlier[key], abs=1e-5)
    assert any(abs(x["ece"] - y["ece"]) > 1e-4 for x, y in zip(by_model[0], before, strict=True))
    assert content["robust_accuracy"] == {model: {} for model in models}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_clear_line(mistake, evaluated):
    folder, ended = evaluated
    message = ended[mistake].message()
    if message.startswith("Pass --help"):
        message = " ".join(ended[mistake].stderr.strip().splitlines()[:-1])
    else:
        assert message.startswith("train.evaluate: ")
    assert MISTAKES[mistake][1] in message
    assert not (folder / "refused").exists()
    assert not (folder / "new").exists()


# --- runs that other flags than the default ones were trained with ----------------------------


@pytest.fixture(scope="module")
def others(finished_run, run_commands, tmp_path_factory):
    """A run on an image folder, and one that was killed; measured with no flags but the needed."""
    folder = tmp_path_factory.mktemp("others")
    rng = np.random.default_rng(0)
    for label in range(2):
        (folder / "pictures" / str(label)).mkdir(parents=True)
        for number in range(18):
            pixels = rng.integers(0, 128, (40, 30, 3)) + 127 * label
            path = folder / "pictures" / str(label) / f"{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (folder / "pictures" / "0" / "broken.png").write_text("no picture", "utf-8")
    killed = folder / "killed"
    shutil.copytree(finished_run[0] / "checkpoints", killed / "checkpoints")
    shutil.copy(finished_run[0] / "settings.json", killed)
    published = folder / "published"
    published.mkdir()
    np.save(published / "labels.npy", np.zeros(5, np.uint8))
    np.save(published / "fog.npy", np.zeros([5, 16, 16, 1], np.uint8))
    pictures, run = f"--data_dir={folder / 'pictures'}", folder / "run"
    fit = [
        *("tests.train.with_linear_network", "train.fit", "--dataset=image_folder"),
        *("--image_size=16", "--crop_and_flip"),
        *("--skip_unreadable", "--augmentation=none", "--labels=one_hot", "--epochs=2"),
        *("--batch_size=8", "--holdout_examples=4", pictures, f"--output_dir={run}"),
    ]
    # The data set, too, is that of the run.
    on_pictures = ["train.evaluate", f"--model={run}"]
    commands = {
        "fit": fit,
        "as trained": [*on_pictures, "--temperature_scaling"],
        "larger": [*on_pictures, pictures, "--image_size=32"],
        "all files": [*on_pictures, "--noskip_unreadable"],
        "killed": [
            *("train.evaluate", f"--model={killed}", f"--model={finished_run[0]}"),
            *(f"--corrupted_dir={published}", "--seed=3"),
        ],
    }
    results = run_commands(list(commands.values()), folder / "printed")
    return folder, dict(zip(commands, results, strict=True))


def test_images_of_a_folder_are_prepared_as_for_the_run(others):
    folder, ended = others
    assert ended["as trained"].status == 0, ended["as trained"].stderr
    content, rows = _read(folder / "run-evaluation")
    metrics = json.loads((folder / "run" / "metrics.json").read_text("utf-8"))
    figures = metrics["figures"]["test"]
    assert {key: rows[0][key] for key in figures} == pytest.approx(figures, abs=1e-4)
    assert content["data"]["holdout"] == {str(folder / "run"): 4}
    assert "1 unreadable files left out" in content["data"]["source"]


def test_flags_go_before_the_settings_of_the_run(others):
    _, ended = others
    assert "takes 16x16x3 images. Received: 32x32x3" in ended["larger"].message()
    assert "1 of 37 files in" in ended["all files"].message()


def test_killed_run_is_measured_at_its_last_checkpoint(others, finished_run):
    folder, ended = others
    assert ended["killed"].status == 0, ended["killed"].stderr
    content, rows = _read(folder / "killed-evaluation")
    names = [f"{folder / 'killed'}, epoch {EPOCHS}", str(finished_run[0])]
    restored, whole = ([row for row in rows if row["model"] == name] for name in names)
    by_set = {row["corruption"]: row["nll"] for row in whole if row["temperature"] == 1.0}
    for row in (restored[0], restored[-1]):
        assert row["nll"] == pytest.approx(by_set[row["corruption"]], rel=1e-3)
    assert len(restored) == 6 and f"{names[0]}, T = 1.000" in ended["killed"].stdout
    # Nobody knows the seed of a published set.
    name = "published (published), 1 images per set"
    assert content["corrupted"] == {"name": name, "seed": None}
    assert f"{name}; means over types" in ended["killed"].stdout


def test_an_error_of_tensorflow_is_one_line(run_commands, tmp_path):
    (ended,) = run_commands([["tests.train.failing_evaluate", "--model=none"]], tmp_path)
    assert ended.message() == "train.evaluate: assertion failed: [no space]"
