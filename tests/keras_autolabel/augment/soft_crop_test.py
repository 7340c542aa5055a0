import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_autolabel import PowerLabels, SoftCrop, SoftTargetLoss
from keras_autolabel.augment.soft_crop import SoftCropDraw
from keras_autolabel.batch import clean_batch
from tests.conftest import numpy_softmax
from tests.keras_autolabel.augment.conftest import assert_independent, cells_of

SEED = tf.constant([5, 6])


def test_apply_by_hand():
    # A quarter of 4 rows down, half of 6 columns to the left: what is left of the image is 3×3.
    image = np.arange(24, dtype=np.uint8).reshape(1, 4, 6, 1)
    drawn = SoftCropDraw(tf.constant([0.625]), tf.constant([6]), tf.constant([[0.25, -0.5]]))
    batch = SoftCrop().apply(tf.constant(image), tf.constant([3]), drawn)
    expected = np.zeros_like(image)
    expected[0, 1:, :3] = image[0, :3, 3:]
    np.testing.assert_allclose(batch.images, expected / 255.0, atol=1e-6)
    np.testing.assert_array_equal(batch.distance, np.float32([0.625]))


@pytest.mark.parametrize("sigma", [0.1, 0.3, 2.0])
def test_shifts_are_a_normal_distribution_inside_the_image(sigma):
    drawn = SoftCrop(sigma=sigma).draw(tf.zeros([20_000], tf.int32), SEED)
    shift = drawn.shift.numpy().astype(np.float64)
    for axis in range(2):
        truncated = stats.truncnorm(-1 / sigma, 1 / sigma, scale=sigma)
        assert stats.kstest(shift[:, axis], truncated.cdf).pvalue > 0.01
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.03
    seen = (1 - np.abs(shift[:, 0])) * (1 - np.abs(shift[:, 1]))
    np.testing.assert_allclose(drawn.distance, 1.0 - seen, atol=1e-6)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_an_image_at_the_end_of_the_distribution_is_lost_just_so(sign, monkeypatch):
    # In single precision erf is 1 here, whose inverse is infinite.
    def at_the_end(shape, seed, minval, maxval):
        return tf.fill(shape, sign * maxval)

    monkeypatch.setattr(tf.random, "stateless_uniform", at_the_end)
    drawn = SoftCrop(num_buckets=4, sigma=0.1).draw(tf.zeros([3], tf.int32), SEED)
    np.testing.assert_array_equal(drawn.shift, np.full([3, 2], sign))
    np.testing.assert_array_equal(drawn.distance, [1.0] * 3)
    np.testing.assert_array_equal(drawn.bucket, [3] * 3)


def test_inside_a_bucket_both_directions_lose_alike():
    drawn = SoftCrop(num_buckets=4).draw(tf.zeros([20_000], tf.int32), SEED, bucket=2)
    shift = drawn.shift.numpy().astype(np.float64)
    seen = 1.0 - np.abs(shift)
    np.testing.assert_allclose(1.0 - seen.prod(axis=1), drawn.distance, atol=1e-6)
    share = np.log(seen[:, 0]) / np.log(seen).sum(axis=1)
    assert stats.kstest(share, "uniform").pvalue > 0.01
    forward = (shift > 0).astype(int)
    np.testing.assert_allclose(forward.mean(axis=0), 0.5, atol=0.02)
    # Also in the order in which the numbers of a seed that is used twice would come again.
    assert_independent(
        distance=cells_of(drawn.distance, 0.5, 0.75),
        share=cells_of(share, 0, 1),
        **{"down": forward[:, 0], "right": forward[:, 1]},
        in_a_row=forward.ravel()[: len(share)],
    )


def test_power_labels_that_weigh_the_loss_by_hand():
    # Soft augmentation: 1 − (1 − 1/K)·d^k, the rest spread evenly; the loss weighted by it.
    distance = np.array([0.0, 0.3, 1.0])
    logits = np.random.default_rng(0).normal(size=[3, 4])
    confidence = 1 - 0.75 * distance**1.5
    targets = np.full([3, 4], ((1 - confidence) / 3)[:, np.newaxis])
    targets[np.arange(3), [2, 0, 1]] = confidence
    losses = -(targets * np.log(numpy_softmax(logits))).sum(axis=1)
    policy = PowerLabels(num_classes=4, exponent=1.5, weighs_loss=True)
    batch = clean_batch(tf.zeros([3, 2, 2, 1]), [2, 0, 1])
    batch = batch._replace(distance=tf.constant(distance, tf.float32))
    actual = SoftTargetLoss(policy, reduction="none")(batch, tf.constant(logits, tf.float32))
    np.testing.assert_allclose(actual, losses * confidence, rtol=1e-5)
