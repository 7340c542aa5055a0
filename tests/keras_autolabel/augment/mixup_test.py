import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, special, stats
from tensorflow import keras

from keras_autolabel import AutoLabel, AutoLabelModel, Mixup
from keras_autolabel.augment.mixup import MixupDraw
from tests.conftest import linear_network
from tests.keras_autolabel.augment.conftest import assert_independent, assert_uniform, cells_of

SEED = tf.constant([2, 3])
LABELS = tf.zeros([100_000], tf.int32)


# --- draw -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.2, 1.0, 4.0])
def test_half_the_distance_is_the_smaller_share_of_beta(beta):
    mix = Mixup(beta=beta).draw(LABELS, SEED).distance.numpy().astype(np.float64) / 2
    # P(min(γ, 1 − γ) <= m) = P(γ <= m) + P(γ >= 1 − m), and Beta(β, β) is symmetric.
    test = stats.kstest(mix, lambda m: 2.0 * stats.beta.cdf(m, beta, beta))
    assert test.pvalue > 1e-3, test
    assert 0.0 <= mix.min() and mix.max() <= 0.5


@pytest.mark.parametrize("beta", [0.05, 0.01, 1e-4, 1e-6, 1e6])
def test_the_smallest_and_the_largest_beta_mix_as_they_should(beta):
    # Gamma variables of a small β are far below the smallest float.
    mix = Mixup(beta=beta).draw(LABELS, SEED).distance.numpy() / 2
    for limit in (1e-6, 0.01, 0.4, 0.4993):
        expected = 1.0 - 2.0 * stats.beta.cdf(limit, beta, beta)
        # Five standard deviations of a share of so many draws.
        tolerance = 5.0 * np.sqrt(max(expected * (1.0 - expected), 1e-5) / len(mix))
        np.testing.assert_allclose(np.mean(mix > limit), expected, atol=tolerance)


def test_partners_are_uniform_permutations_and_independent_of_the_mixes():
    # 24,000 batches of four.
    mixup, labels = Mixup(), tf.zeros([4], tf.int32)
    seeds = tf.stack([tf.range(24_000) % 160, tf.range(24_000)], axis=1)
    draw = tf.function(
        lambda: tf.map_fn(
            lambda seed: mixup.draw(labels, seed)[::2],
            seeds,
            fn_output_signature=(tf.float32, tf.int32),
        )
    )
    distance, partner = (field.numpy() for field in draw())
    np.testing.assert_array_equal(np.sort(partner, axis=1), [[0, 1, 2, 3]] * len(partner))
    assert_uniform(np.unique(partner, axis=0, return_inverse=True)[1], 24)
    cells = cells_of(distance, 0, 1, cells=4)
    assert_independent(first=cells[:, 0], second=cells[:, 1], partner=partner[:, 0])


def test_partners_are_rows_of_the_replica_drawn_apart(monkeypatch):
    labels, shuffle = LABELS[:6], tf.random.experimental.stateless_shuffle
    whole = Mixup().draw(LABELS[:12], SEED)
    for module in ("distribution", "augment.augmentation", "augment.mixup"):
        monkeypatch.setattr(f"keras_autolabel.{module}.replicas", lambda: (1, 2), raising=False)
    own = Mixup().draw_own(labels, SEED)
    of_replica = shuffle(tf.range(6), tf.random.experimental.stateless_fold_in(SEED, 1))
    np.testing.assert_array_equal(own.partner, of_replica)
    np.testing.assert_array_equal(own.distance, whole.distance[6:])


# --- apply ----------------------------------------------------------------------------------------


def test_eq_4_by_hand():
    images = np.array([0, 255, 51], np.uint8).reshape(3, 1, 1, 1) * np.ones([1, 2, 2, 1], np.uint8)
    drawn = MixupDraw(tf.constant([0.5, 1.0, 0.2]), tf.constant([2, 4, 0]), tf.constant([1, 2, 0]))
    batch = Mixup(num_buckets=5).apply(images, tf.constant([7, 8, 9]), drawn)
    # 0.75·0 + 0.25·1; 0.5·1 + 0.5·0.2; 0.9·0.2 + 0.1·0.
    np.testing.assert_allclose(batch.images[:, 1, 0, 0], [0.25, 0.6, 0.18], atol=1e-6)
    np.testing.assert_array_equal(batch.labels, [7, 8, 9])
    np.testing.assert_array_equal(batch.partners, [8, 9, 7])
    np.testing.assert_allclose(batch.mix, [0.25, 0.5, 0.1])
    np.testing.assert_allclose(batch.distance, [0.5, 1.0, 0.2])
    np.testing.assert_array_equal(batch.bucket, [2, 4, 0])


def test_labels_start_at_ordinary_mixup():
    # γ at the middle of bucket n of 5 is 0.05, 0.15, ...
    model = AutoLabelModel(linear_network((2, 2, 1), 3), Mixup(num_buckets=5), num_classes=3)
    expected = [0.95, 0.85, 0.75, 0.65, 0.55]
    np.testing.assert_allclose(model.label_policy.confidence, expected, rtol=1e-6)


# --- the pass over the hold-out -------------------------------------------------------------------


@pytest.mark.parametrize("examples_per_bucket", [None, 3000])
def test_partners_on_the_holdout_come_from_all_of_it(examples_per_bucket):
    # The first half is black and of class 0, the second half white and of class 1.
    half, steepness, num_buckets = 2000, 6.0, 2
    images = np.repeat([0, 255], half).astype(np.uint8).reshape(-1, 1, 1, 1)
    labels = np.repeat([0, 1], half)
    network = linear_network((1, 1, 1), 2)
    network.set_weights([np.array([[0.0, 2 * steepness]]), np.array([steepness, 0.0])])
    model = AutoLabelModel(network, Mixup(num_buckets=num_buckets), num_classes=2)
    model.compile(keras.optimizers.SGD(0.0))
    callback = AutoLabel((images, labels), examples_per_bucket=examples_per_bucket)
    callback.set_model(model)
    callback.on_train_begin()
    _, confidence, accuracy = callback.measure(epoch=0)
    # A pixel p gives logits (6, 12 p). With a partner of its own half an image is as it was and
    # its confidence σ(6); with one of the other half it is σ(6 - 12 m), m uniform in the bucket.
    alone = special.expit(steepness)
    for n in range(num_buckets):
        low, high = n / (2 * num_buckets), (n + 1) / (2 * num_buckets)
        area, _ = integrate.quad(lambda m: special.expit(steepness - 2 * steepness * m), low, high)
        expected = 0.5 * alone + 0.5 * area / (high - low)
        # Each half of the batch mixes with the other one as often as with itself.
        np.testing.assert_allclose(confidence[n], expected, atol=0.006 if n else 0.002)
    assert alone - confidence[1] > 0.1
    np.testing.assert_array_equal(accuracy, [1.0, 1.0])
