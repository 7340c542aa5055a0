import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import (
    LabelSmoothing,
    LabelTable,
    OneHot,
    SoftTargetLoss,
    soft_target_crossentropy,
)
from tests.conftest import numpy_softmax
from tests.keras_autolabel.labels_test import batch_of, section_4_3

ROWS = 200


def _drawn(num_classes: int, dtype) -> tuple:
    """Logits rounded to ``dtype``, labels, partners (half of them the same class), c and mix."""
    rng = np.random.default_rng(num_classes)
    logits = tf.cast(3 * rng.normal(size=[ROWS, num_classes]), dtype)
    labels, partners = rng.integers(num_classes, size=[2, ROWS])
    partners[::2] = labels[::2]
    confidence, mix = np.float32(rng.uniform([[0.0], [0.0]], [[1.0], [0.5]], [2, ROWS]))
    confidence[:4], mix[:4] = [1, 1, 0, 0], [0, 0.5, 0, 0.5]
    return logits, labels, partners, confidence, mix


def _numpy_loss_and_gradient(logits, targets):
    """Cross-entropy and softmax - target, in double precision."""
    logits = np.asarray(tf.cast(logits, tf.float64))
    log_sum = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    return (targets * (log_sum[:, np.newaxis] - logits)).sum(-1), numpy_softmax(logits) - targets


def _loss_and_gradient(loss, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = loss(logits)
    return losses, tf.cast(tape.gradient(losses, logits), tf.float64)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
def test_equals_the_dense_crossentropy_values_and_gradients(num_classes, dtype):
    logits, labels, partners, confidence, mix = _drawn(num_classes, dtype)
    rows = zip(labels, partners, np.float64(confidence), np.float64(mix), strict=True)
    targets = np.array([section_4_3(*row, num_classes) for row in rows])
    expected, expected_gradient = _numpy_loss_and_gradient(logits, targets)
    # The gradient is of the logits' own precision.
    rounding = {"bfloat16": 2.0**-8, "float16": 2.0**-10}.get(dtype, 0.0)
    share = np.minimum(1 - confidence, mix / (1 - mix) * confidence)
    policy = LabelTable((ROWS,), initial=confidence)
    batch = batch_of(labels, partners=partners, mix=mix, bucket=range(ROWS))

    def formula(logits):
        return soft_target_crossentropy(
            labels, logits, confidence, partners=partners, partner_share=share
        )

    for loss in (formula, lambda z: SoftTargetLoss(policy, reduction="none")(batch, z)):
        losses, gradient = _loss_and_gradient(loss, logits)
        np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=rounding, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_gradients_and_of_confidence(compiled):
    logits, labels, partners, confidence, mix = _drawn(5, "float64")
    rows = slice(4, 24)
    labels, partners = labels[rows], partners[rows]
    share = tf.constant(0.5 * np.minimum(1 - confidence, mix)[rows], tf.float64)
    confidence = tf.constant(confidence[rows], tf.float64)

    def gradients(logits, confidence):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([logits, confidence])
            with tf.GradientTape() as inner:
                inner.watch(logits)
                losses = soft_target_crossentropy(
                    labels, logits, confidence, partners=partners, partner_share=share
                )
            gradient = inner.gradient(losses, logits)
            penalty = tf.reduce_sum(gradient**2)
        return outer.gradient(penalty, logits), outer.gradient(losses, confidence)

    if compiled:
        gradients = tf.function(gradients, jit_compile=True)
    second, of_confidence = gradients(logits[rows], confidence)
    softmax = numpy_softmax(logits[rows].numpy())
    true, partner = np.eye(5)[labels], np.eye(5)[partners]
    others = 1 - np.maximum(true, partner)
    spread = others / others.sum(-1, keepdims=True)
    one, part = confidence.numpy()[:, np.newaxis], share.numpy()[:, np.newaxis]
    off = softmax - (one * true + part * partner + (1 - one - part) * spread)
    # The softmax is the only part of the gradient, softmax - target, that knows of the logits.
    expected = 2 * softmax * (off - (softmax * off).sum(-1, keepdims=True))
    np.testing.assert_allclose(second, expected, atol=1e-7)
    expected = (np.log(softmax) * (spread - true)).sum(-1)
    np.testing.assert_allclose(of_confidence, expected, atol=1e-7)


def test_double_precision_is_kept():
    # softmax([ln 6, ln 3, 0]) = [0.6, 0.3, 0.1].
    logits, confidence = np.log([[6.0, 3.0, 1.0]]), tf.constant([0.8], tf.float64)
    expected = -(0.8 * np.log(0.6) + 0.1 * np.log(0.3) + 0.1 * np.log(0.1))
    loss = soft_target_crossentropy([0], logits, confidence)
    np.testing.assert_allclose(loss, [expected], atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4, 1e30])
def test_large_logits_lose_nothing(shift):
    logits = tf.constant([[2.0, 0.0, -1.0]]) + shift
    loss, gradient = _loss_and_gradient(
        lambda z: soft_target_crossentropy([1], z, tf.constant([0.9])), logits
    )
    # At 1e30 the three logits are one number; at 1e4 they are exact in float32.
    exact = np.float64(logits) - np.float64(logits).max()
    expected = _numpy_loss_and_gradient(exact, np.array([[0.05, 0.9, 0.05]]))
    np.testing.assert_allclose(loss, expected[0], atol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-6)


