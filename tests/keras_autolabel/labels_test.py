import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import LabelTable, soft_targets, update_confidence
from keras_autolabel.batch import AugmentedBatch, clean_batch
from keras_autolabel.labels import class_shares, mixup_share, update_confidence_together


def batch_of(labels, *, partners=None, mix=None, distance=None, bucket=None) -> AugmentedBatch:
    """A batch without images."""
    zeros = np.zeros(len(labels))
    return AugmentedBatch(
        images=tf.zeros([len(labels), 1, 1, 1]),
        labels=tf.constant(labels, tf.int32),
        partners=tf.constant(labels if partners is None else partners, tf.int32),
        mix=tf.constant(zeros if mix is None else mix, tf.float32),
        distance=tf.constant(zeros if distance is None else distance, tf.float32),
        bucket=tf.constant(zeros if bucket is None else bucket, tf.int32),
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
    # Over-confident, under-confident, equal; stopped by Acc, by the floor twice, by 1.
    updated = update_confidence(
        [[0.8, 0.8, 0.8], [0.8, 0.8, 0.3], [0.9, 0.2, 0.9]],
        ece=[[0.1, 0.1, 0.1], [0.5, 1.0, 1.0], [1.0, 0.2, 0.0]],
        conf=[[0.7, 0.5, 0.6], [0.9, 1.0, 1.0], [0.0, 0.5, 0.3]],
        acc=[[0.6, 0.6, 0.6], [0.65, 0.0, 0.0], [0.3, 0.6, 0.2]],
        step_size=0.5,
        floor=0.35,
    )
    expected = [[0.75, 0.85, 0.8], [0.65, 0.35, 0.35], [1.0, 0.6, 0.9]]
    np.testing.assert_allclose(updated, expected, atol=1e-7)
    unfloored = update_confidence([0.3], ece=[1.0], conf=[1.0], acc=[0.0], step_size=0.5)
    np.testing.assert_array_equal(unfloored, [0.0])


@pytest.mark.parametrize("missing", ["ece", "conf", "acc"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_update_confidence_keeps_a_bucket_that_is_not_finite(missing, value):
    measured = {"ece": [0.1, 0.1], "conf": [0.9, 0.9], "acc": [0.5, 0.5]}
    measured[missing][0] = value
    updated = update_confidence([0.8, 0.8], step_size=1.0, **measured)
    np.testing.assert_allclose(updated, [0.8, 0.7], atol=1e-7)


# --- one step for all labels ----------------------------------------------------------------------


def test_update_confidence_together_by_hand():
    measured = {
        # Signed errors 0.1, −0.2, 0.3 and 0: 0.05 on average, half of it for α.
        "ece": [[0.1, 0.2], [0.3, 0.4]],
        "conf": [[0.7, 0.5], [0.9, 0.6]],
        "acc": [[0.6, 0.7], [0.2, 0.6]],
        "step_size": 0.5,
    }
    table = [[0.8, 0.99], [0.3, 0.605]]

    def updated(clean_conf, clean_acc, **options):
        clean = {"clean_conf": clean_conf, "clean_acc": clean_acc}
        return update_confidence_together(table, **measured, **clean, **options).numpy()

    # Calibrated on clean images: all fall by 0.025, the last to its Acc.
    np.testing.assert_allclose(updated(0.7, 0.7), [[0.775, 0.965], [0.275, 0.6]], atol=1e-6)
    # Under-confident by 0.1 there: all rise by 0.5 · (0.1 − 0.05), one to 1.
    np.testing.assert_allclose(
        updated(0.6, 0.7, clean_weight=1.0), [[0.825, 1.0], [0.325, 0.63]], atol=1e-6
    )
    # κ is 3 by default: 0.5 · (0.3 − 0.05).
    np.testing.assert_allclose(updated(0.6, 0.7), [[0.925, 1.0], [0.425, 0.73]], atol=1e-6)
    # At κ = 0.5 the two cancel; over-confident there, they add up; the floor is the larger bound.
    np.testing.assert_allclose(updated(0.6, 0.7, clean_weight=0.5), table, atol=1e-6)
    np.testing.assert_allclose(
        updated(0.8, 0.7, clean_weight=0.5, floor=0.28), [[0.75, 0.94], [0.28, 0.6]], atol=1e-6
    )


@pytest.mark.parametrize("missing", ["ece", "conf", "acc"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_update_confidence_together_leaves_out_a_bucket_that_is_not_finite(missing, value):
    measured = {"ece": [0.3, 0.1], "conf": [0.9, 0.9], "acc": [0.5, 0.5]}
    measured[missing][0] = value
    clean = {"clean_conf": 0.7, "clean_acc": 0.7}
    updated = update_confidence_together([0.8, 0.8], step_size=1.0, **measured, **clean)
    np.testing.assert_allclose(updated, [0.8, 0.7], atol=1e-7)


@pytest.mark.parametrize("missing", ["ece", "clean_conf", "clean_acc"])
def test_update_confidence_together_keeps_all_where_nothing_is_known(missing):
    measured = {"ece": [0.3, 0.1], "conf": [0.9, 0.9], "acc": [0.5, 0.5]}
    measured |= {"clean_conf": 0.7, "clean_acc": 0.6}
    measured[missing] = np.full_like(measured[missing], np.nan)
    updated = update_confidence_together([0.8, 0.7], step_size=1.0, **measured)
    np.testing.assert_array_equal(updated, np.float32([0.8, 0.7]))


# --- Eq. (2) and section 4.3 ----------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 4, 10, 100])
def test_soft_targets_equal_section_4_3(num_classes):
    rng = np.random.default_rng(1)
    labels, partners = rng.integers(num_classes, size=[2, 2000])
    partners[:500] = labels[:500]
    confidence, mix = rng.uniform([[0.0], [0.0]], [[1.0], [0.5]], [2, 2000])
    confidence[500:600], mix[600:700], mix[700:800] = 1.0, 0.0, 0.5
    rows = zip(labels, partners, confidence, mix, strict=True)
    expected = [section_4_3(*row, num_classes) for row in rows]
    for dtype, atol in ((np.float64, 1e-12), (np.float32, 1e-6)):
        targets = soft_targets(
            *(labels, confidence.astype(dtype)),
            num_classes=num_classes,
            partners=partners,
            mix=mix.astype(dtype),
        )
        assert targets.dtype == dtype and targets.numpy().min() >= 0.0
        np.testing.assert_allclose(targets, expected, atol=atol)
        np.testing.assert_allclose(targets.numpy().sum(axis=-1), 1.0, atol=atol)


def test_soft_targets_without_partner_are_eq_2():
    targets = soft_targets([2, 0], tf.constant([0.7, 0.1], tf.float64), num_classes=4)
    expected = [[0.1, 0.1, 0.7, 0.1], [0.1, 0.3, 0.3, 0.3]]
    np.testing.assert_allclose(targets, expected, atol=1e-12)


def test_mixup_share_by_hand():
    # gamma/(1 - gamma) is 1/3 at 0.25 and 1 at 0.5.
    share = mixup_share(tf.constant([0.6, 0.9, 0.6, 0.3]), tf.constant([0.25, 0.25, 0.5, 0.0]))
    np.testing.assert_allclose(share, [0.2, 0.1, 0.4, 0.0], atol=1e-7)


def test_labels_refuse_one_class_and_half_a_partner():
    with pytest.raises(ValueError, match="num_classes=1"):
        class_shares([0], [0], tf.ones([1]), tf.zeros([1]), 1)
    for half in ({"mix": tf.zeros([1])}, {"partners": [0]}):
        with pytest.raises(ValueError, match="partners"):
            soft_targets([0], tf.ones([1]), num_classes=3, **half)


# --- the table ------------------------------------------------------------------------------------


def test_label_table_gathers_by_flat_bucket():
    initial = np.linspace(0.5, 1.0, 6, dtype=np.float32).reshape(2, 3)
    table = LabelTable((2, 3), initial=initial)
    batch = batch_of([0, 0, 0], partners=[0, 1, 1], mix=[0.0, 0.5, 0.1], bucket=[5, 0, 3])
    confidence, share = table(batch)
    np.testing.assert_allclose(confidence, [1.0, 0.5, 0.8], atol=1e-7)
    # min(1 - c, mix/(1 - mix) c): min(0, 0), min(0.5, 0.5), min(0.2, 0.8/9).
    np.testing.assert_allclose(share, [0.0, 0.5, 0.8 / 9], atol=1e-7)
    confidence, share = table(clean_batch(tf.zeros([2, 4, 4, 1]), [1, 0]))
    np.testing.assert_array_equal(confidence, [0.5, 0.5])
    np.testing.assert_array_equal(share, [0.0, 0.0])


def test_label_table_stays_float32_under_mixed_precision(mixed_precision):
    assert keras.mixed_precision.global_policy().name == mixed_precision
    table = LabelTable((3,), initial=0.9)
    for read in (table, tf.function(table)):
        confidence, share = read(batch_of([0], partners=[1], mix=[0.01], bucket=[2]))
        assert confidence.dtype == share.dtype == tf.float32
        assert confidence.numpy()[0] == np.float32(0.9)
        np.testing.assert_allclose(share, [0.9 / 99], rtol=1e-6)


def test_label_table_is_one_weight_that_is_not_trained():
    table = LabelTable((2,))
    assert table.built and not table.trainable
    # Nor if the model around it is set to be trained as a whole.
    table.trainable = True
    assert not table.trainable_weights
    assert [tuple(weight.shape) for weight in table.weights] == [(2,)]
    np.testing.assert_array_equal(table.confidence, [1.0, 1.0])
    assert table.output_shape == table.compute_output_shape(None) == (2,)


@pytest.mark.parametrize(
    ("initial", "received"),
    [
        *((-0.1, "-0.1"), (1.1, "1.1"), (float("nan"), "nan"), ([0.5, 1.1, 0.5], "1.1")),
        ([0.5, 0.6], r"\(2,\), .*\(3,\)"),
    ],
)
def test_label_table_refuses_a_start_that_is_none(initial, received):
    with pytest.raises(ValueError, match=received):
        LabelTable((3,), initial=initial)
    np.testing.assert_array_equal(LabelTable((2,), initial=[0.0, 1.0]).confidence, [0.0, 1.0])


@pytest.mark.parametrize("shape", [(), 3, (3, 0), (2.5,), (True,)])
def test_label_table_refuses_a_shape_that_is_none(shape):
    with pytest.raises(ValueError, match="bucket_shape="):
        LabelTable(shape)
