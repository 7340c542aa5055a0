import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import keras_autolabel as kal
from keras_autolabel.batch import label_rows
from tests.conftest import linear_network, numpy_softmax
from tests.keras_autolabel.labels_test import batch_of, section_4_3

RATE = 0.5
SHAPE = (2, 2, 1)
ROWS = 60
# The confidences of a table, one a row of the batch.
LABELS = np.linspace(0.3, 1.0, ROWS)


def _smooth(smoothing, one_hot):
    return (1 - smoothing) * one_hot + smoothing / one_hot.shape[-1]


def _power(rho, one_hot, distance):
    g = (1 - np.minimum(1, distance[:, np.newaxis])) ** rho
    return g * one_hot + (1 - g) / one_hot.shape[-1]


def _to_others(one_hot):
    """What an example takes from its class and gives to the others, evenly."""
    return one_hot - (1 - one_hot) / (one_hot.shape[-1] - 1)


# A policy for K classes, and its dense labels by the papers: one-hot rows of the labels and of the
# partners, mix and distance.
POLICIES = {
    "OneHot": (lambda k: kal.OneHot(), lambda y, p, mix, distance: y),
    "LabelSmoothing": (
        lambda k: kal.LabelSmoothing(num_classes=k),
        lambda y, p, mix, distance: _smooth(0.1, y),
    ),
    "LabelSmoothing(0)": (
        lambda k: kal.LabelSmoothing(0.0, num_classes=k),
        lambda y, p, mix, distance: y,
    ),
    "MixupLabels": (
        lambda k: kal.MixupLabels(),
        lambda y, p, mix, distance: (1 - mix[:, np.newaxis]) * y + mix[:, np.newaxis] * p,
    ),
    "ConfidenceCalibrated": (
        lambda k: kal.ConfidenceCalibrated(num_classes=k),
        lambda y, p, mix, distance: _power(10.0, y, distance),
    ),
    "ConfidenceCalibrated(0.5)": (
        lambda k: kal.ConfidenceCalibrated(num_classes=k, rho=0.5),
        lambda y, p, mix, distance: _power(0.5, y, distance),
    ),
    "PowerLabels": (
        lambda k: kal.PowerLabels(num_classes=k),
        lambda y, p, mix, distance: (
            y - ((1 - 1 / y.shape[-1]) * distance**2)[:, np.newaxis] * _to_others(y)
        ),
    ),
    "LabelTable": (
        lambda k: kal.LabelTable((ROWS,), initial=LABELS),
        lambda y, p, mix, distance: np.array(
            [
                section_4_3(*row, y.shape[-1])
                for row in zip(y.argmax(-1), p.argmax(-1), LABELS, mix, strict=True)
            ]
        ),
    ),
}


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("name", POLICIES)
def test_loss_is_that_of_keras_on_dense_labels_of_the_papers(name, num_classes):
    make, dense = POLICIES[name]
    rng = np.random.default_rng(num_classes)
    logits = tf.constant(rng.normal(scale=3.0, size=[ROWS, num_classes]), tf.float32)
    labels, partners = rng.integers(num_classes, size=[2, ROWS])
    mix, distance = rng.uniform([[0.0], [0.0]], [[0.5], [1.0]], [2, ROWS])
    distance[:3] = [0.0, 1.0, 1.0 + 1e-6 * (name != "PowerLabels")]
    batch = batch_of(labels, partners=partners, mix=mix, distance=distance, bucket=range(ROWS))
    one_hot = np.eye(num_classes)
    targets = dense(one_hot[labels], one_hot[partners], mix, distance)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="none")(
        tf.constant(targets, tf.float32), logits
    )
    loss = kal.SoftTargetLoss(make(num_classes), reduction="none")
    for y_true in (batch, label_rows(batch)):
        np.testing.assert_allclose(loss(y_true, logits), expected, rtol=1e-4, atol=1e-5)
    # Softer labels do not get past the loss: what the policy itself says.
    confidence, _ = make(num_classes)(batch)
    of_label = targets[np.arange(ROWS), labels]
    apart = labels != partners
    np.testing.assert_allclose(confidence.numpy()[apart], of_label[apart], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", POLICIES)
def test_configs_round_trip(name):
    policy = POLICIES[name][0](7)
    copy = keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(policy))
    assert type(copy) is type(policy)
    assert copy.get_config() == policy.get_config()
    drawn = np.linspace(0.0, 1.0, ROWS)
    batch = batch_of([3] * ROWS, mix=drawn / 2, distance=drawn, bucket=range(ROWS))
    np.testing.assert_array_equal(copy(batch), policy(batch))


