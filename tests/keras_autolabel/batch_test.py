import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_autolabel.batch import check_batch, clean_batch, dataset_transform, to_float
from tests.conftest import Dimming

GREY = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)


class SeedAsImage:
    """Returns its seed in place of the images, so that a test sees which were given."""

    def __call__(self, images, labels, *, seed, bucket=None, network=None):
        batch = clean_batch(images, labels)
        return batch._replace(partners=seed)


def _seeds(*, seed: int, batches: int = 6, epochs: int = 2) -> list[list[tuple]]:
    images = np.zeros([2 * batches, 4, 4, 1], np.uint8)
    data = tf.data.Dataset.from_tensor_slices((images, np.zeros(2 * batches, int))).batch(2)
    data = data.apply(dataset_transform(SeedAsImage(), seed=seed))
    return [[tuple(batch.partners.numpy()) for batch, _ in data] for _ in range(epochs)]


def test_every_batch_of_every_epoch_has_a_seed_of_its_own():
    first, second = _seeds(seed=1)
    assert len(first) == len(second) == 6
    assert len({*first, *second}) == 12


def test_the_same_seed_repeats_the_whole_sequence_and_another_does_not():
    sequence = _seeds(seed=1)
    assert _seeds(seed=1) == sequence
    assert not set(sum(_seeds(seed=2), [])) & set(sum(sequence, []))


def test_dataset_transform_augments_and_keeps_labels_and_weights():
    data = tf.data.Dataset.from_tensors((GREY, [1, 2], [0.5, 2.0]))
    ((batch, labels, weight),) = data.apply(dataset_transform(Dimming(), seed=1))
    # Labels 1 and 2 are their own buckets: factors of 2/3 and 1/3.
    expected = GREY / 255 * np.reshape([2 / 3, 1 / 3], [2, 1, 1, 1])
    np.testing.assert_allclose(batch.images, expected, atol=1e-7)
    np.testing.assert_array_equal(batch.bucket, [1, 2])
    np.testing.assert_array_equal(labels, [1, 2])
    np.testing.assert_array_equal(weight, [0.5, 2.0])
    ((_, *rest),) = data.map(lambda x, y, w: (x, y)).apply(dataset_transform(Dimming(), seed=1))
    assert len(rest) == 1


def test_dataset_transform_keeps_the_cardinality():
    data = tf.data.Dataset.from_tensor_slices((np.zeros([10, 4, 4, 1], np.uint8), np.arange(10)))
    data = data.batch(4).apply(dataset_transform(Dimming(), seed=1))
    assert data.cardinality() == 3
    assert [len(labels) for _, labels in data] == [4, 4, 2]


def test_to_float_divides_integers_alone():
    np.testing.assert_allclose(to_float(GREY), GREY / 255, atol=1e-7)
    np.testing.assert_array_equal(to_float(np.float64([0.25, 1.0])), np.float32([0.25, 1.0]))
    assert to_float(tf.constant([0.5], tf.float16)).dtype == tf.float32


def test_clean_batch_is_at_distance_0_in_bucket_0():
    batch = clean_batch(GREY, np.array([5, 3]))
    np.testing.assert_allclose(batch.images, GREY / 255, atol=1e-7)
    np.testing.assert_array_equal(batch.labels, [5, 3])
    np.testing.assert_array_equal(batch.partners, [5, 3])
    for zero in (batch.mix, batch.distance, batch.bucket):
        np.testing.assert_array_equal(zero, [0, 0])
    dtypes = [field.dtype for field in batch]
    assert dtypes == [tf.float32, tf.int32, tf.int32, tf.float32, tf.float32, tf.int32]


def test_check_batch_passes_what_is_right():
    for images in (GREY, GREY / np.float32(255), (GREY / 255).astype(np.float16)):
        for labels in ([0, 1], np.uint8([[0], [1]]), np.int64([0, 1])):
            checked, classes = check_batch(images, labels)
            np.testing.assert_array_equal(checked, images)
            np.testing.assert_array_equal(classes, [0, 1])
            assert classes.dtype == tf.int32


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GREY[..., 0], [0, 1], r"shape \[B, H, W, C\].*Received: images.shape=\(2, 4, 4\)"),
        (GREY[0], [0, 1], r"Received: images.shape=\(4, 4, 1\)"),
        (GREY.astype(np.int32), [0, 1], "cast them. Received: images.dtype=int32"),
        (GREY.astype(bool), [0, 1], "Received: images.dtype=bool"),
        (GREY, np.eye(10)[:2], r"not one-hot rows; use tf.argmax.*labels.shape=\(2, 10\)"),
        (GREY, np.eye(10, dtype=int)[:2], r"not one-hot rows"),
        (GREY, [0.0, 1.0], "integer class numbers; cast them. Received: labels.dtype=float32"),
        (GREY, np.array(["a", "b"]), "Received: labels.dtype=string"),
        (GREY, 3, r"shape \[B\] or \[B, 1\]. Received: labels.shape=\(\)"),
        (GREY, np.zeros([2, 1, 1], int), r"Received: labels.shape=\(2, 1, 1\)"),
    ],
)
def test_check_batch_refuses_types_and_ranks(images, labels, message):
    with pytest.raises(ValueError, match=message):
        check_batch(images, labels)
    with pytest.raises(ValueError, match=message):
        tf.function(check_batch)(tf.constant(images), tf.constant(labels))


def _of_unknown_rank(images, labels) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(lambda: [(images, labels)], (tf.uint8, tf.int32))


def test_images_need_a_known_rank():
    with pytest.raises(ValueError, match=r"call images.set_shape\(.*images.shape=<unknown>"):
        _of_unknown_rank(GREY, [0, 1]).map(check_batch)


def test_labels_of_unknown_rank_are_checked_in_the_graph():
    def check(images, labels):
        images.set_shape([None, 4, 4, 1])
        return check_batch(images, labels)

    for labels in ([0, 1], [[0], [1]]):
        ((_, classes),) = _of_unknown_rank(GREY, labels).map(check)
        np.testing.assert_array_equal(classes, [0, 1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="class numbers, one an image"):
        list(_of_unknown_rank(GREY, np.eye(10, dtype=int)[:2]).map(check))


@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, 255.0, np.inf])
def test_check_batch_refuses_values_in_the_graph_too(value):
    images = GREY / np.float32(255)
    images[1, 2, 3, 0] = value
    for check in (check_batch, tf.function(check_batch)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"must lie in \[0, 1\]"):
            check(tf.constant(images), tf.constant([0, 1]))
    data = tf.data.Dataset.from_tensors((images, [0, 1]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must lie in \[0, 1\]"):
        list(data.apply(dataset_transform(Dimming(), seed=1)))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