def test_far_apart_logits_are_finite():
    logits = tf.constant([[1e4, -1e4]])
    np.testing.assert_allclose(soft_target_crossentropy([0], logits, tf.constant([1.0])), [0.0])
    np.testing.assert_allclose(soft_target_crossentropy([1], logits, tf.constant([1.0])), [2e4])


# --- masked classes, by logits of -inf ------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("known", [2, 3, 7])
def test_the_loss_with_masked_classes_is_that_of_the_others_alone(known, dtype):
    # Ten classes: those from ``known`` on are masked, in an order of its own in every row.
    logits, labels, partners, confidence, mix = _drawn(known, dtype)
    rows = zip(labels, partners, np.float64(confidence), np.float64(mix), strict=True)
    targets = np.array([section_4_3(*row, known) for row in rows])
    expected, expected_gradient = _numpy_loss_and_gradient(logits, targets)
    place = np.random.default_rng(0).permuted(np.tile(np.arange(10), [ROWS, 1]), axis=1)
    row = np.arange(ROWS)
    masked = np.full([ROWS, 10], -np.inf)
    masked[row[:, np.newaxis], place[:, :known]] = logits
    gradient_of_all = np.zeros([ROWS, 10])
    gradient_of_all[row[:, np.newaxis], place[:, :known]] = expected_gradient
    share = np.minimum(1 - confidence, mix / (1 - mix) * confidence)
    losses, gradient = _loss_and_gradient(
        lambda z: soft_target_crossentropy(
            *(place[row, labels], z, confidence),
            partners=place[row, partners],
            partner_share=share,
        ),
        tf.cast(masked, dtype),
    )
    rounding = {"float16": 2.0**-10}.get(dtype, 0.0)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, gradient_of_all, rtol=rounding, atol=1e-6)


def test_one_hot_labels_with_masked_classes_are_those_of_keras():
    logits, labels, *_ = _drawn(10, "float32")
    mask = np.random.default_rng(1).uniform(size=[ROWS, 10]) < 0.5
    mask[np.arange(ROWS), labels] = False
    logits = tf.where(mask, -np.inf, logits)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    np.testing.assert_allclose(SoftTargetLoss(OneHot())(labels, logits), expected, rtol=1e-6)


def test_a_label_of_a_masked_class_is_infinitely_wrong():
    logits = tf.constant([[0.0, -np.inf, 1.0], [0.0, -np.inf, 1.0], [0.0, -np.inf, -np.inf]])
    losses = soft_target_crossentropy(
        [1, 0, 0],
        logits,
        tf.constant([0.9, 0.7, 0.5]),
        partners=[1, 1, 0],
        partner_share=tf.constant([0.0, 0.3, 0.0]),
    )
    # The third has one class, which is certain.
    np.testing.assert_array_equal(losses, [np.inf, np.inf, 0.0])


# --- the loss of Keras ----------------------------------------------------------------------------


def test_plain_labels_get_the_ordinary_crossentropy():
    logits, labels, *_ = _drawn(10, "float32")
    for y_true in (labels, labels[:, np.newaxis], tf.constant(labels, tf.uint8)):
        actual = SoftTargetLoss(LabelTable((1,), initial=0.2))(y_true, logits)
        expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_reductions_agree():
    logits, labels, *_ = _drawn(3, "float32")
    losses, total, mean = (
        SoftTargetLoss(OneHot(), reduction=reduction)(batch_of(labels), logits).numpy()
        for reduction in ("none", "sum", "sum_over_batch_size")
    )
    assert losses.shape == (ROWS,)
    np.testing.assert_allclose(total, losses.sum(), rtol=1e-5)
    np.testing.assert_allclose(mean, losses.mean(), rtol=1e-5)
    np.testing.assert_array_equal(SoftTargetLoss(OneHot())(batch_of(labels), logits), mean)


def test_mixed_precision_policy_changes_nothing(mixed_precision):
    logits, labels, *_ = _drawn(10, mixed_precision.removeprefix("mixed_"))
    targets = np.array([section_4_3(y, y, 0.9, 0.0, 10) for y in labels])
    expected, _ = _numpy_loss_and_gradient(logits, targets)
    loss = SoftTargetLoss(LabelTable((1,), initial=0.9), reduction="none")
    np.testing.assert_allclose(loss(batch_of(labels), logits), expected, rtol=1e-6, atol=1e-6)


def test_two_updates_reach_a_traced_loss():
    table = LabelTable((1,))
    logits = tf.constant([[1.0, 0.0]])
    loss = tf.function(SoftTargetLoss(table).call)
    for confidence in (1.0, 0.6):
        table.confidence.assign([confidence])
        expected = np.log(1 + np.e) - confidence
        np.testing.assert_allclose(loss(batch_of([0]), logits), [expected], rtol=1e-6)


def test_no_dense_target_is_built():
    traced = tf.function(soft_target_crossentropy).get_concrete_function(
        tf.TensorSpec([8], tf.int32), tf.TensorSpec([8, 50]), tf.TensorSpec([8])
    )
    assert "OneHot" not in {operation.type for operation in traced.graph.get_operations()}


def test_config_round_trip():
    loss = SoftTargetLoss(LabelSmoothing(0.3, num_classes=5), reduction="sum", name="soft")
    copy = keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(loss))
    assert (copy.name, copy.reduction) == ("soft", "sum")
    assert copy.policy.get_config() == {"smoothing": 0.3, "num_classes": 5}
