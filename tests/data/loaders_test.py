import inspect
from types import ModuleType

import numpy as np
import pytest

import data
from data import loaders

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
        ({"name": "mnist"}, "fashion_mnist_small, digits, fashion_mnist, .*'mnist'"),
        ({"name": "digits", "image_size": 32}, "image_size=32 for digits"),
        ({"name": "image_folder", "image_size": 0}, "image_size=0 for image_folder"),
        ({"name": "digits", "data_dir": "/x"}, "digits comes along.*data_dir=/x"),
        ({"name": "fashion_mnist_small", "data_dir": "/x"}, "small comes along.*data_dir=/x"),
        ({"name": "digits", "skip_unreadable": True}, "image_folder.*digits"),
        ({"name": "digits", "holdout_examples": 9}, "hold-out .* 9"),
        ({"name": "digits", "holdout_examples": 1490}, "hold-out .* 1490"),
        ({"name": "digits", "train_examples": 1245}, "training .* 1245"),
    ],
)
def test_what_cannot_be_loaded_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.load(**options)


def test_all_that_is_exported_has_an_example():
    exported = {name for name, value in vars(data).items() if not isinstance(value, ModuleType)}
    assert {name for name in exported if name[0] != "_"} == {*EXPORTED, "DATASETS", "RESIZED"}
    for name in EXPORTED:
        # There tests/doctest_test.py runs it.
        assert getattr(data, name).__module__.startswith("data.")
        assert "\nExample:\n    >>> " in inspect.getdoc(getattr(data, name)), name
    assert ">>> list(DATASETS)" in loaders.__doc__
