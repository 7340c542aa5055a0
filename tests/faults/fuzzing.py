"""Damages files at random, and has what reads them read them, in this process.

    python -m tests.faults.fuzzing READER FOLDER FIRST NUMBER

Prints what came of it as JSON. ``FOLDER/case`` holds the number of the case that is under way: it
is the one to blame where the process ends otherwise.
"""

import faulthandler
import gzip
import io
import json
import pathlib
import resource
import shutil
import sys
import traceback
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from tensorflow import keras

import data
from data import corrupted_sets
from data.fashion_mnist import IMAGES, LABELS, read_part
from data.image_folder import load_image_folder
from data.options import Options
from keras_autolabel import AutoLabelModel
from tests.conftest import Dimming, linear_network
from train import comparison_job, comparison_statistics, run_folder
from train.comparison import JOB, Job
from train.evaluation import figures_of_predictions
from train.predictor import Predictor
from train.reasons import reason_of
from train.settings import Settings

SECONDS = 60
MEMORY = 6 * 2**30
TOKENS = [b"-1", b"0", b"NaN", b"1e999", b"null", b"[]", b"{}", b'"', b"9" * 30, b"\x00", b"\xff"]
DIGITS = load_digits()
PIXELS = (DIGITS.images[:24] * 15.9).astype(np.uint8)


