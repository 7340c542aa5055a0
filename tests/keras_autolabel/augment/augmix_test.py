import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from keras_autolabel import AugMix
from keras_autolabel.augment.augmix import MAGNITUDE_OF_LEVEL, AugMixDraw
from tests.keras_autolabel.augment.image_ops_test import pillow

DRAWS = 100_000


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """The parameters of 100,000 images at severity 3."""
    labels = tf.zeros([DRAWS], tf.int32)
    draw = AugMix(num_buckets=10).draw(labels, tf.constant([2, 3]))
    return {name: field.numpy() for name, field in draw._asdict().items()}


def _assert_uniform(index: np.ndarray, cells: int) -> None:
    counts = np.bincount(index.ravel(), minlength=cells)
    assert len(counts) == cells
    assert stats.chisquare(counts).pvalue > 1e-3, counts


def _assert_independent(first: np.ndarray, second: np.ndarray) -> None:
    counts = np.zeros([first.max() + 1, second.max() + 1])
    np.add.at(counts, (first, second), 1)
    assert stats.chi2_contingency(counts).pvalue > 1e-3, counts


def _twentieth(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which of 20 equal parts of [low, high] each value is in."""
    assert low <= values.min() <= values.max() <= high
    return np.minimum((20 * (values - low) / (high - low)).astype(int), 19)


def test_depth_is_uniform(drawn):
    _assert_uniform(drawn["depth"] - 1, 3)


def test_distance_is_uniform(drawn):
    _assert_uniform(_twentieth(drawn["distance"], 0, 1), 20)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_operation_level_and_sign_are_uniform(drawn, step):
    level = drawn["level"][:, step]
    _assert_uniform(drawn["operation"][:, step], 9)
    _assert_uniform(_twentieth(np.abs(level), np.float32(0.1), 3), 20)
    _assert_uniform((level > 0).astype(int), 2)


def test_everything_drawn_is_independent(drawn):
    columns = {"depth": drawn["depth"] - 1, "distance": _twentieth(drawn["distance"], 0, 1)}
    for step in range(3):
        level = drawn["level"][:, step]
        columns[f"operation {step}"] = drawn["operation"][:, step]
        columns[f"level {step}"] = _twentieth(np.abs(level), np.float32(0.1), 3)
        columns[f"sign {step}"] = (level > 0).astype(int)
    names = list(columns)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    p_values = []
    for first, second in pairs:
        counts = np.zeros([columns[first].max() + 1, columns[second].max() + 1])
        np.add.at(counts, (columns[first], columns[second]), 1)
        p_values.append(stats.chi2_contingency(counts).pvalue)
    # 55 pairs are tested at once: 1e-3 for all of them together.
    worst = int(np.argmin(p_values))
    assert p_values[worst] > 1e-3 / len(pairs), pairs[worst]


def test_neighbouring_seeds_are_independent():
    augmix, labels = AugMix(num_buckets=10), tf.zeros([20_000], tf.int32)
    first = augmix.draw(labels, tf.constant([0, 1]))
    for seed in ([0, 2], [1, 1], [1, 0]):
        second = augmix.draw(labels, tf.constant(seed))
        _assert_independent(first.bucket.numpy(), second.bucket.numpy())
        _assert_independent(first.operation[:, 0].numpy(), second.operation[:, 0].numpy())


def test_buckets_are_those_of_the_paper_counted_from_the_clean_side(drawn):
    # The paper's S_{d,⌈λN⌉}, both indices from 1 and along λ; ours is (d − 1, N − ⌈λN⌉).
    clean_weight = 1.0 - drawn["distance"].astype(np.float64)
    away_from_edges = np.abs(clean_weight * 10 % 1 - 0.5) < 0.499
    expected = (drawn["depth"] - 1) * 10 + 10 - np.ceil(clean_weight * 10)
    np.testing.assert_array_equal(drawn["bucket"][away_from_edges], expected[away_from_edges])
    assert away_from_edges.mean() > 0.99


@pytest.mark.parametrize("num_buckets", [1, 5, 10])
def test_a_given_bucket_is_obeyed_and_reported(num_buckets):
    augmix = AugMix(num_buckets=num_buckets, max_depth=4)
    cells = 4 * num_buckets
    bucket = tf.range(2000 * cells) % cells
    draw = augmix.draw(tf.zeros_like(bucket), tf.constant([1, 2]), bucket)
    np.testing.assert_array_equal(draw.bucket, bucket)
    np.testing.assert_array_equal(draw.depth, bucket.numpy() // num_buckets + 1)
    position = draw.distance.numpy() * num_buckets - bucket.numpy() % num_buckets
    assert -1e-5 < position.min() <= position.max() < 1 + 1e-5
    _assert_uniform(np.clip(20 * position, 0, 19).astype(int), 20)
    whole = augmix.draw(tf.zeros([50], tf.int32), tf.constant([1, 2]), cells - 1)
    np.testing.assert_array_equal(whole.bucket, [cells - 1] * 50)
    np.testing.assert_array_equal(whole.depth, [4] * 50)


@pytest.mark.parametrize(
    ("name", "level", "magnitude"),
    [
        ("rotate", 10.0, 30.0),
        ("rotate", -3.0, -9.0),
        ("shear_x", 10.0, 0.3),
        ("shear_x", 3.0, 0.09),
        ("shear_y", -10.0, -0.3),
        ("translate_x", 10.0, 1 / 3),
        ("translate_x", 3.0, 0.1),
        ("translate_y", -1.0, -1 / 30),
        ("posterize", 10.0, 0.0),
        ("posterize", -10.0, 0.0),
        ("posterize", 2.4, 4.0),  # 4 - 0.96: whole bits are taken off
        ("posterize", 2.5, 3.0),
        ("posterize", 3.0, 3.0),
        ("posterize", 0.1, 4.0),
        ("solarize", 10.0, 0.0),
        ("solarize", -3.0, 179.2),
        ("solarize", 0.0, 256.0),
    ],
)
def test_magnitude_of_level(name, level, magnitude):
    actual = MAGNITUDE_OF_LEVEL[name](tf.constant([level]))
    np.testing.assert_allclose(actual, [magnitude], rtol=1e-6, atol=1e-5)


# --- apply ----------------------------------------------------------------------------------------


def _draw(depth, clean_weight, operation, level, bucket) -> AugMixDraw:
    return AugMixDraw(
        distance=1.0 - tf.constant(clean_weight, tf.float32),
        bucket=tf.constant(bucket),
        depth=tf.constant(depth),
        operation=tf.constant(operation),
        level=tf.constant(level, tf.float32),
    )


def test_apply_by_hand():
    augmix = AugMix(num_buckets=4, max_depth=2, operations=("solarize", "posterize"))
    pixels = np.array([200, 200, 90, 200], np.uint8)
    images = np.tile(pixels[:, np.newaxis, np.newaxis, np.newaxis], [1, 2, 3, 1])
    drawn = _draw(
        depth=[1, 2, 2, 2],
        clean_weight=[0.25, 0.5, 0.0, 1.0],
        operation=[[0, 1], [0, 1], [1, 0], [1, 1]],
        level=[[10, 10], [10, 10], [-5, 10], [10, 10]],
        bucket=[0, 5, 4, 7],
    )
    batch = augmix.apply(tf.constant(images), tf.constant([3, 1, 2, 0]), drawn)
    # Solarized at 0: 55. Then 0 bits: 0. 90 with 2 bits: 64, solarized at 0: 191.
    expected = [0.25 * 200 + 0.75 * 55, 0.5 * 200 + 0.5 * 0, 191, 200]
    np.testing.assert_allclose(batch.images[:, 1, 2, 0], np.array(expected) / 255, atol=1e-6)
    np.testing.assert_allclose(batch.distance, [0.75, 0.5, 1.0, 0.0])
    np.testing.assert_array_equal(batch.bucket, [0, 5, 4, 7])
    np.testing.assert_array_equal(batch.labels, [3, 1, 2, 0])
    np.testing.assert_array_equal(batch.partners, [3, 1, 2, 0])
    np.testing.assert_array_equal(batch.mix, [0, 0, 0, 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_chain_of_point_operations_equals_pillow(photographs, channels):
    operations = ("autocontrast", "equalize", "posterize", "solarize")
    augmix = AugMix(num_buckets=5, severity=10.0, operations=operations)
    images = np.tile(photographs[..., :channels], [6, 1, 1, 1])
    labels = tf.zeros([len(images)], tf.int32)
    drawn = augmix.draw(labels, tf.constant([5, 6]))
    actual = augmix.apply(tf.constant(images), labels, drawn).images
    for row, image in enumerate(images):
        chain = image
        for index in range(int(drawn.depth[row])):
            name = operations[int(drawn.operation[row, index])]
            magnitude = float(MAGNITUDE_OF_LEVEL[name](drawn.level[row, index]))
            source = Image.fromarray(chain[..., 0] if channels == 1 else chain)
            chain = pillow(source, name, magnitude)
        weight = 1 - float(drawn.distance[row])
        expected = (weight * image + (1 - weight) * chain) / 255
        np.testing.assert_allclose(actual[row], expected, atol=1e-6)


def test_a_distance_of_0_keeps_float_images_as_they_are(photographs):
    images = (photographs / 255 + 0.0017).clip(0, 1).astype(np.float32)
    augmix = AugMix(num_buckets=5)
    labels = tf.zeros([len(images)], tf.int32)
    drawn = augmix.draw(labels, tf.constant([1, 1]))
    drawn = drawn._replace(distance=tf.zeros([len(images)]))
    np.testing.assert_array_equal(augmix.apply(tf.constant(images), labels, drawn).images, images)


def test_float_images_equal_integer_images(photographs):
    labels, seed = tf.zeros([len(photographs)], tf.int32), tf.constant([4, 4])
    expected = AugMix(num_buckets=5)(photographs, labels, seed=seed)
    for dtype in (np.float32, np.float64):
        actual = AugMix(num_buckets=5)((photographs / 255).astype(dtype), labels, seed=seed)
        np.testing.assert_allclose(actual.images, expected.images, atol=1e-6)
        np.testing.assert_array_equal(actual.bucket, expected.bucket)


def test_images_stay_in_range_and_farther_images_move_more(photographs):
    labels, seed = tf.zeros([len(photographs)], tf.int32), tf.constant([3, 9])
    clean = photographs / 255
    moved = []
    for bucket in range(20, 30):
        images = AugMix(num_buckets=10)(photographs, labels, seed=seed, bucket=bucket).images
        assert 0 <= images.numpy().min() and images.numpy().max() <= 1
        moved.append(np.abs(images - clean).mean())
    # The seed, and with it the chain, is the same: |moved| is proportional to 1 - λ.
    assert np.all(np.diff(moved) > 0)


# --- seeds and graphs -----------------------------------------------------------------------------


def _assert_same(first, second) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_frozen_while_tracing():
    augmix, labels = AugMix(num_buckets=10), tf.zeros([500], tf.int32)
    seeds = tf.data.Dataset.from_tensor_slices([[1, 1], [1, 2]])
    first, second = seeds.map(lambda seed: augmix.draw(labels, seed)).as_numpy_iterator()
    _assert_same(first, augmix.draw(labels, tf.constant([1, 1])))
    _assert_same(second, augmix.draw(labels, tf.constant([1, 2])))
    for name in AugMixDraw._fields:
        one, other = getattr(first, name), getattr(second, name)
        # Depth has three values and repeats in a third of the cells, the operation in a ninth.
        assert np.mean(one == other) < 0.5, name


def test_dataset_transform_differs_by_epoch_and_repeats_with_its_seed(photographs):
    def epochs(seed):
        data = tf.data.Dataset.from_tensor_slices((photographs, range(len(photographs))))
        data = data.batch(4).apply(AugMix(num_buckets=5).dataset_transform(seed=seed))
        return [[batch.distance.numpy() for batch, _ in data] for _ in range(2)]

    first, second = epochs(3)
    assert len({*np.concatenate(first), *np.concatenate(second)}) == 2 * len(photographs)
    np.testing.assert_array_equal(epochs(3), [first, second])
    assert not np.any(np.array(epochs(4)) == [first, second])


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_depth": 0}, "Received: max_depth=0"),
        ({"severity": 0.0}, r"severity must be in \[0.1, 10\]. Received: severity=0.0"),
        ({"severity": 10.5}, "Received: severity=10.5"),
        ({"severity": float("nan")}, "Received: severity=nan"),
        ({"operations": ()}, r"Received: operations=\(\)"),
        ({"operations": ("rotate", "colour")}, "must be a selection of autocontrast,.*'colour'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        AugMix(**arguments)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