@pytest.mark.parametrize(
    ("policy", "arguments", "received"),
    [
        (kal.LabelSmoothing, {"smoothing": -0.1, "num_classes": 3}, "-0.1"),
        (kal.LabelSmoothing, {"smoothing": 1.0, "num_classes": 3}, "1.0"),
        (kal.LabelSmoothing, {"smoothing": float("nan"), "num_classes": 3}, "nan"),
        (kal.LabelSmoothing, {"num_classes": 1}, "1"),
        (kal.ConfidenceCalibrated, {"num_classes": 1}, "1"),
        (kal.ConfidenceCalibrated, {"num_classes": 3, "rho": 0.0}, "0.0"),
        (kal.ConfidenceCalibrated, {"num_classes": 3, "rho": float("nan")}, "nan"),
        (kal.PowerLabels, {"num_classes": 1}, "1"),
        (kal.PowerLabels, {"num_classes": 3, "exponent": 0.0}, "0.0"),
        (kal.PowerLabels, {"num_classes": 3, "exponent": float("nan")}, "nan"),
        (kal.LabelSmoothing, {"num_classes": 3, "smoothing": False}, "False"),
        (kal.ConfidenceCalibrated, {"num_classes": 3, "rho": "2"}, "'2'"),
        (kal.PowerLabels, {"num_classes": 3, "exponent": "2"}, "'2'"),
    ],
)
def test_arguments_out_of_range_are_refused(policy, arguments, received):
    with pytest.raises(ValueError, match=f"Received: .*{received}$"):
        policy(**arguments)


# --- which policy goes with which augmentation ----------------------------------------------------


class Own:
    """An augmentation that says nothing of what its batches offer."""

    bucket_shape = (10,)

    def __call__(self, images, labels, *, seed, bucket=None, network=None):
        raise NotImplementedError


PGD = kal.PGD(epsilon=0.1)
AUGMENTATIONS = [
    *(None, Own(), kal.AugMix(), kal.RandAugment(), kal.SoftCrop(), kal.Mixup(), kal.CutMix()),
    *(PGD, kal.HalfAdversarial(PGD)),
]
# Who ignores a second image is refused where there is one, and who reads what is not there.
REFUSED = {
    "AugMix": {"MixupLabels", "ConfidenceCalibrated"},
    "RandAugment": {"MixupLabels", "ConfidenceCalibrated"},
    "SoftCrop": {"MixupLabels", "ConfidenceCalibrated"},
    "Mixup": {"OneHot", "LabelSmoothing", "ConfidenceCalibrated", "PowerLabels"},
    "CutMix": {"OneHot", "LabelSmoothing", "ConfidenceCalibrated", "PowerLabels"},
    "PGD": {"MixupLabels", "ConfidenceCalibrated"},
    "HalfAdversarial": {"MixupLabels"},
}


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda x: type(x).__name__)
def test_which_policies_go_with_an_augmentation(augmentation):
    network = linear_network(SHAPE, 3)
    refused = REFUSED.get(type(augmentation).__name__, set())
    policies = [
        *(kal.OneHot(), kal.LabelSmoothing(num_classes=3), kal.MixupLabels()),
        *(kal.ConfidenceCalibrated(num_classes=3), lambda batch: (1.0 - batch.mix, batch.mix)),
        *(
            kal.PowerLabels(num_classes=3),
            kal.LabelTable(getattr(augmentation, "bucket_shape", (1,))),
        ),
    ]
    for policy in policies:
        name, other = type(policy).__name__, type(augmentation).__name__
        arguments = {"num_classes": 3, "label_policy": policy}
        if name not in refused:
            assert kal.AutoLabelModel(network, augmentation, **arguments).label_policy is policy
            continue
        with pytest.raises(ValueError, match=f"{name} does not go with {other}"):
            kal.AutoLabelModel(network, augmentation, **arguments)


