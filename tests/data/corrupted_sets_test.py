"""Tests of generating corrupted sets, of the command line, and of the readers."""

import gc
import io
import json
import pathlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from data import corrupt as command
from data.corrupted_sets import (
    choose_examples,
    generate_corrupted,
    open_corrupted,
    read_corrupted,
    read_image,
    read_imagenet_c,
)
from data.corruptions import corrupt, weather
from data.corruptions import generation as generation_module
from data.loaders import load

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 1], np.int32)
ROOT = pathlib.Path(command.__file__).parents[1]


def generate(folder, images=IMAGES, labels=LABELS, **changed):
    arguments = {"corruptions": "fog,glass_blur", "severities": (1, 4), "examples": 6, "seed": 3}
    return generate_corrupted(images, labels, folder, dataset="toy", **{**arguments, **changed})


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def publish(folder, images=3, names=("fog", "brightness")):
    """A folder as CIFAR-10-C is published: the value of a pixel tells severity and image."""
    folder.mkdir(exist_ok=True)
    values = np.add.outer(10 * np.arange(1, 6), np.arange(images)).astype(np.uint8)
    for number, name in enumerate(names):
        blocks = np.broadcast_to(
            values.reshape(-1, 1, 1, 1) + 100 * number, (5 * images, 32, 32, 3)
        )
        np.save(folder / f"{name}.npy", blocks)
    np.save(folder / "labels.npy", np.tile(np.arange(images, dtype=np.uint8), 5))
    return folder


def test_chooses_the_first_of_each_class():
    np.testing.assert_array_equal(choose_examples(LABELS, 6), [0, 1, 6, 7, 8, 9])
    np.testing.assert_array_equal(choose_examples(LABELS, 7), [0, 1, 2, 6, 7, 8, 9])
    np.testing.assert_array_equal(choose_examples(LABELS), np.arange(12))
    # Classes run out: the larger ones fill up.
    np.testing.assert_array_equal(choose_examples(LABELS, 11), np.delete(np.arange(12), 5))


def test_generated_set_has_the_published_layout_and_reads_back(tmp_path):
    manifest = generate(tmp_path)
    chosen = [0, 1, 6, 7, 8, 9]
    files = ["fog.npy", "glass_blur.npy", "labels.npy", "manifest.json"]
    assert sorted(contents(tmp_path)) == files
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), np.tile(LABELS[chosen], 2))
    parts = list(read_corrupted(tmp_path, corruptions="fog,glass_blur"))
    order = [(name, severity) for name in ("fog", "glass_blur") for severity in (1, 4)]
    assert [(part.corruption, part.severity) for part in parts] == order
    for name, severity, images, labels in parts:
        expected = corrupt(IMAGES[chosen], name, severity=severity, seed=3, indices=chosen)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, LABELS[chosen])
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert "numpy" in manifest["corruptions"]["fog"]
    found = open_corrupted(tmp_path)
    assert found.generated and found.name == manifest["name"] == "toy + corruptions (generated)"
    assert found.dataset == "toy" and found.seed == 3
    assert found.corruptions == ("glass_blur", "fog") and found.severities == (1, 4)
    with pytest.raises(ValueError, match=r"\[1, 4\].*\[2\]"):
        read_corrupted(tmp_path, severities=[2])


