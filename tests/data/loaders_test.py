import doctest
import gzip
import importlib
import inspect
import os
import pkgutil
import sys
from types import ModuleType

import numpy as np
import pytest

import data
from data import loaders
from data.loaders import FASHION_MNIST_DIR

MODULES = sorted(module.name for module in pkgutil.walk_packages(data.__path__, "data."))
EXPORTED = ("load", "Split", "Splits", "in_memory")


def _bytes(part) -> set[bytes]:
    return set(map(bytes, part.images))


def test_digits():
    splits = data.load("digits")
    assert splits.counts() == {"train": 1248, "holdout": 249, "test": 300}
    assert splits.class_names == tuple("0123456789")
    for part in (splits.train, splits.holdout, splits.test):
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
        assert part.image_shape == (16, 16, 1) and part.images.max() == 255
        assert not part.crop_and_flip
    # No image occurs twice in these 1,797, so that none is in two parts either.
    everything = [_bytes(part) for part in (splits.train, splits.holdout, splits.test)]
    assert len(set.union(*everything)) == 1797


def test_draws_are_stratified_and_the_seed_moves_the_hold_out_but_not_the_test_images():
    one, other = (
        data.load("digits", seed=seed, holdout_examples=200, train_examples=500) for seed in (0, 1)
    )
    for part, size in ((one.holdout, 200), (one.train, 500)):
        assert len(part) == size
        assert np.ptp(np.bincount(part.labels)) <= 3
    assert not _bytes(one.train) & _bytes(one.holdout)
    assert _bytes(one.holdout) != _bytes(other.holdout)
    np.testing.assert_array_equal(one.test.images, other.test.images)


def test_crops_of_a_data_set_that_has_none_can_be_switched_on():
    splits = data.load("digits", crop_and_flip=True)
    assert splits.train.crop_and_flip and not splits.holdout.crop_and_flip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mnist"}, "digits, fashion_mnist, cifar10, .*'mnist'"),
        ({"name": "digits", "image_size": 32}, "image_size=32 for digits"),
        ({"name": "image_folder", "image_size": 0}, "image_size=0 for image_folder"),
        ({"name": "digits", "holdout_examples": 9}, "hold-out .* 9"),
        ({"name": "digits", "holdout_examples": 1490}, "hold-out .* 1490"),
        ({"name": "digits", "train_examples": 1245}, "training .* 1245"),
    ],
)
def test_what_cannot_be_loaded_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.load(**options)


def _write_idx(folder, *, train=60, test=20):
    """Files of the format of Fashion-MNIST; image i is full of i, its class is i % 10."""
    for prefix, count in (("train", train), ("t10k", test)):
        images = np.arange(count, dtype=np.uint8).repeat(28 * 28)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, header, content in (
            ("images-idx3", 16, images),
            ("labels-idx1", 8, labels),
        ):
            with gzip.open(folder / f"{prefix}-{kind}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + content.tobytes())


def test_fashion_mnist(tmp_path):
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


def test_files_of_fashion_mnist_are_checked(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images.*is missing.*dataset-fashion-mnist"):
        data.load("fashion_mnist", data_dir=str(tmp_path))
    _write_idx(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    with gzip.open(labels, "wb") as file:
        file.write(bytes(8 + 19))
    with pytest.raises(ValueError, match="t10k files .* do not fit each other: 19 labels"):
        data.load("fashion_mnist", data_dir=str(tmp_path))
    labels.write_bytes(labels.read_bytes()[:-9])
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte.gz is damaged .*; get it again"):
        data.load("fashion_mnist", data_dir=str(tmp_path))


@pytest.mark.skipif(not os.path.isdir(FASHION_MNIST_DIR), reason="dataset-fashion-mnist is absent")
def test_the_real_fashion_mnist():
    splits = data.load("fashion_mnist")
    assert splits.counts() == {"train": 55_000, "holdout": 5_000, "test": 10_000}
    assert np.bincount(splits.holdout.labels).tolist() == [500] * 10
    assert splits.class_names[splits.test.labels[0]] == "ankle boot"


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_all_that_is_exported_has_an_example():
    exported = {name for name, value in vars(data).items() if not isinstance(value, ModuleType)}
    assert {name for name in exported if name[0] != "_"} == {*EXPORTED, "DATASETS", "RESIZED"}
    for name in EXPORTED:
        assert getattr(data, name).__module__ in MODULES
        assert "\nExample:\n    >>> " in inspect.getdoc(getattr(data, name)), name
    assert ">>> list(DATASETS)" in loaders.__doc__


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