class Reader(NamedTuple):
    """What reads files.

    Attributes:
        make: Writes real ones into a folder.
        damaged: Patterns of those that are damaged, one at a time.
        read: Reads them, and fails if what it gets cannot be right.
        inside: ``(unpack, pack)`` where what is damaged lies inside a file; None: the file.
    """

    make: Callable[[pathlib.Path], None]
    damaged: tuple[str, ...]
    read: Callable[[pathlib.Path], None]
    inside: tuple[Callable, Callable] | None = None


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes: bits, bytes, pieces that are gone, twice there or something else."""
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(content) + 1))
        end = min(len(content), start + int(2 ** rng.uniform(0, np.log2(len(content) + 2))))
        kind = rng.integers(7)
        if kind == 0:
            content = content[:start]
        elif kind == 1:
            content = content[:start] + content[end:]
        elif kind == 2:
            content = content[:end] + content[start:]
        elif kind == 3:
            token = TOKENS[rng.integers(len(TOKENS))]
            content = content[:start] + token + content[start + len(token) :]
        elif kind == 4:
            size = int(rng.integers(1, 9))
            content = content[:start] + rng.bytes(size) + content[start + size :]
        elif kind == 5:
            value = bytes([(0, 255, 127, 128)[rng.integers(4)]])
            size = int(rng.integers(1, 9))
            content = content[:start] + value * size + content[start + size :]
        elif start < len(content):
            flipped = content[start] ^ (1 << int(rng.integers(8)))
            content = content[:start] + bytes([flipped]) + content[start + 1 :]
    return content


# --- what data/ reads -----------------------------------------------------------------------------


def make_idx(folder):
    header = np.array([2051, 24, 28, 28], ">i4").tobytes()
    images = np.repeat(np.repeat(PIXELS, 4, 1), 4, 2)[:, :28, :28]
    (folder / IMAGES.format("t10k")).write_bytes(gzip.compress(header + images.tobytes()))
    header = np.array([2049, 24], ">i4").tobytes()
    labels = DIGITS.target[:24].astype(np.uint8)
    (folder / LABELS.format("t10k")).write_bytes(gzip.compress(header + labels.tobytes()))


def read_idx(folder):
    images, labels = read_part(str(folder), "t10k")
    assert images.shape == (len(labels), 28, 28, 1) and images.dtype == np.uint8
    assert labels.min() >= 0 and labels.max() <= 9


def make_corrupted(folder):
    images = np.repeat(np.repeat(PIXELS[:4, ..., np.newaxis], 4, 1), 4, 2)
    corrupted_sets.generate_corrupted(
        images,
        DIGITS.target[:4],
        folder,
        dataset="digits",
        corruptions=["brightness"],
        severities=[1, 3],
    )


def read_corrupted(folder):
    found = corrupted_sets.open_corrupted(folder)
    assert found.labels.min() >= 0
    for name, severity, images, labels in corrupted_sets.read_corrupted(folder):
        assert name == "brightness" and 1 <= severity <= 5 and len(images) == len(labels)
        assert images.dtype == np.uint8 and 0 <= np.asarray(images).mean() <= 255


def make_images(ending, **options):
    def make(folder):
        for number in range(12):
            image = Image.fromarray(PIXELS[number]).convert("RGB")
            path = folder / "ab"[number % 2] / f"{number}.{ending}"
            path.parent.mkdir(exist_ok=True)
            image.resize((24, 16)).save(path, **options)

    return make


def read_images(folder):
    parts = load_image_folder(Options(str(folder), image_size=8))
    assert len(parts.train) + len(parts.test) == 12
    for part in (parts.train, parts.test):
        if len(part):
            for images, labels in part.batches(2):
                assert images.shape[1:] == (8, 8, 3) and images.dtype == tf.uint8
                assert set(labels.numpy()) <= {0, 1}


def read_tree_image(folder):
    (path,) = folder.glob("a/0.*")
    image = corrupted_sets.read_image(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


# --- what train/ reads ----------------------------------------------------------------------------


def a_model():
    network = linear_network((8, 8, 1), 10, scale=0.1)
    model = AutoLabelModel(network, Dimming(), num_classes=10)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    model.build([None, 8, 8, 1])
    return model


def make_run(folder):
    run_folder.write_json(str(folder / "settings.json"), vars(Settings(dataset="digits")))
    model = a_model()
    checkpoints = run_folder.Checkpoints(model, str(folder))
    for epoch in range(2):
        model.label_policy.confidence.assign([0.5 + 0.25 * epoch] * 3)
        checkpoints.on_epoch_end(epoch)
    rows = [{"epoch": e, "loss": 1.5 - e, "label_confidence_0": 0.5, "ece": 0.1} for e in range(3)]
    run_folder.write_csv(str(folder / "history.csv"), rows)


def read_settings(folder):
    settings = run_folder.settings_of_run(str(folder))
    if settings is None:
        return
    for name, usual in vars(Settings(data_dir="", train_examples=1, image_size=8)).items():
        value = getattr(settings, name)
        assert value is None or usual is None or isinstance(value, type(usual) | int), name
    assert settings.epochs >= 1 and settings.dataset in data.DATASETS
    assert json.dumps(vars(settings), allow_nan=False)


def read_history(folder):
    rows = run_folder.read_history(str(folder))
    assert all(type(row["epoch"]) is int for row in rows)
    assert all(type(value) is float for row in rows for value in [*row.values()][1:])


MODELS = []


def read_checkpoint(folder):
    MODELS[:] = MODELS or [a_model()]
    epochs = run_folder.Checkpoints(MODELS[0], str(folder)).restore()
    assert epochs in (1, 2)
    np.testing.assert_array_equal(MODELS[0].label_policy.confidence, [0.25 + 0.25 * epochs] * 3)


def make_keras(folder):
    a_model().save(folder / "model.keras")


def make_saved_model(folder):
    a_model().export(str(folder / "saved_model"))


def read_model(path):
    predictor = Predictor(str(path))
    logits = predictor.logits(PIXELS[:4, ..., np.newaxis])
    assert len(logits) == 4 and logits.dtype == np.float32


def unzip(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


A_JOB = Job("augmix", 0)


def make_job(folder):
    here = pathlib.Path(A_JOB.folder(str(folder)))
    here.mkdir(parents=True)
    others = comparison_statistics.KEYS - {"settings"}
    run_folder.write_json(
        str(here / JOB), {"settings": {"num_bins": 15}, **dict.fromkeys(sorted(others))}
    )
    confidence = np.linspace(0.1, 1.0, 60, dtype=np.float32).reshape(3, 20)
    arrays = {"none/0/confidence": confidence, "none/0/correct": np.arange(20) % 2 == 0}
    np.savez(here / comparison_job.PREDICTIONS, **arrays)
    run_folder.write_csv(str(here / "history.csv"), [{"epoch": 0, "loss": 1.0}])


def read_job(folder):
    result = comparison_statistics.Result.read(str(folder), A_JOB)
    for sets in result.predictions.values():
        for predicted in sets:
            pairs = predicted.confidence, predicted.correct
            figures = figures_of_predictions(*pairs, num_bins=result.num_bins)
            assert {"accuracy", "ece", "ece_floor", "ece_debiased", "gap"} <= set(figures)


IDX, ZIP = ("*.gz",), (unzip, zipped)
READERS = {
    "idx": Reader(make_idx, IDX, read_idx),
    "idx, unpacked": Reader(make_idx, IDX, read_idx, (gzip.decompress, gzip.compress)),
    "npy": Reader(make_corrupted, ("*.npy",), read_corrupted),
    "manifest": Reader(make_corrupted, ("manifest.json",), read_corrupted),
    "png": Reader(make_images("png"), ("a/0.png",), read_images),
    "jpeg": Reader(make_images("jpg", quality=90), ("a/0.jpg",), read_images),
    "jpeg, progressive": Reader(make_images("jpg", progressive=True), ("a/0.jpg",), read_images),
    "gif": Reader(make_images("gif"), ("a/0.gif",), read_images),
    "bmp": Reader(make_images("bmp"), ("a/0.bmp",), read_images),
    "png of a tree": Reader(make_images("png"), ("a/0.png",), read_tree_image),
    "jpeg of a tree": Reader(make_images("jpg"), ("a/0.jpg",), read_tree_image),
    "settings": Reader(make_run, ("settings.json",), read_settings),
    "history": Reader(make_run, ("history.csv",), read_history),
    "checkpoint": Reader(make_run, ("checkpoints/ckpt-2.*", "checkpoints/c*t"), read_checkpoint),
    "keras": Reader(make_keras, ("*.keras",), lambda x: read_model(x / "model.keras")),
    "keras, unpacked": Reader(
        make_keras, ("*.keras",), lambda x: read_model(x / "model.keras"), ZIP
    ),
    "saved model": Reader(
        make_saved_model, ("saved_model/**/*",), lambda x: read_model(x / "saved_model")
    ),
    "job": Reader(make_job, ("**/job.json",), read_job),
    "predictions": Reader(make_job, ("**/*.npz",), read_job),
    "predictions, unpacked": Reader(make_job, ("**/*.npz",), read_job, ZIP),
}


# --- one after the other --------------------------------------------------------------------------


def damaged(content: bytes, reader: Reader, rng: np.random.Generator) -> bytes:
    """The content of a file, damaged, in it or in what is packed in it."""
    if reader.inside is None:
        return mutate(content, rng)
    unpack, pack = reader.inside
    inside = unpack(content)
    if isinstance(inside, bytes):
        return pack(mutate(inside, rng))
    name = sorted(inside)[rng.integers(len(inside))]
    return pack({**inside, name: mutate(inside[name], rng)})


def outcome(reader: Reader, folder: pathlib.Path, path: pathlib.Path) -> str:
    """``"answer"``, ``"refused"``, or what is wrong with how it ended."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        reader.read(folder)
    # As the binaries end: with the line of one of these.
    except (ValueError, OSError, tf.errors.OpError) as error:
        line = reason_of(error) if isinstance(error, tf.errors.OpError) else str(error)
        names = {path.name, path.parent.name, folder.name}
        if "\n" in line.strip() or not any(name in line for name in names) or len(line) > 1000:
            return f"not one line that names the file: {type(error).__name__}: {line}"
        return "refused"
    except BaseException:
        return traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
    return "answer"


def main(name: str, folder: str, first: str, number: str) -> None:
    """Reads damaged files, and prints how often each outcome was, and what was wrong."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    reader, folder = READERS[name], pathlib.Path(folder)
    whole, broken = folder / "whole", folder / "broken"
    if not whole.exists():
        whole.mkdir()
        reader.make(whole)
    reader.read(whole)
    files = sorted(
        path for pattern in reader.damaged for path in whole.glob(pattern) if path.is_file()
    )
    assert files
    counts, wrong = {"answer": 0, "refused": 0}, []
    for case in range(int(first), int(first) + int(number)):
        (folder / "case").write_text(str(case), "utf-8")
        rng = np.random.default_rng([sorted(READERS).index(name), case])
        chosen = files[rng.integers(len(files))]
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(whole, broken)
        path = broken / chosen.relative_to(whole)
        path.write_bytes(damaged(chosen.read_bytes(), reader, rng))
        found = outcome(reader, broken, path)
        if found in counts:
            counts[found] += 1
        else:
            wrong.append((case, path.name, found))
    print(json.dumps({**counts, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
