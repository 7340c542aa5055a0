import re
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from tensorflow import keras

import data
import keras_autolabel as kal
from tests.data.fake_tfds import write_cifar, write_imagenet
from train import builders, command_line, fit, run_folder, training
from train.image_network import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD
from train.settings import Settings, check_read

FOLDER = Path(fit.__file__).parent / "recipes"

WRN = {
    "network": "wide_resnet",
    "depth": 28,
    "width": 10,
    "l2": 2e-4,
    "schedule": "cifar",
    "batch_size": 512,
    "epochs": 200,
    "crop_and_flip": True,
}
RESNET = {
    "network": "resnet50",
    "l2": 1e-4,
    "schedule": "imagenet",
    "batch_size": 4096,
    "epochs": 90,
    "image_size": 224,
    "crop_and_flip": True,
}
AUTOLABEL = {
    "labels": "autolabel",
    "num_buckets": 5,
    "step_size": 0.1,
    "num_bins": 15,
    "examples_per_bucket": 0,
}
ONE_HOT = {"labels": "one_hot"}
AUGMIX = {"augmentation": "augmix", "max_depth": 3}
CIFAR_AUGMIX = {**AUGMIX, "severity": 3.0, **WRN}
IMAGENET_AUGMIX = {"dataset": "imagenet2012", **AUGMIX, "severity": 1.0, **RESNET}
MIXUP = {"augmentation": "mixup", "beta": 1.0}

# What each file sets; all else stays at its default.
RECIPES = {
    "cifar10_augmix_autolabel": {"dataset": "cifar10", **CIFAR_AUGMIX, **AUTOLABEL},
    "cifar10_augmix_one_hot": {"dataset": "cifar10", **CIFAR_AUGMIX, **ONE_HOT},
    "cifar100_augmix_autolabel": {"dataset": "cifar100", **CIFAR_AUGMIX, **AUTOLABEL},
    "cifar100_augmix_one_hot": {"dataset": "cifar100", **CIFAR_AUGMIX, **ONE_HOT},
    "cifar10_mixup_autolabel": {"dataset": "cifar10", **MIXUP, **AUTOLABEL, **WRN},
    "cifar10_mixup": {"dataset": "cifar10", **MIXUP, "labels": "mixup", **WRN},
    "cifar10_one_hot": {"dataset": "cifar10", "augmentation": "none", **ONE_HOT, **WRN},
    "imagenet_augmix_autolabel": {**IMAGENET_AUGMIX, **AUTOLABEL},
    "imagenet_augmix_one_hot": {**IMAGENET_AUGMIX, **ONE_HOT},
    "laptop": {
        "dataset": "fashion_mnist",
        "train_examples": 10_000,
        **MIXUP,
        **{**AUTOLABEL, "examples_per_bucket": 500},
        "network": "small",
        "l2": 1e-3,
        "schedule": "cosine",
        "learning_rate": 0.1,
        "batch_size": 128,
        "epochs": 20,
    },
}
PUBLISHED = [name for name in RECIPES if name != "laptop"]


def settings_of(recipe: str, *arguments: str) -> Settings:
    """What ``python -m train.fit --flagfile=<recipe> <arguments>`` runs."""
    saved = flagsaver.save_flag_values()
    try:
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["fit", f"--flagfile={FOLDER / recipe}.cfg", *arguments])
        settings, given = command_line.settings_from_flags()
        check_read(settings, given)
        return settings
    finally:
        flagsaver.restore_flag_values(saved)
        flags.FLAGS.mark_as_parsed()


def test_each_file_is_in_the_table():
    assert {path.stem for path in FOLDER.iterdir()} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_file_sets_what_is_published_and_nothing_else(name):
    assert settings_of(name) == Settings(**RECIPES[name])
    builders.check(settings_of(name))
    lines = (FOLDER / f"{name}.cfg").read_text().splitlines()
    given = [line for line in lines if line.startswith("--")]
    assert sorted(line.split("=")[0][2:] for line in given) == sorted(RECIPES[name])
    assert all(not line or line.startswith(("--", "#")) for line in lines)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_header_tells_command_time_and_published_figures(name):
    text = (FOLDER / f"{name}.cfg").read_text()
    assert f"python -m train.fit --flagfile=train/recipes/{name}.cfg\n" in text
    header = " ".join(text.split("\n\n")[0].replace("#", "").split())
    assert "Run time, counted and not measured" in header
    assert re.search(r"Published, not ours: accuracy \d\d\.\d, ECE \d\.\d.*\(the paper\)", header)


