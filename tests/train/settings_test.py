import itertools
import sys

import pytest

from train.settings import AUGMENTATIONS, LABELS, Settings, check_combination

ALLOWED = {
    ("none", "one_hot"),
    ("none", "label_smoothing"),
    ("augmix", "one_hot"),
    ("augmix", "label_smoothing"),
    ("augmix", "autolabel"),
    ("randaugment", "one_hot"),
    ("randaugment", "label_smoothing"),
    ("randaugment", "autolabel"),
    ("mixup", "mixup"),
    ("mixup", "autolabel"),
    ("pgd", "one_hot"),
    ("pgd", "label_smoothing"),
    ("pgd", "ccat"),
    ("pgd", "autolabel"),
}


@pytest.mark.parametrize(("augmentation", "labels"), itertools.product(AUGMENTATIONS, LABELS))
def test_combinations_that_make_sense(augmentation, labels):
    settings = Settings(augmentation=augmentation, labels=labels)
    if (augmentation, labels) in ALLOWED:
        check_combination(settings)
    else:
        names = f"--augmentation={augmentation} does not go with --labels={labels}: "
        with pytest.raises(ValueError, match=names):
            check_combination(settings)


@pytest.mark.parametrize(
    ("augmentation", "labels", "reason"),
    [
        ("none", "autolabel", "moves nothing"),
        ("augmix", "mixup", "a mixture of two images"),
        ("mixup", "ccat", "the size of their perturbation"),
        ("mixup", "one_hot", "--labels=mixup is ordinary mixup"),
        ("mixup", "label_smoothing", "ignore the second class"),
    ],
)
def test_refusal_gives_the_reason(augmentation, labels, reason):
    with pytest.raises(ValueError, match=reason):
        check_combination(Settings(augmentation=augmentation, labels=labels))


def test_unknown_data_set_names_the_known_ones():
    with pytest.raises(ValueError, match="digits, fashion_mnist"):
        check_combination(Settings(dataset="mnist"))


def test_published_schedule_has_its_own_learning_rate():
    check_combination(Settings(schedule="cifar"))
    check_combination(Settings(learning_rate=0.3))
    with pytest.raises(ValueError, match="leave out --learning_rate"):
        check_combination(Settings(schedule="cifar", learning_rate=0.3))


def test_run_name_tells_methods_and_seeds_apart():
    settings = Settings(dataset="fashion_mnist", augmentation="mixup", labels="mixup", seed=3)
    assert settings.run_name() == "fashion_mnist-mixup-mixup-seed3"
    assert Settings().run_name() == "digits-augmix-autolabel-seed0"


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
