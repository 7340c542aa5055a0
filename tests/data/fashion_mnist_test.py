import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
from PIL import Image
from tensorflow import keras

import data
from data import fashion_mnist, make_fashion_mnist_small
from data.fashion_mnist import PUBLISHED, SMALL_FILE
from data.options import Options

# What the README of the published files says of each, and when it was packed.
MD5 = {
    "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 1504176606),
    "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", 1504176606),
    "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", 1504176627),
    "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", 1504176627),
}
SMALL_SHA256 = "89a5460ae4c4630580661c3901ba97307fd889119577badf3b3600d5aa05626b"


@pytest.fixture(scope="module")
def published() -> str:
    """The folder of the published files, where there is one."""
    try:
        return fashion_mnist.find_folder(Options())
    except FileNotFoundError:
        pytest.skip("Fashion-MNIST is absent")


def _write_idx(folder, *, train=60, test=20):
    """Files of the format of Fashion-MNIST; image i is full of i, its class is i % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        images = np.arange(count).astype(np.uint8).repeat(28 * 28)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, header, content in (
            ("images-idx3", 16, images),
            ("labels-idx1", 8, labels),
        ):
            with gzip.open(folder / f"{prefix}-{kind}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + content.tobytes())


def test_the_parts_of_files(tmp_path):
    _write_idx(tmp_path)
    splits = data.load("fashion_mnist", data_dir=str(tmp_path))
    assert splits.counts() == {"train": 50, "holdout": 10, "test": 20}
    assert splits.train.image_shape == (28, 28, 1)
    assert splits.source == f"Fashion-MNIST from {tmp_path}"
    for part in (splits.train, splits.holdout, splits.test):
        np.testing.assert_array_equal(part.images[:, 5, 5, 0] % 10, part.labels)
    np.testing.assert_array_equal(splits.test.images[:, 0, 0, 0], np.arange(20))


@pytest.mark.parametrize(
    ("last", "count", "message"),
    [(46, 20, "20 labels, up to 46"), (10, 20, "20 labels, up to 10"), (0, 0, "0 labels, up to 0")],
)
def test_other_files_of_the_same_format_are_refused(tmp_path, last, count, message):
    _write_idx(tmp_path, test=count)
    labels = np.zeros(count, np.uint8)
    labels[count - 1 :] = last
    with gzip.open(tmp_path / "t10k-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes(8) + labels.tobytes())
    with pytest.raises(ValueError, match=f"t10k files .* not those of Fashion-MNIST.*{message}"):
        data.load("fashion_mnist", data_dir=str(tmp_path))


def test_files_are_checked(tmp_path):
    _write_idx(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    with gzip.open(labels, "wb") as file:
        file.write(bytes(8 + 19))
    with pytest.raises(ValueError, match="t10k files .* do not fit each other: 19 labels"):
        data.load("fashion_mnist", data_dir=str(tmp_path))
    whole = labels.read_bytes()
    header = whole.index(b"\x00", 10) + 1
    for damaged in (whole[:-9], whole[:header] + b"\xff" * 9, b"not packed"):
        labels.write_bytes(damaged)
        with pytest.raises(ValueError, match="t10k-labels-.*gz is damaged .*; get it again"):
            data.load("fashion_mnist", data_dir=str(tmp_path))


@pytest.fixture
def places(tmp_path, monkeypatch) -> dict:
    """Debian's folder and the caches of both Kerases, all still empty; what Keras was asked for."""
    places = {"debian": tmp_path / "debian"}
    for name, variable in (("keras_home", "KERAS_HOME"), ("home", "HOME")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    cache = ("datasets", "fashion-mnist")
    places["keras_home"] = tmp_path.joinpath("keras_home", *cache)
    places["home"] = tmp_path.joinpath("home", ".keras", *cache)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_DIR", str(places["debian"]))
    return places


def _fetching(monkeypatch, fetch):
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", fetch)


def test_the_first_of_the_usual_folders_that_has_all_files_is_read(places, monkeypatch):
    def not_now():
        raise AssertionError("nothing is missing")

    _fetching(monkeypatch, not_now)
    for name in ("home", "keras_home", "debian"):
        _write_idx(places[name])
        splits = data.load("fashion_mnist", download=True)
        assert splits.source == f"Fashion-MNIST from {places[name]}"
    (places["debian"] / "t10k-labels-idx1-ubyte.gz").unlink()
    assert data.load("fashion_mnist").source.endswith(str(places["keras_home"]))


@pytest.mark.parametrize("cache", ["home", "keras_home"])
def test_keras_fetches_what_is_missing_where_that_is_asked_for(places, monkeypatch, cache):
    _fetching(monkeypatch, lambda: _write_idx(places[cache]))
    with pytest.raises(FileNotFoundError):
        data.load("fashion_mnist")
    assert data.load("fashion_mnist", download=True).source.endswith(str(places[cache]))


def test_what_is_missing_is_named_with_all_ways_to_get_it(places, tmp_path, monkeypatch):
    _write_idx(places["home"])
    (places["home"] / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as raised:
        data.load("fashion_mnist")
    message = str(raised.value)
    assert f"{places['debian'] / PUBLISHED[0]} and {places['keras_home'] / PUBLISHED[0]} and " in (
        message
    )
    assert f"{places['home'] / 't10k-images-idx3-ubyte.gz'} are missing." in message
    for way in ("--download", "apt-get install dataset-fashion-mnist", "--data_dir", "_small"):
        assert way in message
    # Keras fetches into no other folder than its own.
    _fetching(monkeypatch, lambda: _write_idx(places["home"]))
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/{PUBLISHED[0]} is missing"):
        data.load("fashion_mnist", data_dir=str(tmp_path), download=True)
    assert not (places["home"] / "t10k-images-idx3-ubyte.gz").exists()


def test_a_download_that_fails_is_one_line(places, monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://x: None -- unreachable\nTraceback")

    _fetching(monkeypatch, fail)
    with pytest.raises(
        OSError, match="could not be fetched: URL .* unreachable. .*--data_dir"
    ) as e:
        data.load("fashion_mnist", download=True)
    assert "\n" not in str(e.value)


def test_the_real_files(published):
    splits = data.load("fashion_mnist")
    assert splits.counts() == {"train": 55_000, "holdout": 5_000, "test": 10_000}
    assert np.bincount(splits.holdout.labels).tolist() == [500] * 10
    assert splits.class_names[splits.test.labels[0]] == "ankle boot"


def test_the_hashes_are_those_of_the_published_files(published):
    make_fashion_mnist_small.check_files(published)
    for name, (md5, packed_at) in MD5.items():
        with open(os.path.join(published, name), "rb") as file:
            content = file.read()
        # Debian's lack the name and the date that stand in the published ones' headers.
        packed = content[content.index(b"\0", 10) + 1 :] if content[3] == 8 else content[10:]
        header = b"\x1f\x8b\x08\x08" + struct.pack("<I", packed_at) + b"\0\3"
        whole = header + name.removesuffix(".gz").encode() + b"\0" + packed
        assert hashlib.md5(whole).hexdigest() == md5, name


def test_the_part_that_comes_along():
    with open(SMALL_FILE, "rb") as file:
        content = file.read()
    assert hashlib.sha256(content).hexdigest() == SMALL_SHA256
    assert len(content) < 4 * 2**20
    splits = data.load("fashion_mnist_small")
    assert splits.counts() == {"train": 3000, "holdout": 1000, "test": 2000}
    assert splits.class_names[9] == "ankle boot" and splits.train.image_shape == (28, 28, 1)
    parts = (splits.train, splits.holdout, splits.test)
    for part in parts:
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
        assert np.ptp(np.bincount(part.labels)) == 0
    # No image occurs twice, so that none is in two parts either.
    assert len({bytes(image) for part in parts for image in part.images}) == 6000
    asked = data.load("fashion_mnist_small", seed=1, train_examples=500, holdout_examples=200)
    assert asked.counts() == {"train": 500, "holdout": 200, "test": 2000}


def test_it_is_the_first_published_images_of_each_class(published):
    ours = fashion_mnist.load_fashion_mnist_small(Options())
    whole = fashion_mnist.load_fashion_mnist(Options(published))
    for part, theirs, per_class in ((ours.train, whole.train, 400), (ours.test, whole.test, 200)):
        assert np.bincount(part.labels).tolist() == [per_class] * 10
        for number in range(10):
            found = [_hash(image) for image in part.images[part.labels == number]]
            rows = np.flatnonzero(theirs.labels == number)[:per_class]
            assert found == [_hash(image) for image in theirs.images[rows]]


def _hash(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def test_made_again_it_is_the_same(published, tmp_path):
    """Its pixels are; its bytes where nothing but the run differs, as zlibs pack differently."""
    made = [tmp_path / "first.png", tmp_path / "second.png"]
    for path in made:
        arguments = [f"--data_dir={published}", f"--output={path}"]
        make_fashion_mnist_small.main(arguments)
    assert made[0].read_bytes() == made[1].read_bytes()
    with Image.open(made[0]) as again, Image.open(SMALL_FILE) as ours:
        np.testing.assert_array_equal(np.asarray(again), np.asarray(ours))


def test_it_is_made_of_the_published_files_alone(tmp_path, monkeypatch, capsys):
    """Made-up files: image i of each part is full of i, i < 4,100 modulo 256, of class i % 10."""
    _write_idx(tmp_path, train=4100, test=2100)
    output = tmp_path / "small.png"
    arguments = [f"--data_dir={tmp_path}", f"--output={output}"]
    with pytest.raises(SystemExit):
        make_fashion_mnist_small.main(arguments)
    error = capsys.readouterr().err
    assert f"{tmp_path / PUBLISHED[0]} is not the published file" in error
    assert error.count("\n") == 1 and not output.exists()
    hashes = {
        name: hashlib.sha256(gzip.decompress((tmp_path / name).read_bytes())).hexdigest()
        for name in PUBLISHED
    }
    monkeypatch.setattr(make_fashion_mnist_small, "SHA256", hashes)
    make_fashion_mnist_small.main(arguments)
    monkeypatch.setattr(fashion_mnist, "SMALL_FILE", str(output))
    splits = data.load("fashion_mnist_small", crop_and_flip=True)
    assert splits.train.crop_and_flip and not splits.holdout.crop_and_flip
    np.testing.assert_array_equal(splits.test.images[:, 3, 4, 0], np.arange(2000) % 256)
    np.testing.assert_array_equal(splits.test.labels, np.arange(2000) % 10)
    with Image.open(output) as picture:
        assert picture.size == (2800, 1680) and picture.mode == "L"
        # The last training image, and the first of the test part below it.
        assert picture.getpixel((2799, 1119)) == 3999 % 256 and picture.getpixel((0, 1120)) == 0
