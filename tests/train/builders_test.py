import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from train.builders import build_network, build_optimizer, channel_moments
from train.choices import AUGMENTATIONS, LABELS
from train.image_network import CIFAR10_MEAN, CIFAR10_STD
from train.settings import Settings


def _split(side=16, channels=1, examples=20) -> data.Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (examples, side, side, channels)).astype(np.uint8)
    return data.Split(images, (np.arange(examples) % 10).astype(np.int32))


def _augmentation(name, labels="one_hot", **options):
    return AUGMENTATIONS[name](Settings(augmentation=name, labels=labels, **options))


def _policy(labels, **options):
    return LABELS[labels].policy(Settings(labels=labels, **options), 10)


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


def test_augmentation_of_the_settings():
    assert _augmentation("none") is None
    augmix = _augmentation("augmix", num_buckets=4, max_depth=2, severity=1.5)
    assert isinstance(augmix, kal.AugMix)
    assert (augmix.bucket_shape, augmix.severity) == ((2, 4), 1.5)
    randaugment = _augmentation("randaugment", num_buckets=4, num_operations=3, max_magnitude=7.0)
    assert isinstance(randaugment, kal.RandAugment)
    assert randaugment.bucket_shape == (4,)
    assert (randaugment.num_operations, randaugment.max_magnitude) == (3, 7.0)
    mixup = _augmentation("mixup", "mixup", num_buckets=6, beta=0.2)
    assert isinstance(mixup, kal.Mixup)
    assert (mixup.bucket_shape, mixup.beta) == ((6,), 0.2)
    cutmix = _augmentation("cutmix", "mixup", num_buckets=6, beta=0.2)
    assert isinstance(cutmix, kal.CutMix)
    assert (cutmix.bucket_shape, cutmix.beta) == ((6,), 0.2)
    crop = _augmentation("soft_crop", "power", num_buckets=6, sigma=0.2)
    assert isinstance(crop, kal.SoftCrop)
    assert (crop.bucket_shape, crop.sigma) == ((6,), 0.2)
    for attack in (
        _augmentation("pgd", num_buckets=3, epsilon=0.25, attack_steps=7),
        _augmentation("pgd", "ccat", num_buckets=3, epsilon=0.25, attack_steps=7).attack,
    ):
        assert isinstance(attack, kal.PGD)
        assert (attack.num_buckets, attack.epsilon, attack.num_steps) == (3, 0.25, 7)
    assert isinstance(_augmentation("pgd", "ccat"), kal.HalfAdversarial)


def test_label_policy_of_the_settings():
    assert _policy("autolabel") is None
    assert isinstance(_policy("one_hot"), kal.OneHot)
    assert isinstance(_policy("mixup"), kal.MixupLabels)
    images, labels = np.zeros([2, 4, 4, 1], np.uint8), np.array([1, 2])
    # The last row is moved as far as can be: CCAT's label is uniform there, whatever ρ.
    batch = kal.AugmentedBatch(
        images=tf.constant(images / 255.0, tf.float32),
        labels=tf.constant(labels, tf.int32),
        partners=tf.constant(labels, tf.int32),
        mix=tf.zeros([2]),
        distance=tf.constant([0.5, 1.0]),
        bucket=tf.zeros([2], tf.int32),
    )
    confidence, _ = _policy("label_smoothing", smoothing=0.2)(batch)
    np.testing.assert_allclose(confidence, [0.8 + 0.2 / 10] * 2, rtol=1e-6)
    # 1 - 0.9·d^3.
    confidence, _ = _policy("power", exponent=3.0)(batch)
    np.testing.assert_allclose(confidence, [1.0 - 0.9 / 8, 0.1], rtol=1e-6)
    # g = (1 - 0.5)^2 = 1/4, and the label is g + (1 - g)/10.
    confidence, _ = _policy("ccat", rho=2.0)(batch)
    np.testing.assert_allclose(confidence, [0.25 + 0.75 / 10, 0.1], rtol=1e-6)


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
