"""One contract for all augmentations: what ``AutoLabelModel`` and ``AutoLabel`` rely on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import AugmentedBatch

SEED, OTHER_SEED = (3, 1), (4, 1)
BATCH = 12


def check_augmentation(
    augmentation: Callable[..., AugmentedBatch],
    *,
    image_shape: Sequence[int] = (16, 16, 3),
    num_classes: int = 10,
    seed: int = 0,
) -> None:
    """Asserts what every augmentation promises; for tests, of your own augmentations too.

    On made-up images, uint8 and float: everything has its shape, dtype and range; labels stay; the
    same seed gives the same batch, in a graph and in a dataset too, and another seed another one;
    every bucket's distances lie inside it, for single buckets and for one an image; each distance
    of training lies in the bucket that it reports; the config makes the same augmentation again.
    Where a network is needed, a small one with random weights serves.

    Args:
        augmentation: The augmentation: an ``Augmentation``, or an object with ``bucket_shape`` and
            ``__call__``, of which datasets and config are not looked at.
        image_shape: (H, W, C) of the images to try.
        num_classes: K, of the labels to try.
        seed: Of the made-up images.

    Raises:
        AssertionError: Says what does not hold.

    Example:
        >>> from keras_autolabel import Mixup
        >>> check_augmentation(Mixup(num_buckets=3), image_shape=(8, 8, 1))
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, *image_shape), dtype=np.uint8)
    labels = rng.integers(0, num_classes, BATCH).astype(np.int32)
    network = keras.Sequential(
        [keras.Input(tuple(image_shape)), keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    )
    augment = _Caller(augmentation, labels, network)
    for some in (images, (images / 255.0).astype(np.float32)):
        _check_fields(augment(some, SEED), augmentation, labels, image_shape)
        _check_seeds(augment, some)
        _check_buckets(augment, some)
    if hasattr(augmentation, "dataset_transform") and not augmentation.needs_network:
        _check_dataset(augmentation, images, labels)
    if hasattr(augmentation, "get_config"):
        _check_config(augmentation, augment, images)


class _Caller:
    """An augmentation with all but images, seed and bucket given."""

    def __init__(self, augmentation, labels, network) -> None:
        self.augmentation, self.labels, self.network = augmentation, labels, network

    def __call__(self, images, seed, bucket=None, augmentation=None) -> AugmentedBatch:
        return (augmentation or self.augmentation)(
            images, self.labels, seed=tf.cast(seed, tf.int32), bucket=bucket, network=self.network
        )


def _check_fields(batch, augmentation, labels, image_shape) -> None:
    size, count = len(labels), int(np.prod(augmentation.bucket_shape))
    dtypes = ("float32", "int32", "int32", "float32", "float32", "int32")
    for name, dtype, value in zip(batch._fields, dtypes, batch, strict=True):
        shape = (size, *image_shape) if name == "images" else (size,)
        assert value.shape == shape, f"{name} must have shape {shape}. Received: {value.shape}"
        assert value.dtype == dtype, f"{name} must be {dtype}. Received: {value.dtype}"
    for name, high in (("images", 1.0), ("mix", 0.5), ("distance", 1.0), ("bucket", count - 1)):
        value = getattr(batch, name).numpy()
        inside = np.all((value >= 0) & (value <= high))
        assert inside, f"{name} must lie in [0, {high}]. Received: {value.min()} to {value.max()}"
    assert np.array_equal(batch.labels, labels), "labels must stay where they are"
    without = batch.mix.numpy() == 0.0
    alone = np.array_equal(batch.partners.numpy()[without], labels[without])
    assert alone or np.any(~without), "partners must be the labels where nothing is mixed in"
    _check_distances(batch, augmentation)


def _check_distances(batch, augmentation) -> None:
    """Bucket n of N covers (n/N, (n+1)/N], the first one 0 too; give or take a rounding."""
    size = augmentation.bucket_shape[-1]
    position = batch.distance.numpy() * size - batch.bucket.numpy() % size
    inside = np.all((position >= -1e-4) & (position <= 1.0 + 1e-4))
    assert inside, f"distances must lie in their buckets. Received: {batch.distance.numpy()}"


def _check_seeds(augment, images) -> None:
    first = augment(images, SEED)
    _assert_equal(first, augment(images, SEED), "the same seed must give the same batch")
    graph = tf.function(lambda seed: augment(images, seed))(tf.constant(SEED))
    _assert_equal(first, graph, "a graph must give the batch of eager execution")
    other = augment(images, OTHER_SEED)
    differs = any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert differs, "another seed must give another batch"


def _check_buckets(augment, images) -> None:
    augmentation = augment.augmentation
    count = int(np.prod(augmentation.bucket_shape))
    each = np.arange(BATCH, dtype=np.int32) % count
    for bucket in (0, count - 1, tf.constant(each)):
        batch = augment(images, SEED, bucket)
        asked = np.broadcast_to(bucket, [BATCH])
        reported = np.array_equal(batch.bucket, asked)
        assert reported, f"bucket {bucket} was asked for. Received: {batch.bucket.numpy()}"
        _check_distances(batch, augmentation)


def _check_dataset(augmentation, images, labels) -> None:
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(2)
    first, second = data.apply(augmentation.dataset_transform(seed=1)).as_numpy_iterator()
    _check_fields(
        AugmentedBatch(*map(tf.constant, first[0])), augmentation, labels, images.shape[1:]
    )
    again = next(data.apply(augmentation.dataset_transform(seed=1)).as_numpy_iterator())
    _assert_equal(first[0], again[0], "a dataset must repeat itself from its seed")
    differs = any(not np.array_equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert differs, "every batch of a dataset must be drawn anew"
    # The seed of a dataset's batch is not known outside: an element map has one that is.
    mapped = data.map(lambda x, y: augmentation(x, y, seed=tf.constant(SEED)))
    eager = augmentation(images, labels, seed=tf.constant(SEED))
    _assert_equal(eager, next(iter(mapped)), "a dataset must give the batch of eager execution")


def _check_config(augmentation, augment, images) -> None:
    config = keras.utils.serialize_keras_object(augmentation)
    again: Any = keras.utils.deserialize_keras_object(config)
    first, second = augment(images, SEED), augment(images, SEED, augmentation=again)
    _assert_equal(first, second, "the config must make the same augmentation again")


def _assert_equal(first: AugmentedBatch, second: AugmentedBatch, message: str) -> None:
    for name, a, b in zip(AugmentedBatch._fields, first, second, strict=True):
        # XLA and grappler may round a multiply-add once where eager execution rounds twice.
        same = np.allclose(a, b, rtol=0.0, atol=1e-6)
        assert same, f"{message}; {name} differs by {np.abs(np.subtract(a, b)).max()}"
