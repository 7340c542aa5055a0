import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import (
    PGD,
    AugMix,
    AutoLabelModel,
    ConfidenceCalibrated,
    HalfAdversarial,
    LabelSmoothing,
    Mixup,
    MixupLabels,
    OneHot,
    RandAugment,
    SoftTargetLoss,
)
from keras_autolabel.batch import AugmentedBatch
from keras_autolabel.labels import class_shares
from tests.conftest import Dimming, linear_network, numpy_softmax

RATE = 0.5
SHAPE = (2, 2, 1)


def _batch(labels, partners, mix, distance) -> AugmentedBatch:
    return AugmentedBatch(
        images=tf.zeros([len(labels), 1, 1, 1]),
        labels=tf.constant(labels, tf.int32),
        partners=tf.constant(partners, tf.int32),
        mix=tf.constant(mix, tf.float32),
        distance=tf.constant(distance, tf.float32),
        bucket=tf.zeros([len(labels)], tf.int32),
    )


def _fit_one_step(model, images, labels) -> tuple:
    """The batch that was trained on, the weights before and after, and the loss."""
    model.compile(keras.optimizers.SGD(RATE))
    before = model.network.get_weights()
    batch = model.augment(tf.constant(images), tf.constant(labels))
    history = model.fit(images, labels, batch_size=len(labels), shuffle=False, verbose=0).history
    return batch, before, model.network.get_weights(), history["loss"][0]


def _assert_one_step(images, targets, before, after, loss) -> None:
    """SGD on softmax regression: dloss/dz = (softmax(z) - target)/B, z = xW + b."""
    inputs = np.reshape(images, [len(targets), -1]).astype(np.float64)
    probabilities = numpy_softmax(inputs @ before[0] + before[1])
    np.testing.assert_allclose(
        loss, -(targets * np.log(probabilities)).sum(axis=-1).mean(), rtol=1e-5
    )
    gradient = (probabilities - targets) / len(targets)
    np.testing.assert_allclose(after[0], before[0] - RATE * inputs.T @ gradient, atol=1e-6)
    np.testing.assert_allclose(after[1], before[1] - RATE * gradient.sum(axis=0), atol=1e-6)


# --- mixup ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_mixup_labels_give_the_ordinary_mixup_loss(num_classes):
    rng = np.random.default_rng(num_classes)
    labels, partners = rng.integers(num_classes, size=[2, 200])
    # γ is the weight of the first class wherever it falls; the larger share dominates.
    gamma = rng.uniform(0.5, 1.0, size=200).astype(np.float32)
    logits = rng.normal(scale=3.0, size=[200, num_classes]).astype(np.float32)
    assert np.any(labels == partners) and np.any(labels != partners)
    one_hot = np.eye(num_classes, dtype=np.float32)
    dense = gamma[:, np.newaxis] * one_hot[labels] + (1 - gamma[:, np.newaxis]) * one_hot[partners]
    expected = keras.losses.categorical_crossentropy(dense, logits, from_logits=True)
    batch = _batch(labels, partners, 1.0 - gamma, 2.0 * (1.0 - gamma))
    actual = SoftTargetLoss(MixupLabels(), reduction="none").call(batch, tf.constant(logits))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_mixup_labels_are_the_two_weights():
    confidence, share = MixupLabels()(_batch([1, 2], [0, 2], [0.25, 0.0], [0.5, 0.0]))
    np.testing.assert_array_equal(confidence, [0.75, 1.0])
    np.testing.assert_array_equal(share, [0.25, 0.0])


def test_mixup_trains_on_ordinary_mixup():
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=[12, *SHAPE]).astype(np.float32), rng.integers(3, size=12)
    model = AutoLabelModel(
        linear_network(SHAPE, 3), Mixup(), num_classes=3, label_policy=MixupLabels()
    )
    batch, before, after, loss = _fit_one_step(model, images, labels)
    mix = batch.mix.numpy()[:, np.newaxis].astype(np.float64)
    targets = (1.0 - mix) * np.eye(3)[labels] + mix * np.eye(3)[batch.partners]
    _assert_one_step(batch.images, targets, before, after, loss)


# --- CCAT -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("rho", [0.5, 1.0, 10.0])
def test_confidence_calibrated_is_the_power_transition(num_classes, rho):
    rng = np.random.default_rng(0)
    distance = np.concatenate([rng.uniform(size=50), [0.0, 1.0, 1.0 + 1e-6]]).astype(np.float32)
    labels = rng.integers(num_classes, size=53)
    batch = _batch(labels, labels, np.zeros(53), distance)
    g = (1.0 - np.minimum(1.0, distance.astype(np.float64)))[:, np.newaxis] ** rho
    targets = g * np.eye(num_classes)[labels] + (1.0 - g) / num_classes
    policy = ConfidenceCalibrated(num_classes=num_classes, rho=rho)
    confidence, share = policy(batch)
    np.testing.assert_allclose(confidence, targets[np.arange(53), labels], rtol=1e-4)
    np.testing.assert_array_equal(share, np.zeros(53))
    true, partner, other = class_shares(labels, labels, confidence, share, num_classes)
    np.testing.assert_allclose(true + partner + other * (num_classes - 1), 1.0, atol=1e-6)
    logits = rng.normal(size=[53, num_classes])
    actual = SoftTargetLoss(policy, reduction="none").call(batch, tf.constant(logits))
    expected = -(targets * np.log(numpy_softmax(logits))).sum(axis=-1)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_confidence_calibrated_by_hand():
    policy = ConfidenceCalibrated(num_classes=4, rho=2.0)
    # g = 1, 0.25, 0; the label is g + (1 - g)/4.
    confidence, _ = policy(_batch([0] * 3, [0] * 3, [0.0] * 3, [0.0, 0.5, 1.0]))
    np.testing.assert_allclose(confidence, [1.0, 0.4375, 0.25])


