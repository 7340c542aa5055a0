import itertools
import sys

import pytest

from train.builders import check, load_data
from train.choices import AUGMENTATIONS, LABELS
from train.settings import FIELDS, Settings, check_read

ALLOWED = {
    "none": {"one_hot", "label_smoothing"},
    "augmix": {"one_hot", "label_smoothing", "power", "autolabel"},
    "randaugment": {"one_hot", "label_smoothing", "power", "autolabel"},
    "mixup": {"mixup", "autolabel"},
    "cutmix": {"mixup", "autolabel"},
    "soft_crop": {"one_hot", "label_smoothing", "power", "autolabel"},
    "pgd": {"one_hot", "label_smoothing", "power", "ccat", "autolabel"},
}


@pytest.mark.parametrize(("augmentation", "labels"), itertools.product(AUGMENTATIONS, LABELS))
def test_combinations_that_make_sense(augmentation, labels):
    settings = Settings(augmentation=augmentation, labels=labels)
    if labels in ALLOWED[augmentation]:
        check(settings)
    else:
        names = f"--augmentation={augmentation} does not go with --labels={labels}: "
        with pytest.raises(ValueError, match=names):
            check(settings)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"l2": float("nan")}, "--l2=nan"),
        ({"epsilon": 8.0, "augmentation": "pgd"}, "8.0"),
        ({"augmentation": "mixup", "labels": "mixup", "batch_size": 1}, "mixup .*batch_size=1"),
        ({"schedule": "cifar", "epochs": 3}, "--schedule=cifar .*--epochs=3"),
        ({"train_examples": 100, "batch_size": 128}, "batch_size=128 .*100 training"),
    ],
)
def test_what_makes_no_sense_is_refused_before_data_are_read(options, values):
    with pytest.raises(ValueError, match=values):
        check(Settings(**options))


@pytest.mark.parametrize(
    ("given", "options", "choices"),
    [
        ("epsilon", {}, "augmentation=augmix.*pgd"),
        ("beta", {"augmentation": "pgd"}, "augmentation=pgd.*mixup or cutmix"),
        ("learning_rate", {"schedule": "cifar"}, "schedule=cifar.*cosine"),
        ("depth", {}, "network=small.*wide_resnet"),
        ("image_size", {}, "dataset=.*image_folder"),
        ("step_size", {"labels": "one_hot"}, "labels=one_hot.*autolabel"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(given, options, choices):
    with pytest.raises(ValueError, match=f"--{given} has no effect with --{choices}"):
        check_read(Settings(**options), [given])


def test_every_choice_that_a_setting_names_is_there():
    for field in FIELDS.values():
        choice = field.metadata["choice"]
        if choice:
            known = FIELDS[choice].metadata["options"]["enum_values"]
            assert set(field.metadata["names"]) <= set(known), field.name


def test_run_name_tells_methods_and_seeds_apart():
    settings = Settings(dataset="fashion_mnist", augmentation="mixup", labels="mixup", seed=3)
    assert settings.run_name() == "fashion_mnist-mixup-mixup-seed3"
    assert Settings().run_name() != settings.run_name()


def test_data_are_split_as_the_settings_say():
    splits = load_data(Settings(dataset="digits", seed=3, train_examples=200, holdout_examples=50))
    assert splits.counts() == {"train": 200, "holdout": 50, "test": 300}
    other = load_data(Settings(dataset="digits", seed=4, train_examples=200, holdout_examples=50))
    assert (splits.holdout.images != other.holdout.images).any()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
