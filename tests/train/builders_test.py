from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from train.builders import (
    build_callbacks,
    build_model,
    build_network,
    build_optimizer,
    channel_moments,
    check,
    load_data,
)
from train.choices import AUGMENTATIONS, LABELS, NETWORKS
from train.resnet50 import resnet50
from train.settings import Settings


def _split(side=16, channels=1, examples=20) -> data.Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (examples, side, side, channels)).astype(np.uint8)
    return data.Split(images, (np.arange(examples) % 10).astype(np.int32))


def test_moments_are_those_of_numpy():
    images = _split(channels=3).images
    mean, std = channel_moments(images)
    scaled = images.astype(np.float64) / 255.0
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 1, 2)), rtol=1e-9)
    # One grey has no spread.
    mean, std = channel_moments(np.full((2, 3, 3, 1), 51, np.uint8))
    np.testing.assert_allclose([mean, std], [[0.2], [0.0]], atol=1e-7)


@pytest.mark.parametrize(("flag", "argument"), [(None, "auto"), (0, None), (7, 7)])
def test_holdout_images_of_the_settings(flag, argument):
    model = SimpleNamespace(label_policy=kal.LabelTable((3,)))
    settings = Settings(examples_per_bucket=flag)
    (callback,) = build_callbacks(settings, model, _split())
    assert callback.examples_per_bucket == argument


def test_network_of_the_settings():
    assert NETWORKS["resnet50"](Settings()) is resnet50
    options = {"num_classes": 7, "mean": 0.5, "std": 0.25}
    wide = NETWORKS["wide_resnet"](Settings(depth=16, width=2))((8, 8, 1), **options)
    assert wide.name == "wide_resnet_16_2" and wide.layers[-1].kernel.shape == (128, 7)


def test_network_normalises_with_the_moments_of_its_training_images():
    split = _split()
    network = build_network(Settings(l2=4e-3), split, 10)
    assert network.name == "small_resnet" and network.output_shape == (None, 10)
    layer = next(layer for layer in network.layers if "normalization" in layer.name)
    normal = layer(tf.constant(split.images / 255.0, tf.float32)).numpy()
    np.testing.assert_allclose(normal.mean(), 0.0, atol=1e-5)
    np.testing.assert_allclose(normal.std(), 1.0, atol=1e-5)
    weights = [tf.reduce_sum(weight**2) for weight in network.trainable_weights]
    assert float(tf.add_n(network.losses)) == pytest.approx(4e-3 * sum(weights).numpy(), rel=1e-4)


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


@pytest.fixture(scope="module")
def few() -> data.Splits:
    return data.load("digits", train_examples=64, holdout_examples=20)


def _trained(splits: data.Splits, **options) -> tuple[kal.AutoLabelModel, float]:
    """After one epoch without a graph, which would take longer."""
    model = _plain_model(splits, **options)
    model.run_eagerly = True
    history = model.fit(splits.train.images, splits.train.labels, batch_size=32, verbose=0)
    return model, history.history["loss"][0]


def _plain_model(splits: data.Splits, **options) -> kal.AutoLabelModel:
    settings = Settings(batch_size=32, augmentation="none", labels="one_hot", **options)
    return build_model(settings, splits)


def test_precision_is_that_of_the_network_alone(few):
    before = keras.mixed_precision.global_policy()
    _, expected = _trained(few)
    for precision, computed in (("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")):
        model, loss = _trained(few, precision=precision)
        convolutions = [x for x in model.network.layers if isinstance(x, keras.layers.Conv2D)]
        assert convolutions and {x.compute_dtype for x in convolutions} == {computed}
        assert {x.dtype.name for x in model.network.get_weights()} == {"float32"}
        assert model.predict(few.test.images[:2], verbose=0).dtype == np.float32
        # Eight bits of a number are left, of which the logits are sums.
        np.testing.assert_allclose(loss, expected, rtol=0.05)
        # Gradients of half precision are scaled.
        scaled = hasattr(model.optimizer, "inner_optimizer")
        assert scaled == (precision == "mixed_float16")
        assert keras.mixed_precision.global_policy().name == before.name


def test_the_step_is_compiled_where_the_settings_say_so(few):
    # What XLA makes of a step stands in keras_user_test.py.
    assert [_plain_model(few, jit_compile=jit).jit_compile for jit in (False, True)] == [0, 1]


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS.keys() - {"none"}))
def test_augmentation_that_xla_cannot_compile_is_refused_by_name(name):
    labels = "power" if name == "soft_crop" else "autolabel"
    settings = Settings(augmentation=name, labels=labels, jit_compile=True)
    with pytest.raises(ValueError, match=f"--jit_compile does not go with --augmentation={name}"):
        check(settings)
    check(Settings(augmentation="none", labels="one_hot", jit_compile=True))