def test_confidence_calibrated_treats_a_partner_like_every_other_class():
    policy = ConfidenceCalibrated(num_classes=4, rho=2.0)
    batch = _batch([0, 1], [3, 1], [0.25, 0.25], [0.5, 0.5])
    confidence, share = policy(batch)
    shares = class_shares(batch.labels, batch.partners, confidence, share, 4)
    true, partner, other = (x.numpy() for x in shares)
    np.testing.assert_allclose(true, [0.4375, 0.4375])
    np.testing.assert_allclose(partner, [0.1875, 0.0])
    np.testing.assert_allclose(other, [0.1875, 0.1875])


@pytest.mark.parametrize("size", [6, 7])
def test_half_adversarial_trains_on_calibrated_confidence(size):
    rng = np.random.default_rng(1)
    images = rng.uniform(size=[size, *SHAPE]).astype(np.float32)
    labels = rng.integers(3, size=size)
    model = AutoLabelModel(
        linear_network(SHAPE, 3),
        HalfAdversarial(PGD(epsilon=0.2, num_steps=3, relative_step_size=0.1)),
        num_classes=3,
        label_policy=ConfidenceCalibrated(num_classes=3, rho=10.0),
    )
    batch, before, after, loss = _fit_one_step(model, images, labels)
    attacked = batch.images.numpy().astype(np.float64)
    distance = np.abs(attacked - images).max(axis=(1, 2, 3)) / 0.2
    np.testing.assert_allclose(distance[: size // 2], 0.0)
    assert np.all((distance[size // 2 :] > 0.0) & (distance[size // 2 :] <= 1.0 + 1e-6))
    g = (1.0 - np.minimum(distance, 1.0))[:, np.newaxis] ** 10.0
    targets = g * np.eye(3)[labels] + (1.0 - g) / 3.0
    _assert_one_step(attacked, targets, before, after, loss)


# --- configs and arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "config"),
    [
        (MixupLabels(), {}),
        (ConfidenceCalibrated(num_classes=7, rho=3.0), {"num_classes": 7, "rho": 3.0}),
    ],
)
def test_config_round_trips(policy, config):
    assert policy.get_config() == config
    for copy in (
        keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(policy)),
        type(policy).from_config(config),
    ):
        assert type(copy) is type(policy) and copy.get_config() == config


CCAT = HalfAdversarial(PGD(epsilon=0.1))


@pytest.mark.parametrize(
    ("augmentation", "policy", "message"),
    [
        (
            AugMix(),
            LabelSmoothing(num_classes=10),
            r"LabelSmoothing\(num_classes=10\), num_classes=3",
        ),
        (CCAT, ConfidenceCalibrated(num_classes=2), r"Calibrated\(num_classes=2\), num_classes=3"),
        (AugMix(), MixupLabels(), "MixupLabels does not go with AugMix: .*mixture of two images"),
        (RandAugment(), MixupLabels(), "does not go with RandAugment"),
        (PGD(epsilon=0.1), MixupLabels(), "does not go with PGD"),
        (CCAT, MixupLabels(), "does not go with HalfAdversarial"),
        (Mixup(), OneHot(), "OneHot does not go with Mixup: .*MixupLabels is ordinary mixup"),
        (Mixup(), LabelSmoothing(num_classes=3), "ignore the second class; MixupLabels is ord"),
        (Mixup(), ConfidenceCalibrated(num_classes=3), "does not go with Mixup"),
        (PGD(epsilon=0.1), ConfidenceCalibrated(num_classes=3), "HalfAdversarial"),
        (CCAT, None, "LabelTable does not go with HalfAdversarial: pass label_policy=Confidence"),
    ],
)
def test_policies_that_do_not_fit_are_refused(augmentation, policy, message):
    with pytest.raises(ValueError, match=message):
        AutoLabelModel(linear_network(SHAPE, 3), augmentation, num_classes=3, label_policy=policy)


@pytest.mark.parametrize(
    ("augmentation", "policy"),
    [
        (Dimming(), MixupLabels()),
        (Dimming(), ConfidenceCalibrated(num_classes=3)),
        # The dataset may be augmented already.
        (None, MixupLabels()),
        (CCAT, OneHot()),
        (CCAT, LabelSmoothing(num_classes=3)),
        (Mixup(), lambda batch: (1.0 - batch.mix, batch.mix)),
        (Mixup(), None),
    ],
)
def test_policies_that_fit_pass(augmentation, policy):
    AutoLabelModel(linear_network(SHAPE, 3), augmentation, num_classes=3, label_policy=policy)


def test_a_model_of_ccat_survives_its_config():
    model = AutoLabelModel(
        linear_network(SHAPE, 3),
        HalfAdversarial(PGD(epsilon=0.2, num_steps=3)),
        num_classes=3,
        label_policy=ConfidenceCalibrated(num_classes=3, rho=4.0),
    )
    copy = AutoLabelModel.from_config(model.get_config())
    assert isinstance(copy.augmentation, HalfAdversarial)
    assert copy.augmentation.attack.get_config() == model.augmentation.attack.get_config()
    assert copy.label_policy.get_config() == {"num_classes": 3, "rho": 4.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2. Received: 1"),
        ({"num_classes": 3, "rho": 0.0}, "rho must be above 0. Received: rho=0.0"),
        ({"num_classes": 3, "rho": float("nan")}, "Received: rho=nan"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceCalibrated(**arguments)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
