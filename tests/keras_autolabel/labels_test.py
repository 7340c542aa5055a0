import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import LabelSmoothing, LabelTable, OneHot, soft_targets, update_confidence
from keras_autolabel.batch import AugmentedBatch, clean_batch
from keras_autolabel.labels import class_shares, mixup_share


def batch_of(labels, *, partners=None, mix=None, bucket=None) -> AugmentedBatch:
    """A batch without images."""
    size = len(labels)
    return AugmentedBatch(
        images=tf.zeros([size, 1, 1, 1]),
        labels=tf.constant(labels, tf.int32),
        partners=tf.constant(labels if partners is None else partners, tf.int32),
        mix=tf.constant(np.zeros(size) if mix is None else mix, tf.float32),
        distance=tf.zeros([size]),
        bucket=tf.constant([0] * size if bucket is None else bucket, tf.int32),
    )


def section_4_3(label, partner, confidence, mix, num_classes) -> np.ndarray:
    """The label of one image, read from the paper sentence by sentence."""
    partner_share = min(1 - confidence, mix / (1 - mix) * confidence)
    target = np.zeros(num_classes)
    if label == partner:
        target[:] = (1 - confidence - partner_share) / (num_classes - 1)
        target[label] = confidence + partner_share
        return target
    if num_classes == 2:
        target[label], target[partner] = confidence, 1 - confidence
        return target
    target[:] = (1 - confidence - partner_share) / (num_classes - 2)
    target[label], target[partner] = confidence, partner_share
    return target


# --- Eq. (1) --------------------------------------------------------------------------------------


def test_update_confidence_by_hand():
    # Over-confident, under-confident, equal, stopped by Acc, stopped by the floor, stopped by 1.
    updated = update_confidence(
        [0.8, 0.8, 0.8, 0.8, 0.8, 0.9],
        ece=[0.1, 0.1, 0.1, 0.5, 1.0, 1.0],
        conf=[0.7, 0.5, 0.6, 0.9, 1.0, 0.0],
        acc=[0.6, 0.6, 0.6, 0.65, 0.0, 0.3],
        step_size=0.5,
        floor=0.1,
    )
    expected = [0.75, 0.85, 0.8, 0.65, 0.3, 1.0]
    np.testing.assert_allclose(updated, expected, atol=1e-7)
    floored = update_confidence([0.3], ece=[1.0], conf=[1.0], acc=[0.0], step_size=0.5, floor=0.1)
    np.testing.assert_allclose(floored, [0.1], atol=1e-7)


def test_update_confidence_equals_numpy():
    rng = np.random.default_rng(0)
    label, ece, conf, acc = rng.uniform(size=[4, 3, 10]).astype(np.float32)
    for step_size, floor in ((0.1, 0.0), (1.0, 0.0), (2.0, 0.25)):
        expected = label - step_size * ece * np.sign(conf - acc)
        expected = np.minimum(np.maximum(expected, np.maximum(acc, floor)), 1.0)
        updated = update_confidence(
            label, ece=ece, conf=conf, acc=acc, step_size=step_size, floor=floor
        )
        assert updated.shape == (3, 10)
        np.testing.assert_allclose(updated, expected, atol=1e-6)


