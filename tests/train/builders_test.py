import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from train.builders import build_network, build_optimizer, channel_moments, load_data
from train.choices import AUGMENTATIONS, LABELS
from train.image_network import CIFAR10_MEAN, CIFAR10_STD
from train.settings import Settings


def _split(side=16, channels=1, examples=20) -> data.Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (examples, side, side, channels)).astype(np.uint8)
    return data.Split(images, (np.arange(examples) % 10).astype(np.int32))


@pytest.mark.parametrize("channels", [1, 3])
def test_moments_are_those_of_numpy(channels):
    images = _split(channels=channels).images
    mean, std = channel_moments(images)
    scaled = images.astype(np.float64) / 255.0
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 1, 2)), rtol=1e-9)


def test_moments_of_one_grey_have_no_spread():
    mean, std = channel_moments(np.full((2, 3, 3, 1), 51, np.uint8))
    np.testing.assert_allclose(mean, [0.2])
    np.testing.assert_allclose(std, [0.0], atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "side", "parameters"),
    [
        # The 78,042 parameters of the small network do not depend on the size of the images.
        (Settings(network="small"), 16, 78_042),
        # 3*3*1*16 less than on colour images: see the tests of the networks themselves.
        (Settings(network="wide_resnet", depth=10, width=1), 16, 78_042),
        (Settings(network="resnet50"), 32, None),
    ],
)
def test_network_of_the_settings(settings, side, parameters):
    network = build_network(settings, _split(side), 10)
    assert network.output_shape == (None, 10)
    assert network.input_shape == (None, side, side, 1)
    assert network.count_params() == (parameters or pytest.approx(23.5e6, rel=0.01))


def test_network_normalises_with_the_moments_of_its_training_images():
    split = _split()
    network = build_network(Settings(), split, 10)
    pixels = split.images / 255.0
    layer = next(layer for layer in network.layers if "normalization" in layer.name)
    normal = layer(tf.constant(pixels, tf.float32)).numpy()
    np.testing.assert_allclose(normal.mean(), 0.0, atol=1e-5)
    np.testing.assert_allclose(normal.std(), 1.0, atol=1e-5)


def test_network_of_a_published_data_set_has_published_moments():
    network = build_network(Settings(dataset="cifar10"), _split(channels=3), 10)
    layer = next(layer for layer in network.layers if "normalization" in layer.name)
    grey = tf.fill([1, 16, 16, 3], 0.5)
    expected = (0.5 - np.array(CIFAR10_MEAN)) / CIFAR10_STD
    np.testing.assert_allclose(layer(grey)[0, 0, 0], expected, rtol=1e-5)


def test_l2_is_that_of_the_settings():
    def penalty(l2):
        network = build_network(Settings(l2=l2), _split(), 10)
        network.set_weights([np.full(w.shape, 0.1) for w in network.get_weights()])
        return float(tf.add_n(network.losses))

    assert penalty(4e-3) == pytest.approx(4 * penalty(1e-3), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("augmix", {"max_depth": 2, "severity": 1.5}),
        ("randaugment", {"num_operations": 3, "max_magnitude": 7.0}),
        ("mixup", {"beta": 0.2}),
        ("pgd", {"epsilon": 0.25, "relative_step_size": 0.5, "random_start": False}),
    ],
)
def test_augmentation_has_the_options_of_the_settings(name, options):
    settings = Settings(augmentation=name, num_buckets=4, attack_steps=7, **options)
    config = AUGMENTATIONS[name](settings).get_config()
    assert config["num_buckets"] == 4 and config.get("num_steps", 7) == 7
    assert {key: config[key] for key in options} == options


def test_ccat_attacks_half_of_each_batch():
    attack = AUGMENTATIONS["pgd"](Settings(augmentation="pgd", labels="ccat", epsilon=0.25))
    assert isinstance(attack, kal.HalfAdversarial) and attack.attack.epsilon == 0.25


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        ("one_hot", {}, [1.0, 1.0]),
        ("mixup", {}, [1.0, 1.0]),
        ("label_smoothing", {"smoothing": 0.2}, [0.82, 0.82]),
        # g = (1 - 0.5)^2 = 1/4, and the label is g + (1 - g)/10; uniform as far as can be.
        ("ccat", {"rho": 2.0}, [0.325, 0.1]),
    ],
)
def test_labels_have_the_options_of_the_settings(labels, options, expected):
    batch = kal.AugmentedBatch(
        images=tf.zeros([2, 4, 4, 1]),
        labels=tf.constant([1, 2]),
        partners=tf.constant([1, 2]),
        mix=tf.zeros([2]),
        distance=tf.constant([0.5, 1.0]),
        bucket=tf.zeros([2], tf.int32),
    )
    confidence, _ = LABELS[labels].policy(Settings(**options), 10)(batch)
    np.testing.assert_allclose(confidence, expected, rtol=1e-6)


def test_data_are_split_as_the_settings_say():
    first, other = (
        load_data(Settings(seed=seed, train_examples=200, holdout_examples=50)) for seed in (3, 4)
    )
    assert first.name == "fashion_mnist_small"
    assert first.counts() == other.counts() == {"train": 200, "holdout": 50, "test": 2000}
    assert (first.holdout.images != other.holdout.images).any()


def _schedule(settings, steps_per_epoch) -> keras.optimizers.schedules.LearningRateSchedule:
    optimizer = build_optimizer(settings, steps_per_epoch)
    config = optimizer.get_config()
    assert (config["momentum"], config["nesterov"]) == (pytest.approx(0.9), True)
    return keras.optimizers.schedules.deserialize(config["learning_rate"])


def test_learning_rate_grows_with_the_batch_and_falls_to_zero():
    schedule = _schedule(Settings(batch_size=32, learning_rate=0.2, epochs=3), steps_per_epoch=4)
    # Half a cosine over 12 steps, from 0.2 at a batch of 128, so from 0.05.
    expected = 0.025 * (1 + np.cos(np.pi * np.arange(13) / 12))
    rates = [float(schedule(step)) for step in range(13)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-9)


def test_published_schedule_has_its_rate_after_the_warm_up():
    # Batch 512: 0.1 * 512 / 128 = 0.4 after one epoch, a fifth of it from epoch 60 on.
    settings = Settings(schedule="cifar", batch_size=512, epochs=200)
    schedule = _schedule(settings, steps_per_epoch=2)
    rates = [float(schedule(2 * epoch)) for epoch in (1, 59, 61)]
    np.testing.assert_allclose(rates, [0.4, 0.4, 0.08], rtol=1e-5)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