# 45,000 images in batches of 512 are 87 steps an epoch; 1,271,167 in batches of 4,096 are 310.
MILESTONES = {
    "cifar": (
        87,
        [(0, 0.0), (1, 0.4 / 87), (86, 0.4 * 86 / 87), (87, 0.4), (60 * 87 - 1, 0.4)]
        + [(60 * 87, 0.08), (120 * 87 - 1, 0.08), (120 * 87, 0.016), (160 * 87 - 1, 0.016)]
        + [(160 * 87, 0.0032), (200 * 87 - 1, 0.0032)],
    ),
    "imagenet": (
        310,
        [(0, 0.0), (1, 1.6 / 1550), (1549, 1.6 * 1549 / 1550), (1550, 1.6), (30 * 310 - 1, 1.6)]
        + [(30 * 310, 0.16), (60 * 310 - 1, 0.16), (60 * 310, 0.016), (80 * 310 - 1, 0.016)]
        + [(80 * 310, 0.0016), (90 * 310 - 1, 0.0016)],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_learning_rate_at_each_milestone(name):
    settings = settings_of(name)
    steps_per_epoch, table = MILESTONES[settings.schedule]
    schedule, config = _schedule_of(builders.build_optimizer(settings, steps_per_epoch))
    assert (config["momentum"], config["nesterov"]) == (0.9, True)
    for step, expected in table:
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6), step


def _schedule_of(optimizer):
    config = optimizer.get_config()
    return keras.optimizers.schedules.deserialize(config["learning_rate"]), config


def test_the_cosine_falls_from_the_rate_of_the_batch_to_zero():
    settings = settings_of("laptop", "--batch_size=256")
    schedule, _ = _schedule_of(builders.build_optimizer(settings, 10))
    for step, expected in [(0, 0.2), (100, 0.1), (200, 0.0)]:
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)


def test_too_few_epochs_for_a_published_schedule_are_refused():
    settings = settings_of("cifar10_one_hot", "--epochs=2")
    with pytest.raises(ValueError, match="--schedule=cifar does not go with --epochs=2"):
        builders.check(settings)


def test_a_rate_beside_a_published_schedule_is_refused():
    with pytest.raises(ValueError, match="--learning_rate has no effect with --schedule=cifar"):
        settings_of("cifar10_one_hot", "--learning_rate=0.2")


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tensorflow_datasets"))
    write_cifar("cifar10", folder, train=60, test=10)
    write_cifar("cifar100", folder, train=400, test=100)
    write_imagenet(folder, train=2000, test=10)
    return folder


# WRN-28-10 and ResNet-50 are trained once, as they are; elsewhere a narrower one will do.
FULL = ("cifar10_augmix_autolabel", "imagenet_augmix_autolabel")
NARROW = ("--depth=10", "--width=1")


@pytest.mark.parametrize("name", PUBLISHED)
def test_one_step(name, tfds_folder):
    few = {"cifar10": 20, "cifar100": 100, "imagenet2012": 1000}[RECIPES[name]["dataset"]]
    arguments = ["--batch_size=2", f"--holdout_examples={few}", f"--data_dir={tfds_folder}"]
    # The hold-out of 1,000 classes would be 150 MB at 224 pixels.
    arguments += ["--image_size=64"] if few == 1000 else [] if name in FULL else NARROW
    settings = settings_of(name, *arguments)
    splits = data.load(
        settings.dataset,
        data_dir=settings.data_dir,
        holdout_examples=settings.holdout_examples,
        crop_and_flip=settings.crop_and_flip,
        image_size=settings.image_size,
    )
    assert splits.train.crop_and_flip
    model = builders.build_model(settings, splits)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if few == 1000 else (CIFAR10_MEAN, CIFAR10_STD)
    (normalise,) = [x for x in model.network.layers if isinstance(x, keras.layers.Normalization)]
    np.testing.assert_allclose(np.ravel(normalise.mean), mean, rtol=1e-6)
    np.testing.assert_allclose(np.ravel(normalise.variance), np.square(std), rtol=1e-6)
    assert isinstance(model.label_policy, kal.LabelTable) == (settings.labels == "autolabel")
    # To trace a graph takes longer than two steps; one recipe stands for all.
    model.run_eagerly = name != "cifar100_augmix_autolabel"
    if name in FULL:
        millions = {"wide_resnet": 36.5, "resnet50": 25.6}[settings.network]
        assert round(model.network.count_params() / 1e6, 1) == millions
    batches = splits.train.training_batches(batch_size=2, seed=settings.seed, epochs=1)
    # The first step of a warm-up has the rate 0; the second one moves the weights.
    before = [np.array(w) for w in model.network.trainable_weights[:3]]
    history = model.fit(batches.take(2), epochs=1, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = [np.array(w) for w in model.network.trainable_weights[:3]]
    assert any(np.any(one != other) for one, other in zip(before, after, strict=True))


def test_a_run_on_a_folder_of_images(tmp_path):
    for number in range(90):
        path = tmp_path / "images" / ("left", "right")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3)).astype(np.uint8)
        Image.fromarray(noise).save(path)
    settings = settings_of(
        "laptop",
        *("--dataset=image_folder", f"--data_dir={tmp_path / 'images'}", "--image_size=16"),
        *("--crop_and_flip", "--epochs=1", "--batch_size=16", "--train_examples=48"),
        *("--examples_per_bucket=4", "--temperature_scaling"),
    )
    splits = data.load(
        settings.dataset,
        data_dir=settings.data_dir,
        train_examples=settings.train_examples,
        crop_and_flip=settings.crop_and_flip,
        image_size=settings.image_size,
    )
    assert splits.counts() == {"train": 48, "holdout": 12, "test": 15}
    folder = str(tmp_path / "run")
    run_folder.open_run(folder, settings, overwrite=False)
    rows = training.run(settings, splits, folder)
    assert len(rows) == 2
    assert {"metrics.json", "saved_model", "figures"} <= {
        path.name for path in Path(folder).iterdir()
    }


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
