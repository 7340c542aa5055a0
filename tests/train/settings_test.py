import itertools

import pytest
from absl import flags

from tests.train.conftest import RECIPES, from_flags
from train import builders
from train.choices import AUGMENTATIONS, LABELS
from train.settings import FIELDS, Settings, check_read

ALLOWED = {
    ("none", "one_hot"),
    ("none", "label_smoothing"),
    ("mixup", "mixup"),
    ("cutmix", "mixup"),
    ("pgd", "ccat"),
    *itertools.product(AUGMENTATIONS.keys() - {"none"}, ("autolabel",)),
    *itertools.product(
        AUGMENTATIONS.keys() - {"none", "mixup", "cutmix"}, ("one_hot", "label_smoothing", "power")
    ),
}


@pytest.mark.parametrize(("augmentation", "labels"), itertools.product(AUGMENTATIONS, LABELS))
def test_combinations_that_make_sense(augmentation, labels):
    settings = Settings(augmentation=augmentation, labels=labels)
    if (augmentation, labels) in ALLOWED:
        builders.check(settings)
    else:
        # Both flags, and a reason behind them.
        names = f"--augmentation={augmentation} .* --labels={labels}: [^:]{{10}}"
        with pytest.raises(ValueError, match=names):
            builders.check(settings)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (Settings(step_size=float("nan")), ["--step_size=nan"]),
        (Settings(augmentation="mixup", beta=float("inf")), ["--beta=inf"]),
        (Settings(augmentation="mixup", beta=-1.0), ["beta=-1.0"]),
        (Settings(augmentation="pgd", epsilon=8.0), ["8/255", "epsilon=8.0"]),
        (Settings(augmentation="pgd", relative_step_size=0.0), ["relative_step_size=0.0"]),
        (Settings(augmentation="mixup", batch_size=1), ["--augmentation=mixup", "--batch_size=1"]),
        (Settings(train_examples=64, batch_size=65), ["--batch_size=65", "64"]),
        (Settings(schedule="cifar", epochs=2), ["--schedule=cifar", "--epochs=2"]),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_data_is_read(settings, values):
    with pytest.raises(ValueError) as raised:
        builders.check(settings)
    assert all(value in str(raised.value) for value in values)


def test_flags_are_those_of_the_declaration():
    assert from_flags() == (Settings(), [])
    # Of one kind each: a number, a switch, a name, one that has no default.
    arguments = ["--beta=0.5", "--norandom_start", "--labels=one_hot", "--image_size=64"]
    settings, given = from_flags(*arguments)
    assert settings == Settings(beta=0.5, random_start=False, labels="one_hot", image_size=64)
    assert sorted(given) == ["beta", "image_size", "labels", "random_start"]
    for mistake in ("--beta=much", "--severity=11", "--labels=hard", "--epochs=0"):
        with pytest.raises(flags.IllegalFlagValueError, match=mistake.split("=")[1]):
            from_flags(mistake)


@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name].metadata["choice"]])
def test_a_setting_that_nothing_would_read_is_refused_by_name(name):
    choice, names = FIELDS[name].metadata["choice"], FIELDS[name].metadata["names"]
    known = FIELDS[choice].metadata["options"]["enum_values"]
    assert set(names) < set(known)
    for chosen in known:
        settings = Settings(**{choice: chosen})
        if chosen in names:
            check_read(settings, [name])
        else:
            with pytest.raises(ValueError, match=f"--{name} .*--{choice}={chosen}.*{names[0]}"):
                check_read(settings, [name])
        # What was not given may be anything.
        check_read(settings, [])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_makes_sense(recipe):
    settings, given = from_flags(f"--flagfile={recipe}")
    builders.check(settings)
    check_read(settings, given)
