import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, special, stats
from tensorflow import keras

from keras_autolabel import AutoLabel, AutoLabelModel, LabelTable, Mixup, SoftTargetLoss
from keras_autolabel.augment.mixup import MixupDraw
from tests.conftest import linear_network, numpy_softmax

DRAWS = 100_000
SEED = tf.constant([2, 3])


def _assert_uniform(index: np.ndarray, cells: int) -> None:
    counts = np.bincount(np.ravel(index), minlength=cells)
    assert len(counts) == cells
    if cells > 1:
        assert stats.chisquare(counts).pvalue > 1e-3, counts


def _assert_same(first, second) -> None:
    # A graph may multiply by 1/255 where 255 is divided by: one unit in the last place.
    np.testing.assert_allclose(first.images, second.images, atol=2e-7)
    for name in ("labels", "partners", "bucket"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("mix", "distance"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=2e-7)


# --- draw -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.2, 1.0, 4.0])
def test_mix_is_the_smaller_share_of_beta(beta):
    mix = Mixup(beta=beta).draw(tf.zeros([DRAWS], tf.int32), SEED).distance.numpy() / 2
    # P(min(γ, 1 - γ) <= m) = P(γ <= m) + P(γ >= 1 - m), and Beta(β, β) is symmetric.
    test = stats.kstest(mix.astype(np.float64), lambda m: 2.0 * stats.beta.cdf(m, beta, beta))
    assert test.pvalue > 1e-3, test
    assert 0.0 <= mix.min() and mix.max() <= 0.5


@pytest.mark.parametrize("beta", [1e-6, 1e6])
def test_the_smallest_and_the_largest_beta_draw_a_share(beta):
    mix = Mixup(beta=beta).draw(tf.zeros([DRAWS], tf.int32), SEED).distance.numpy() / 2
    # Beta(1e-6, 1e-6) is 0 or 1 but for a few in a million; Beta(1e6, 1e6) is 0.5 ± 0.00035.
    assert np.mean(np.abs(mix - (0.0 if beta < 1 else 0.5)) < 0.002) > 0.999


def test_a_tiny_beta_mixes_as_little_as_it_should():
    # Gamma variables of such a β are far below the smallest float.
    for beta in (0.05, 0.01, 1e-4):
        mix = Mixup(beta=beta).draw(tf.zeros([DRAWS], tf.int32), SEED).distance.numpy() / 2
        for limit in (1e-6, 0.01, 0.4):
            expected = 1.0 - 2.0 * stats.beta.cdf(limit, beta, beta)
            # Five standard deviations of a share of so many draws.
            tolerance = 5.0 * np.sqrt(max(expected, 1e-5) / DRAWS)
            np.testing.assert_allclose(np.mean(mix > limit), expected, atol=tolerance)


@pytest.fixture(scope="module")
def many_small_batches() -> tuple[np.ndarray, np.ndarray]:
    """Partners and mixes of 24,000 batches of four: [24000, 4] each."""
    mixup, labels = Mixup(), tf.zeros([4], tf.int32)
    seeds = tf.stack([tf.range(24_000) % 160, tf.range(24_000)], axis=1)

    def draw(seed):
        drawn = mixup.draw(labels, seed)
        return drawn.partner, drawn.distance / 2.0

    draw_all = tf.function(
        lambda: tf.map_fn(draw, seeds, fn_output_signature=(tf.int32, tf.float32))
    )
    partner, mix = draw_all()
    return partner.numpy(), mix.numpy()


def test_partners_are_uniform_permutations(many_small_batches):
    partner, _ = many_small_batches
    np.testing.assert_array_equal(np.sort(partner, axis=1), [[0, 1, 2, 3]] * len(partner))
    _, permutation = np.unique(partner, axis=0, return_inverse=True)
    _assert_uniform(permutation, 24)


def test_mixes_of_a_batch_are_independent_of_each_other_and_of_the_partner(many_small_batches):
    partner, mix = many_small_batches
    quarter = np.minimum((8 * mix).astype(int), 3)
    for second in (partner[:, 0], quarter[:, 1]):
        counts = np.zeros([4, 4])
        np.add.at(counts, (quarter[:, 0], second), 1)
        assert stats.chi2_contingency(counts).pvalue > 1e-3, counts


@pytest.mark.parametrize("num_buckets", [1, 3, 10])
def test_bucket_and_distance_of_the_training_distribution(num_buckets):
    mixup, labels = Mixup(num_buckets=num_buckets), tf.zeros([DRAWS], tf.int32)
    drawn = mixup.draw(labels, SEED)
    batch = mixup.apply(tf.zeros([DRAWS, 1, 1, 1]), labels, drawn)
    np.testing.assert_array_equal(batch.distance, drawn.distance.numpy())
    # Bucket n holds distances in (n/N, (n+1)/N]; single precision decides on the edges alone.
    position = batch.distance.numpy().astype(np.float64) * num_buckets
    n = batch.bucket.numpy()
    assert np.all((n - 1e-5 < position) & (position < n + 1 + 1e-5))
    assert 0 <= n.min() and n.max() == num_buckets - 1
    # β = 1 draws γ uniformly, so that the distance is uniform too.
    _assert_uniform(n, num_buckets)


@pytest.mark.parametrize("num_buckets", [1, 4, 10])
def test_a_given_bucket_is_filled_uniformly(num_buckets):
    bucket = tf.range(20_000) % num_buckets
    drawn = Mixup(num_buckets=num_buckets, beta=0.2).draw(tf.zeros_like(bucket), SEED, bucket)
    np.testing.assert_array_equal(drawn.bucket, bucket)
    position = drawn.distance.numpy() * num_buckets - bucket.numpy()
    assert -1e-5 < position.min() <= position.max() < 1 + 1e-5
    _assert_uniform(np.clip(20 * position, 0, 19).astype(int), 20)


# --- apply ----------------------------------------------------------------------------------------


def test_apply_by_hand():
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


@pytest.mark.parametrize("beta", [0.2, 1.0, 8.0])
def test_the_pixels_say_which_class_dominates_and_by_how_much(beta):
    # Image i is white at pixel i alone: pixel i of a mixed image is the weight of image i.
    size = 64
    images = np.eye(size, dtype=np.float32).reshape(size, 8, 8, 1)
    labels = np.random.default_rng(0).permutation(size)
    batch = Mixup(beta=beta)(images, labels, seed=SEED)
    weights = batch.images.numpy().reshape(size, size)
    order = np.argsort(weights, axis=1)
    first, second = order[:, -1], order[:, -2]
    mixed = weights[np.arange(size), second] > 0.0
    assert mixed.sum() > size / 2
    np.testing.assert_array_equal(batch.labels, labels[first])
    np.testing.assert_array_equal(batch.partners[mixed], labels[second[mixed]])
    np.testing.assert_allclose(batch.mix[mixed], weights[mixed, second[mixed]], atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    # Labels and sample weights stay in their rows.
    np.testing.assert_array_equal(batch.labels, labels)


# --- labels of what was mixed ---------------------------------------------------------------------


def _loss(num_classes, labels, partners, mix, confidence, logits) -> np.ndarray:
    """``SoftTargetLoss`` of a batch that was mixed as told, its table full of one confidence."""
    # Two images a row: the even rows are what is looked at, the odd ones are their partners.
    classes = np.stack([labels, partners], axis=1).ravel()
    rows = np.arange(len(classes)).reshape(-1, 2)[:, ::-1].ravel()
    weight = np.repeat(mix, 2).astype(np.float32)
    bucket = tf.zeros([len(rows)], tf.int32)
    drawn = MixupDraw(tf.constant(2 * weight), bucket, tf.constant(rows))
    batch = Mixup(num_buckets=1).apply(tf.zeros([len(rows), 1, 1, 1]), classes, drawn)
    table = LabelTable((1,), initial=confidence)
    loss = SoftTargetLoss(table, reduction="none")
    return loss.call(batch, tf.constant(np.repeat(logits, 2, axis=0), tf.float32)).numpy()[::2]


LOGITS = np.array([[1.0, -0.5, 0.25, 2.0]])


def _crossentropy(targets, logits) -> np.ndarray:
    return -(targets * np.log(numpy_softmax(logits))).sum(axis=-1)


def test_two_classes_share_as_section_4_3_says():
    # ỹ = 0.6, γ = 0.3: the partner gets min(0.4, 3/7·0.6 = 0.2571), the other two 0.0714 each.
    actual = _loss(4, [2], [0], [0.3], 0.6, LOGITS)
    share = 0.3 / 0.7 * 0.6
    rest = (1.0 - 0.6 - share) / 2
    expected = _crossentropy(np.array([[share, rest, 0.6, rest]]), LOGITS)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_the_same_class_twice_gets_both_shares():
    actual = _loss(4, [2], [2], [0.3], 0.6, LOGITS)
    both = 0.6 + 0.3 / 0.7 * 0.6
    rest = (1.0 - both) / 3
    expected = _crossentropy(np.array([[rest, rest, both, rest]]), LOGITS)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("partner", "target"), [(0, [0.4, 0.6]), (1, [1 - 0.6 - 0.18 / 0.7, 0.6 + 0.18 / 0.7])]
)
def test_of_two_classes_the_partner_gets_what_is_left(partner, target):
    logits = LOGITS[:, :2]
    actual = _loss(2, [1], [partner], [0.3], 0.6, logits)
    np.testing.assert_allclose(actual, _crossentropy(np.array([target]), logits), rtol=1e-6)


def test_labels_start_at_ordinary_mixup():
    # γ at the middle of bucket n of 5 is 0.05, 0.15, ...
    expected = [0.95, 0.85, 0.75, 0.65, 0.55]
    mixup = Mixup(num_buckets=5)
    np.testing.assert_allclose(mixup.initial_confidence, expected)
    model = AutoLabelModel(linear_network((2, 2, 1), 3), mixup, num_classes=3)
    np.testing.assert_allclose(model.label_policy.confidence, expected, rtol=1e-6)
    # Mean of 1 - γ over what is drawn inside a bucket.
    bucket = tf.range(50_000) % 5
    mix = (mixup.draw(bucket, SEED, bucket).distance / 2).numpy().reshape(-1, 5)
    np.testing.assert_allclose(1.0 - mix.mean(axis=0), expected, atol=2e-3)


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


# --- a tiny fit -----------------------------------------------------------------------------------


def test_one_step_of_training_with_the_first_labels():
    rng = np.random.default_rng(3)
    images, labels = rng.uniform(size=[8, 2, 2, 1]).astype(np.float32), rng.integers(3, size=8)
    model = AutoLabelModel(linear_network((2, 2, 1), 3), Mixup(num_buckets=4), num_classes=3)
    model.compile(keras.optimizers.SGD(0.5))
    weights, bias = model.network.get_weights()
    batch = model.augment(tf.constant(images), tf.constant(labels))
    history = model.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history
    # Section 4.3, one example after the other; 1 - (n + 0.5)/8 is the first label of bucket n.
    targets = np.zeros([8, 3])
    for row, (y, p, m, n) in enumerate(
        zip(labels, batch.partners.numpy(), batch.mix.numpy(), batch.bucket.numpy(), strict=True)
    ):
        confidence = 1.0 - (n + 0.5) / 8
        share = min(1.0 - confidence, m / (1.0 - m) * confidence)
        left = 1.0 - confidence - share
        targets[row] = left / (1 if y != p else 2)
        targets[row, p] = share
        targets[row, y] = confidence + (share if y == p else 0.0)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-6)
    inputs = batch.images.numpy().reshape(8, 4).astype(np.float64)
    logits = inputs @ weights + bias
    np.testing.assert_allclose(history["loss"], [_crossentropy(targets, logits).mean()], rtol=1e-5)
    gradient = (numpy_softmax(logits) - targets) / 8
    after = model.network.get_weights()
    np.testing.assert_allclose(after[0], weights - 0.5 * inputs.T @ gradient, atol=1e-6)
    np.testing.assert_allclose(after[1], bias - 0.5 * gradient.sum(axis=0), atol=1e-6)


# --- seeds and graphs -----------------------------------------------------------------------------


def test_dataset_transform_keeps_labels_and_names_partners():
    size = 16
    images, labels = np.eye(size, dtype=np.float32).reshape(size, 4, 4, 1), np.arange(size)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(3)
    for batch, truth in data.apply(Mixup(beta=4.0).dataset_transform(seed=1)):
        weights = batch.images.numpy().reshape(size, size)
        np.testing.assert_array_equal(truth, labels)
        np.testing.assert_allclose(
            np.diag(weights)[batch.partners != labels],
            [1.0 - m for m in batch.mix[batch.partners != labels]],
            atol=1e-6,
        )


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0.0}, "beta must be above 0, in 1e-6..1e6. Received: beta=0.0"),
        ({"beta": float("inf")}, "Received: beta=inf"),
        ({"beta": 1e-40}, "Received: beta=1e-40"),
        ({"beta": -1.0}, "Received: beta=-1.0"),
        ({"beta": float("nan")}, "Received: beta=nan"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixup(**arguments)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