def test_spawned_processes_and_portions_write_the_same_bytes(tmp_path, monkeypatch):
    generate(tmp_path / "one", examples=None)
    monkeypatch.setattr(generation_module, "_PORTION", 5)
    generate(tmp_path / "many", examples=None, processes=2)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_an_interrupted_set_is_finished(tmp_path, monkeypatch):
    generate(tmp_path / "whole")
    real = generation_module.corrupt

    def stops_at_fog(images, name, **options):
        if name == "fog" and options["severity"] == 4:
            raise KeyboardInterrupt
        return real(images, name, **options)

    monkeypatch.setattr(generation_module, "corrupt", stops_at_fog)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "cut", corruptions="glass_blur,fog")
    assert sorted(contents(tmp_path / "cut")) == ["glass_blur.npy", "labels.npy", "manifest.json"]
    with pytest.raises(ValueError, match="cut is not finished: fog missing"):
        read_corrupted(tmp_path / "cut")
    # What a killed run leaves behind.
    (tmp_path / "cut" / ".fog.npy.partial").write_bytes(b"half")
    kept = (tmp_path / "cut" / "glass_blur.npy").stat().st_ino
    monkeypatch.setattr(generation_module, "corrupt", real)
    generate(tmp_path / "cut")
    assert (tmp_path / "cut" / "glass_blur.npy").stat().st_ino == kept
    finished, whole = contents(tmp_path / "cut"), contents(tmp_path / "whole")
    assert finished.keys() == whole.keys()
    for name in ("fog.npy", "glass_blur.npy", "labels.npy"):
        assert finished[name] == whole[name]


def test_corruptions_may_be_added_and_damage_is_mended(tmp_path):
    generate(tmp_path, corruptions="fog")
    whole = (tmp_path / "fog.npy").read_bytes()
    (tmp_path / "fog.npy").write_bytes(whole[:-1])
    manifest = generate(tmp_path, corruptions="contrast")
    assert (tmp_path / "fog.npy").read_bytes() == whole
    assert set(manifest["corruptions"]) == {"fog", "contrast"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 4}, "seed: there 3, asked 4"),
        ({"severities": (1, 5)}, r"severities: there \[1, 4\], asked \[1, 5\]"),
        ({"examples": 7}, "examples: there 6, asked 7"),
        ({"images": IMAGES[::-1]}, "examples_sha256: there"),
    ],
)
def test_another_request_is_refused(tmp_path, changed, message):
    generate(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, **changed)
    assert contents(tmp_path) == before


def test_a_published_folder_is_never_written_to(tmp_path):
    before = contents(publish(tmp_path))
    with pytest.raises(ValueError, match="looks like a published set"):
        generate(tmp_path)
    assert contents(tmp_path) == before


def test_what_is_skipped_is_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(weather.importlib.util, "find_spec", lambda name: None)
    manifest = generate(tmp_path, IMAGES[..., :1], corruptions="frost,saturate,fog")
    assert set(manifest["skipped"]) == {"frost", "saturate"}
    assert "pip install" in manifest["skipped"]["frost"]
    assert open_corrupted(tmp_path).skipped == manifest["skipped"]
    with pytest.raises(FileNotFoundError, match="no saturate.npy: grey images have no saturation"):
        read_corrupted(tmp_path, corruptions="saturate")
    with pytest.raises(ValueError, match="all is skipped .*frost: .*saturate: "):
        generate(tmp_path / "b", IMAGES[..., :1], corruptions="frost,saturate")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corruptions": "rain"}, "'rain'"),
        ({"severities": (1, 1)}, r"\[1, 1\]"),
        ({"severities": ()}, r"\[\]"),
        ({"processes": 0}, "processes=0"),
        ({"seed": -2}, "seed=-2"),
        *(({"examples": examples}, f"1 to 12.*examples={examples}") for examples in (0, -1, 13)),
        ({"labels": LABELS[:-1]}, r"shape \[11\]"),
        ({"labels": LABELS.astype(float)}, "float64"),
        ({"labels": LABELS - 1}, "at least 0"),
    ],
)
def test_refuses_bad_requests_before_writing(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "new", **changed)
    assert not (tmp_path / "new").exists()