@pytest.mark.parametrize("policy", [kal.LabelSmoothing, kal.ConfidenceCalibrated, kal.PowerLabels])
def test_policies_of_other_classes_are_refused(policy):
    with pytest.raises(ValueError, match=rf"{policy.__name__}\(num_classes=10\), num_classes=3"):
        kal.AutoLabelModel(
            linear_network(SHAPE, 3), num_classes=3, label_policy=policy(num_classes=10)
        )


# --- one step of training, by hand ----------------------------------------------------------------


def _assert_one_step(augmentation, policy, dense, size: int) -> None:
    """SGD on softmax regression: dloss/dz = (softmax(z) - target)/B, z = xW + b."""
    rng = np.random.default_rng(size)
    images, labels = rng.uniform(size=[size, *SHAPE]).astype(np.float32), rng.integers(3, size=size)
    model = kal.AutoLabelModel(
        linear_network(SHAPE, 3), augmentation, num_classes=3, label_policy=policy
    )
    model.compile(keras.optimizers.SGD(RATE))
    before = model.network.get_weights()
    batch = model.augment(tf.constant(images), tf.constant(labels))
    history = model.fit(images, labels, batch_size=size, shuffle=False, verbose=0).history
    after = model.network.get_weights()
    targets = dense(images, labels, batch)
    inputs = batch.images.numpy().reshape(size, -1).astype(np.float64)
    probabilities = numpy_softmax(inputs @ before[0] + before[1])
    loss = -(targets * np.log(probabilities)).sum(axis=-1).mean()
    np.testing.assert_allclose(history["loss"], [loss], rtol=1e-5)
    gradient = (probabilities - targets) / size
    np.testing.assert_allclose(after[0], before[0] - RATE * inputs.T @ gradient, atol=1e-6)
    np.testing.assert_allclose(after[1], before[1] - RATE * gradient.sum(axis=0), atol=1e-6)


def test_mixup_trains_on_ordinary_mixup():
    def dense(images, labels, batch):
        mix = batch.mix.numpy()[:, np.newaxis].astype(np.float64)
        return (1.0 - mix) * np.eye(3)[labels] + mix * np.eye(3)[batch.partners]

    _assert_one_step(kal.Mixup(), kal.MixupLabels(), dense, 12)


def test_mixup_trains_on_learned_labels_that_start_at_ordinary_mixup():
    def dense(images, labels, batch):
        # 1 − γ at the middle of bucket n of 4, where γ is at most ½.
        confidence = 1.0 - (batch.bucket.numpy() + 0.5) / 8
        mix = batch.mix.numpy().astype(np.float64)
        rows = zip(labels, batch.partners.numpy(), confidence, mix, strict=True)
        return np.array([section_4_3(*row, 3) for row in rows])

    _assert_one_step(kal.Mixup(num_buckets=4), None, dense, 8)


@pytest.mark.parametrize("size", [6, 7])
def test_half_adversarial_trains_on_calibrated_confidence(size):
    def dense(images, labels, batch):
        distance = np.abs(batch.images.numpy().astype(np.float64) - images).max((1, 2, 3)) / 0.2
        assert np.all(distance[: size // 2] == 0.0) and np.all(distance[size // 2 :] > 0.0)
        return _power(10.0, np.eye(3)[labels], distance)

    attack = kal.PGD(epsilon=0.2, num_steps=3, relative_step_size=0.1)
    policy = kal.ConfidenceCalibrated(num_classes=3)
    _assert_one_step(kal.HalfAdversarial(attack), policy, dense, size)