@pytest.mark.parametrize("missing", ["ece", "conf", "acc"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_update_confidence_keeps_a_bucket_that_is_not_finite(missing, value):
    measured = {"ece": [0.1, 0.1], "conf": [0.9, 0.9], "acc": [0.5, 0.5]}
    measured[missing][0] = value
    updated = update_confidence([0.8, 0.8], step_size=1.0, **measured)
    np.testing.assert_allclose(updated, [0.8, 0.7], atol=1e-7)


# --- Eq. (2) and section 4.3 ----------------------------------------------------------------------


def test_soft_targets_equal_section_4_3():
    rng = np.random.default_rng(1)
    for num_classes in (2, 3, 4, 10, 100):
        labels, partners = rng.integers(num_classes, size=[2, 2000])
        partners[:500] = labels[:500]
        confidence, mix = rng.uniform([[0.0], [0.0]], [[1.0], [0.5]], [2, 2000])
        confidence[500:600], mix[600:700], mix[700:800] = 1.0, 0.0, 0.5
        targets = soft_targets(
            labels, confidence, num_classes=num_classes, partners=partners, mix=mix
        ).numpy()
        expected = [
            section_4_3(*row, num_classes)
            for row in zip(labels, partners, confidence, mix, strict=True)
        ]
        np.testing.assert_allclose(targets, expected, atol=1e-12)
        np.testing.assert_allclose(targets.sum(axis=-1), 1.0, atol=1e-12)
        assert targets.min() >= 0.0


def test_soft_targets_in_single_precision_are_never_negative():
    rng = np.random.default_rng(2)
    labels, partners = rng.integers(10, size=[2, 10_000])
    confidence, mix = np.float32(rng.uniform([[0.0], [0.0]], [[1.0], [0.5]], [2, 10_000]))
    targets = soft_targets(labels, confidence, num_classes=10, partners=partners, mix=mix)
    assert targets.dtype == tf.float32
    assert targets.numpy().min() >= 0.0
    np.testing.assert_allclose(targets.numpy().sum(axis=-1), 1.0, atol=1e-6)


def test_soft_targets_without_partner_are_eq_2():
    targets = soft_targets([2, 0], tf.constant([0.7, 0.1], tf.float64), num_classes=4)
    expected = [[0.1, 0.1, 0.7, 0.1], [0.1, 0.3, 0.3, 0.3]]
    np.testing.assert_allclose(targets, expected, atol=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_confidence_of_1_minus_gamma_is_ordinary_mixup(num_classes):
    rng = np.random.default_rng(3)
    labels, partners = rng.integers(num_classes, size=[2, 1000])
    mix = rng.uniform(0, 0.5, 1000)
    targets = soft_targets(labels, 1 - mix, num_classes=num_classes, partners=partners, mix=mix)
    one_hot = np.eye(num_classes)
    expected = (1 - mix)[:, np.newaxis] * one_hot[labels] + mix[:, np.newaxis] * one_hot[partners]
    np.testing.assert_allclose(targets, expected, atol=1e-12)


def test_mixup_share_by_hand():
    # gamma/(1 - gamma) is 1/3 at 0.25 and 1 at 0.5.
    share = mixup_share(tf.constant([0.6, 0.9, 0.6, 0.3]), tf.constant([0.25, 0.25, 0.5, 0.0]))
    np.testing.assert_allclose(share, [0.2, 0.1, 0.4, 0.0], atol=1e-7)


def test_two_classes_leave_nothing_to_spread():
    targets = soft_targets(
        [0, 1],
        tf.constant([0.6, 0.75]),
        num_classes=2,
        partners=[1, 1],
        mix=tf.constant([0.1, 0.2]),
    )
    # The first partner would get 1/9 of 0.6 and gets all of 0.4; the second is the same class.
    np.testing.assert_allclose(targets, [[0.6, 0.4], [0.0625, 0.9375]], atol=1e-7)


def test_labels_refuse_one_class_and_half_a_partner():
    with pytest.raises(ValueError, match="two classes are needed. Received: num_classes=1"):
        class_shares([0], [0], tf.ones([1]), tf.zeros([1]), 1)
    with pytest.raises(ValueError, match="num_classes=1"):
        soft_targets([0], tf.ones([1]), num_classes=1)
    with pytest.raises(ValueError, match="come together"):
        soft_targets([0], tf.ones([1]), num_classes=3, mix=tf.zeros([1]))
    with pytest.raises(ValueError, match="come together"):
        soft_targets([0], tf.ones([1]), num_classes=3, partners=[0])


# --- policies -------------------------------------------------------------------------------------


def _targets_of(policy, batch, num_classes):
    """Dense labels out of what a policy returns."""
    confidence, share = policy(batch)
    true, partner, other = class_shares(
        batch.labels, batch.partners, confidence, share, num_classes
    )
    targets = np.repeat(other.numpy()[:, np.newaxis], num_classes, axis=1)
    rows = np.arange(len(targets))
    same = batch.labels.numpy() == batch.partners.numpy()
    targets[rows, batch.partners] = np.where(same, 0, partner)
    targets[rows, batch.labels] = true
    return targets


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_label_smoothing_is_that_of_keras(num_classes):
    rng = np.random.default_rng(4)
    logits = rng.normal(size=[64, num_classes]).astype(np.float32)
    labels, partners = rng.integers(num_classes, size=[2, 64])
    one_hot = np.eye(num_classes, dtype=np.float32)[labels]
    for smoothing in (0.0, 0.1, 0.5):
        policy = LabelSmoothing(smoothing, num_classes=num_classes)
        for batch in (batch_of(labels), batch_of(labels, partners=partners, mix=[0.3] * 64)):
            targets = _targets_of(policy, batch, num_classes)
            actual = -(targets * np.log(tf.nn.softmax(logits))).sum(axis=-1)
            expected = keras.losses.categorical_crossentropy(
                one_hot, logits, from_logits=True, label_smoothing=smoothing
            )
            np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_one_hot_is_one_hot_even_beside_a_partner():
    targets = _targets_of(OneHot(), batch_of([1, 2], partners=[0, 2], mix=[0.4, 0.4]), 3)
    np.testing.assert_array_equal(targets, [[0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_label_smoothing_refuses_a_mass_out_of_range(smoothing):
    with pytest.raises(ValueError, match="Received: smoothing="):
        LabelSmoothing(smoothing, num_classes=10)


def test_label_smoothing_refuses_one_class():
    with pytest.raises(ValueError, match="at least 2. Received: 1"):
        LabelSmoothing(0.1, num_classes=1)


@pytest.mark.parametrize("policy", [OneHot(), LabelSmoothing(0.3, num_classes=7)])
def test_policies_config_round_trip(policy):
    copy = keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(policy))
    assert type(copy) is type(policy)
    assert copy.get_config() == policy.get_config()


# --- the table ------------------------------------------------------------------------------------


def test_label_table_gathers_by_flat_bucket():
    initial = np.linspace(0.5, 1.0, 6, dtype=np.float32).reshape(2, 3)
    table = LabelTable((2, 3), initial=initial)
    batch = batch_of([0, 0, 0], partners=[0, 1, 1], mix=[0.0, 0.5, 0.1], bucket=[5, 0, 3])
    confidence, share = table(batch)
    np.testing.assert_allclose(confidence, [1.0, 0.5, 0.8], atol=1e-7)
    # min(1 - c, mix/(1 - mix) c): min(0, 0), min(0.5, 0.5), min(0.2, 0.8/9).
    np.testing.assert_allclose(share, [0.0, 0.5, 0.8 / 9], atol=1e-7)


def test_label_table_is_read_anew_by_a_traced_function():
    table = LabelTable((2,))
    batch = batch_of([0, 0], bucket=[0, 1])
    read = tf.function(lambda: table(batch)[0])
    np.testing.assert_array_equal(read(), [1.0, 1.0])
    table.confidence.assign([0.25, 0.5])
    np.testing.assert_array_equal(read(), [0.25, 0.5])


def test_label_table_stays_float32_under_mixed_precision(mixed_precision):
    assert keras.mixed_precision.global_policy().name == mixed_precision
    table = LabelTable((3,), initial=0.9)
    for read in (table, tf.function(table)):
        confidence, share = read(batch_of([0], partners=[1], mix=[0.01], bucket=[2]))
        assert confidence.dtype == share.dtype == tf.float32
        assert confidence.numpy()[0] == np.float32(0.9)
        np.testing.assert_allclose(share, [0.9 / 99], rtol=1e-6)


def test_label_table_is_no_trainable_weight():
    table = LabelTable((2,))
    assert not table.trainable_weights
    assert [tuple(weight.shape) for weight in table.weights] == [(2,)]


def test_label_table_config_round_trip():
    table = LabelTable((2, 2), initial=np.array([[0.1, 0.2], [0.3, 0.4]]), name="labels")
    copy = keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(table))
    assert copy.bucket_shape == (2, 2)
    assert copy.name == "labels"
    np.testing.assert_array_equal(copy.confidence, np.float32([[0.1, 0.2], [0.3, 0.4]]))


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (-0.1, r"initial must lie in \[0, 1\]. Received: initial=-0.1"),
        (1.1, "Received: initial=1.1"),
        (float("nan"), "Received: initial=nan"),
        ([0.5, 0.5], r"initial.shape=\(2,\), bucket_shape=\(3,\)"),
    ],
)
def test_label_table_refuses(initial, message):
    with pytest.raises(ValueError, match=message):
        LabelTable((3,), initial=initial)


def test_clean_images_read_the_first_bucket():
    table = LabelTable((3,), initial=[0.9, 0.6, 0.3])
    confidence, share = table(clean_batch(tf.zeros([2, 4, 4, 1]), [1, 0]))
    np.testing.assert_array_equal(confidence, np.float32([0.9, 0.9]))
    np.testing.assert_array_equal(share, [0.0, 0.0])


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