def test_published_set_reads_back(tmp_path):
    folder = publish(tmp_path / "CIFAR-10-C")
    found = open_corrupted(folder)
    assert not found.generated and found.name == "CIFAR-10-C (published)"
    assert found.dataset is None and found.seed is None
    assert found.corruptions == ("fog", "brightness") and found.severities == (1, 2, 3, 4, 5)
    parts = list(read_corrupted(folder, severities=(5, 2)))
    names = [(part.corruption, part.severity) for part in parts]
    assert names == [("fog", 2), ("fog", 5), ("brightness", 2), ("brightness", 5)]
    assert parts[3].images[:, 0, 0, 0].tolist() == [150, 151, 152]
    assert parts[3].labels.tolist() == [0, 1, 2] and parts[3].labels.dtype == np.int32
    assert isinstance(parts[0].images, np.memmap) and parts[0].images.shape == (3, 32, 32, 3)


def test_reading_does_not_fill_the_memory(tmp_path):
    folder = publish(tmp_path, images=100)
    tracemalloc.start()
    for part in read_corrupted(folder, severities=(1, 5)):
        int(part.images[-1].max())
        gc.collect()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Each of the two files holds 1.5 MB.
    assert peak < 300_000


def _archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=np.zeros(3))
    return stream.getvalue()


