import sys

import pytest

from train.builders import load_data
from train.past_run import settings_beside, shared_settings
from train.settings import Settings


@pytest.mark.parametrize("text", ["{", "[]", '{"theme": "dark"}', '{"dataset": "digits"}'])
def test_settings_of_other_programs_are_none(tmp_path, text):
    (tmp_path / "settings.json").write_text(text, "utf-8")
    assert settings_beside(str(tmp_path)) is None
    assert settings_beside(str(tmp_path / "model.keras")) is None


def test_data_are_split_as_they_were_for_the_run():
    run = Settings(seed=3, train_examples=200, holdout_examples=50)
    splits = load_data(run)
    assert splits.counts() == {"train": 200, "holdout": 50, "test": 300}
    other = load_data(Settings(seed=4, train_examples=200, holdout_examples=50))
    assert (splits.holdout.images != other.holdout.images).any()


def test_images_are_prepared_as_for_the_run():
    run = Settings(
        dataset="image_folder",
        data_dir="flowers",
        image_size=64,
        crop_and_flip=True,
        skip_unreadable=True,
        holdout_examples=9,
    )
    assert shared_settings("image_folder", [run, run], {}) == run
    assert shared_settings("image_folder", [run], {"image_size": 32}).image_size == 32
    assert shared_settings("digits", [], {}) == Settings(dataset="digits")


@pytest.mark.parametrize(
    ("name", "values"),
    [("image_size", (64, 32)), ("crop_and_flip", (True, None)), ("skip_unreadable", (True, False))],
)
def test_runs_whose_images_differ_are_refused_until_one_way_is_chosen(name, values):
    runs = [Settings(dataset="image_folder", **{name: value}) for value in values]
    message = f"with {name} {values[0]} and {values[1]}; choose with --{name}"
    with pytest.raises(ValueError, match=message):
        shared_settings("image_folder", runs, {})
    chosen = shared_settings("image_folder", runs, {name: values[1]})
    assert getattr(chosen, name) == values[1]


def test_crops_in_training_do_not_keep_runs_on_images_of_one_size_apart():
    runs = [Settings(dataset="cifar10", crop_and_flip=crops) for crops in (True, False)]
    assert shared_settings("cifar10", runs, {}) == runs[0]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
