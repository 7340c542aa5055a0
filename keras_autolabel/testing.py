"""One contract for all augmentations: what ``AutoLabelModel`` and ``AutoLabel`` rely on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import AugmentedBatch

SEED, OTHER_SEED = (3, 1), (4, 1)
BATCH = 12
# A graph may round the last bit of a magnitude otherwise: where a chain rounds to 8 bits, a few
# pixels are then a grey level off.
ROUNDED_OTHERWISE = 0.01


def check_augmentation(
    augmentation: Callable[..., AugmentedBatch],
    *,
    image_shape: Sequence[int] = (16, 16, 3),
    num_classes: int = 10,
    seed: int = 0,
) -> None:
    """Asserts what every augmentation promises; for tests, of your own augmentations too.

    On made-up images: everything has its shape, dtype and range; labels stay; uint8 and float
    images give the same batch; the same seed does too, in a graph of unknown batch size and in a
    dataset as well, and another seed gives another one; every bucket's distances lie inside it, for
    single buckets and for one an image; each distance of training lies in the bucket that it
    reports; the config makes the same augmentation again. Where a network is needed, a small one
    with random weights serves.

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
    augment = _Caller(augmentation, network)
    first = augment(images, labels, SEED)
    floats = augment((images / 255.0).astype(np.float32), labels, SEED)
    for batch in (first, floats):
        _check_fields(batch, augmentation, labels, image_shape)
    _check_seeds(augment, images, labels, first)
    _assert_equal(first, floats, "uint8 and float images must give the same batch")
    _check_buckets(augment, images, labels)
    if hasattr(augmentation, "dataset_transform") and not augmentation.needs_network:
        _check_dataset(augmentation, images, labels, first)
    if hasattr(augmentation, "get_config"):
        config = keras.utils.serialize_keras_object(augmentation)
        again: Any = _Caller(keras.utils.deserialize_keras_object(config), network)
        second = again(images, labels, SEED)
        _assert_equal(first, second, "the config must make the same augmentation again")


class _Caller:
    """An augmentation that is given a network."""

    def __init__(self, augmentation, network) -> None:
        self.augmentation, self.network = augmentation, network

    def __call__(self, images, labels, seed, bucket=None) -> AugmentedBatch:
        return self.augmentation(
            images, labels, seed=tf.cast(seed, tf.int32), bucket=bucket, network=self.network
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


def _check_seeds(augment, images, labels, first) -> None:
    again = augment(images, labels, SEED)
    _assert_equal(first, again, "the same seed must give the same batch")
    signature = [
        tf.TensorSpec([None, *images.shape[1:]], tf.uint8),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([2], tf.int32),
    ]
    graph = tf.function(augment, input_signature=signature)(images, labels, tf.constant(SEED))
    message = "a graph must give the batch of eager execution"
    _assert_equal(first, graph, message, most=ROUNDED_OTHERWISE)
    other = augment(images, labels, OTHER_SEED)
    assert _differ(first, other), "another seed must give another batch"


def _check_buckets(augment, images, labels) -> None:
    augmentation = augment.augmentation
    count = int(np.prod(augmentation.bucket_shape))
    each = np.arange(BATCH, dtype=np.int32) % count
    for bucket in (0, count - 1, tf.constant(each)):
        batch = augment(images, labels, SEED, bucket)
        asked = np.broadcast_to(bucket, [BATCH])
        reported = np.array_equal(batch.bucket, asked)
        assert reported, f"bucket {bucket} was asked for. Received: {batch.bucket.numpy()}"
        _check_fields(batch, augmentation, labels, images.shape[1:])


def _check_dataset(augmentation, images, labels, eager) -> None:
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(2)
    first, second = data.apply(augmentation.dataset_transform(seed=1)).as_numpy_iterator()
    batch = AugmentedBatch(*map(tf.constant, first[0]))
    _check_fields(batch, augmentation, labels, images.shape[1:])
    assert np.array_equal(first[1], labels), "a dataset must keep the labels beside its batches"
    again = next(data.apply(augmentation.dataset_transform(seed=1)).as_numpy_iterator())
    _assert_equal(first[0], again[0], "a dataset must repeat itself from its seed")
    assert _differ(first[0], second[0]), "every batch of a dataset must be drawn anew"
    # The seed of a dataset's batch is not known outside: an element map has one that is.
    mapped = data.map(lambda x, y: augmentation(x, y, seed=tf.constant(SEED)))
    message = "a dataset must give the batch of eager execution"
    _assert_equal(eager, next(iter(mapped)), message, most=ROUNDED_OTHERWISE)


def _differ(first: AugmentedBatch, second: AugmentedBatch) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def _assert_equal(
    first: AugmentedBatch, second: AugmentedBatch, message: str, *, most: float = 0.0
) -> None:
    """Fields are equal up to rounding, but for a share ``most`` of the images' pixels."""
    for name, a, b in zip(AugmentedBatch._fields, first, second, strict=True):
        # XLA and grappler may round a multiply-add once where eager execution rounds twice.
        off = ~np.isclose(a, b, rtol=0.0, atol=1e-6)
        same = np.mean(off) <= (most if name == "images" else 0.0)
        assert same, f"{message}; {name} differs by {np.abs(np.subtract(a, b)).max()}"