def _array(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


DAMAGES = {
    "truncated": lambda whole: whole[:-100],
    "empty": lambda whole: b"",
    "no array": lambda whole: b"not an array at all",
    # Of a text that is cut short Python's tokenizer says so in an exception of its own.
    "header": lambda whole: whole.replace(b"{'descr'", b"((((((((", 1),
    "archive header": lambda whole: b"PK\x03\x04" + bytes(200),
    "pickled": lambda whole: _array(np.array([{"a": 1}], dtype=object)),
    "archive": lambda whole: _archive(),
    "float": lambda whole: _array(np.zeros((15, 32, 32, 3), np.float32)),
    "flat": lambda whole: _array(np.zeros((15, 3072), np.uint8)),
    "short": lambda whole: _array(np.zeros((14, 32, 32, 3), np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_arrays_are_named(tmp_path, damage):
    file = publish(tmp_path) / "fog.npy"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(ValueError, match=r"fog\.npy"):
        list(read_corrupted(tmp_path))
    # The other file is sound.
    assert len(list(read_corrupted(tmp_path, corruptions="brightness"))) == 5


@pytest.mark.parametrize(
    "labels",
    [
        *(np.zeros(15), np.zeros((5, 3), int), np.zeros(0, int), np.zeros(14, int)),
        *(np.arange(15), np.full(15, -1), np.array([None] * 15)),
    ],
)
def test_unsound_labels_are_named(tmp_path, labels):
    np.save(publish(tmp_path) / "labels.npy", labels, allow_pickle=True)
    with pytest.raises(ValueError, match=r"labels\.npy "):
        read_corrupted(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_corrupted(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no <corruption>.npy"):
        open_corrupted(tmp_path)
    folder = publish(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no snow\.npy: it is not in the folder"):
        read_corrupted(folder, corruptions="snow")
    with pytest.raises(ValueError, match="Received: 'rain'"):
        read_corrupted(folder, corruptions=["rain"])
    with pytest.raises(ValueError, match=r"Received: \[7\]"):
        read_corrupted(folder, severities=[7])
    (folder / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels\.npy"):
        open_corrupted(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"generated": false}', '{"generated": true}'])
def test_bad_manifests_are_named(tmp_path, text):
    publish(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        open_corrupted(tmp_path)


@pytest.fixture
def tree(tmp_path):
    """Two severities of fog, two classes of one and two images."""
    for severity in (1, 2):
        for class_id, count in (("n02", 2), ("n01", 1)):
            folder = tmp_path / "fog" / str(severity) / class_id
            folder.mkdir(parents=True)
            for number in range(count):
                plain = np.full((20, 24, 3), 10 * severity + number, np.uint8)
                Image.fromarray(plain).save(folder / f"{class_id}_{number}.JPEG", quality=95)
    return tmp_path


def test_image_tree_reads_back(tree):
    parts = list(read_imagenet_c(tree, corruptions="fog", severities=(2, 1)))
    assert [(part.corruption, part.severity) for part in parts] == [("fog", 1), ("fog", 2)]
    assert [file.name for file in parts[1].files] == ["n01_0.JPEG", "n02_0.JPEG", "n02_1.JPEG"]
    assert parts[1].labels.tolist() == [0, 1, 1] and parts[1].labels.dtype == np.int32
    image = read_image(parts[1].files[2])
    assert image.shape == (20, 24, 3) and image.dtype == np.uint8
    assert abs(int(image[0, 0, 0]) - 21) <= 1
    reverse = read_imagenet_c(tree, corruptions="fog", severities=[1], class_ids=["n02", "n01"])
    assert next(reverse).labels.tolist() == [0, 0, 1]


def test_image_tree_names_what_is_wrong(tree):
    (bad,) = (tree / "fog" / "1" / "n01").iterdir()
    bad.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="n01_0.JPEG cannot be read as an image"):
        read_image(bad)
    with pytest.raises(FileNotFoundError, match="snow"):
        read_imagenet_c(tree, corruptions="fog,snow", severities=[1])
    (tree / "fog" / "2" / "n03").mkdir()
    parts = read_imagenet_c(tree, corruptions="fog", severities=[1, 2])
    assert next(parts).severity == 1
    message = "2 must have a folder for each of the 2 classes.*: n03 of no class; none missing"
    with pytest.raises(ValueError, match=message):
        next(parts)
    parts = read_imagenet_c(
        tree, corruptions="fog", severities=[1], class_ids=["n02", "cat", "dog", "emu", "fly"]
    )
    with pytest.raises(ValueError, match="n01 of no class; cat, dog, emu, ... missing"):
        next(parts)
    parts = read_imagenet_c(tree, corruptions="fog", severities=[2])
    with pytest.raises(ValueError, match="n03 holds no images"):
        next(parts)


def run(*arguments):
    command.main([f"--{argument}" for argument in arguments])


def test_command_writes_the_digits(tmp_path, capsys):
    folder = tmp_path / "digits-c"
    asked = ["corruptions=saturate,contrast", "examples=20", "severities=2,5", "seed=1"]
    run("dataset=digits", f"output_dir={folder}", "processes=1", *asked)
    output = capsys.readouterr()
    assert output.out.startswith("digits + corruptions (generated): 1 corruptions of 20 images")
    assert "skipped saturate: grey images" in output.err
    test = load("digits").test
    chosen = choose_examples(test.labels, 20)
    assert np.bincount(test.labels[chosen]).tolist() == [2] * 10
    (strong,) = read_corrupted(folder, severities=[5])
    expected = corrupt(test.images[chosen], "contrast", severity=5, seed=1)
    np.testing.assert_array_equal(strong.images, expected)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("dataset=mnist1d", "mnist1d"),
        ("dataset=image_folder", "--image_size is missing"),
        ("data_dir=/nowhere", "data_dir=/nowhere"),
        ("corruptions=rain", "'rain'"),
        ("severities=1,six", "'1,six'"),
        ("severities=9", "[9]"),
        ("examples=100000", "examples=100000"),
        ("examples=ten", "'ten'"),
        ("processes=0", "processes=0"),
        ("colour=red", "--colour=red"),
        ("output_dir=/dev/null/x", "/dev/null"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(tmp_path, capsys, argument, message):
    arguments = {"dataset": "digits", "output_dir": str(tmp_path / "new"), "processes": "1"}
    name, value = argument.split("=")
    arguments[name] = value
    with pytest.raises(SystemExit) as stop:
        run(*(f"{key}={value}" for key, value in arguments.items()))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m data.corrupt: error: ") and error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "new").exists()


def test_command_runs_as_a_module(tmp_path):
    asked = ["--corruptions=contrast", "--severities=1", "--examples=10", "--processes=2"]
    command_line = ["-m", "data.corrupt", "--dataset=digits", f"--output_dir={tmp_path}", *asked]
    ran = subprocess.run(
        [sys.executable, *command_line], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert open_corrupted(tmp_path).examples == 10
