import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_autolabel import CutMix, Mixup
from keras_autolabel.augment.cutmix import CutMixDraw
from tests.keras_autolabel.augment.conftest import assert_uniform, cells_of

SEED = tf.constant([5, 6])


def _drawn(distance, inside, position) -> CutMixDraw:
    size = len(distance)
    return CutMixDraw(
        distance=tf.constant(distance, tf.float32),
        bucket=tf.zeros([size], tf.int32),
        partner=tf.constant(np.roll(np.arange(size), -1), tf.int32),
        inside=tf.constant(inside),
        position=tf.constant(position, tf.float32),
    )


def test_apply_by_hand():
    # A quarter of the area is a box of half the sides: 2 of 4 rows, 3 of 6 columns.
    images = np.stack([np.zeros([4, 6, 1]), np.ones([4, 6, 1])]).astype(np.float32)
    drawn = _drawn([0.5, 0.5], [False, True], [[0.0, 1.0], [0.5, 0.0]])
    batch = CutMix().apply(tf.constant(images), tf.constant([3, 7]), drawn)
    expected = images.copy()
    expected[0, :2, 3:] = 1.0
    # The second image is the larger share, inside a box of the area 3/4 whose corner is given:
    # sides √¾ of 4 and 6, half way down the room that is left, at the left edge.
    rows, columns = 4 * 0.75**0.5, 6 * 0.75**0.5
    top = (4 - rows) / 2
    edges = np.arange(4)
    covered = np.clip(np.minimum(top + rows, edges + 1) - np.maximum(top, edges), 0, 1)
    across = np.clip(np.minimum(columns, np.arange(6) + 1) - np.arange(6), 0, 1)
    expected[1, :, :, 0] = covered[:, np.newaxis] * across
    np.testing.assert_allclose(batch.images, expected, atol=1e-6)
    np.testing.assert_array_equal(batch.labels, [3, 7])
    np.testing.assert_array_equal(batch.partners, [7, 3])
    np.testing.assert_array_equal(batch.mix, [0.25, 0.25])
    np.testing.assert_allclose(np.mean(batch.images, axis=(1, 2, 3)), [0.25, 0.75], atol=1e-6)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_areas_are_those_of_beta(beta):
    drawn = CutMix(num_buckets=7, beta=beta).draw(tf.zeros([20_000], tf.int32), SEED)
    mix = drawn.distance.numpy() / 2.0
    # With the box that shows the image itself counted as 1 − mix, areas are Beta(β, β).
    area = np.where(drawn.inside, 1.0 - mix, mix)
    assert stats.kstest(area, stats.beta(beta, beta).cdf).pvalue > 0.01
    assert drawn.position.shape == (20_000, 2)
    for position in drawn.position.numpy().T:
        assert_uniform(cells_of(position, 0, 1), 20)
    assert sorted(drawn.partner.numpy()) == list(range(20_000))


def test_labels_start_at_the_larger_share():
    np.testing.assert_allclose(CutMix(num_buckets=2).initial_confidence, [0.875, 0.625])
    assert CutMix.offers == Mixup.offers
