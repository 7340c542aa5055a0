"""What an augmentation returns, and the checks of what it is given."""

from typing import NamedTuple

import tensorflow as tf


class AugmentedBatch(NamedTuple):
    """A batch of moved images, and how far each was moved.

    Attributes:
        images: float32 [B, H, W, C] in [0, 1].
        labels: int32 [B], the true class (in mixup, the class with the larger weight).
        partners: int32 [B], the second class in mixup; equal to ``labels`` where there is none.
        mix: float32 [B] in [0, 0.5], the weight of the partner; 0 where there is none.
        distance: float32 [B] in [0, 1], how far the image was moved; 0 is clean.
        bucket: int32 [B], the flat index of the distance bucket.

    Example:
        >>> batch = clean_batch(tf.zeros([2, 8, 8, 1]), [3, 5])
        >>> batch._replace(bucket=tf.constant([1, 4])).bucket.numpy().tolist()
        [1, 4]
    """

    images: tf.Tensor
    labels: tf.Tensor
    partners: tf.Tensor
    mix: tf.Tensor
    distance: tf.Tensor
    bucket: tf.Tensor


def without_partner(images, labels, *, distance, bucket) -> AugmentedBatch:
    """The ``AugmentedBatch`` of an augmentation that mixes no second image in.

    Args:
        images: float32 [B, H, W, C] in [0, 1].
        labels: int [B].
        distance: float32 [B] in [0, 1].
        bucket: int32 [B].

    Returns:
        An ``AugmentedBatch`` whose partners are the labels and whose mix is 0.

    Example:
        >>> batch = without_partner(tf.zeros([1, 8, 8, 1]), tf.constant([3]),
        ...                         distance=tf.constant([0.5]), bucket=tf.constant([4]))
        >>> batch.partners.numpy().tolist(), batch.mix.numpy().tolist()
        ([3], [0.0])
    """
    labels = tf.cast(labels, tf.int32)
    return AugmentedBatch(images, labels, labels, tf.zeros_like(distance), distance, bucket)


def clean_batch(images, labels) -> AugmentedBatch:
    """The batch as it is: every image at distance 0, in bucket 0.

    Args:
        images: uint8 or float [B, H, W, C]; floats in [0, 1].
        labels: int [B].

    Returns:
        An ``AugmentedBatch``.

    Example:
        >>> clean_batch(tf.fill([1, 8, 8, 1], 1.0), tf.constant([3])).distance.numpy().tolist()
        [0.0]
    """
    images = to_float(images)
    distance = tf.zeros(tf.shape(images)[:1])
    return without_partner(images, labels, distance=distance, bucket=tf.cast(distance, tf.int32))


def to_float(images: tf.Tensor) -> tf.Tensor:
    """Images as float32 in [0, 1]: integers are divided by 255, floats are taken as they are.

    Args:
        images: uint8 in [0, 255], or float in [0, 1]; any shape.

    Returns:
        float32 of the same shape.

    Example:
        >>> to_float(tf.constant([0, 51, 255], tf.uint8)).numpy()
        array([0. , 0.2, 1. ], dtype=float32)
    """
    images = tf.convert_to_tensor(images)
    if images.dtype.is_integer:
        return tf.cast(images, tf.float32) / 255.0
    return tf.cast(images, tf.float32)


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Images as uint8: floats in [0, 1] are rounded to 8 bits, uint8 is taken as it is.

    Args:
        images: uint8 in [0, 255], or float in [0, 1]; any shape.

    Returns:
        uint8 of the same shape.

    Example:
        >>> to_uint8(tf.constant([0.0, 0.2, 1.0])).numpy().tolist()
        [0, 51, 255]
    """
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return images
    return tf.cast(tf.round(tf.cast(images, tf.float32) * 255.0), tf.uint8)


def check_batch(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Refuses what is no batch of images and integer labels.

    Type and rank are checked while tracing, values on every batch (in the graph too).

    Args:
        images: uint8 or float [B, H, W, C]; floats in [0, 1].
        labels: int [B] or [B, 1].

    Returns:
        The images as they came and the labels as int32 [B].

    Raises:
        ValueError: If type or rank are wrong.
        tf.errors.InvalidArgumentError: If a float image has a NaN or a value outside [0, 1], or
            labels, of a rank that only the graph knows, are not one an image.
    """
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    check_image_type(images)
    check_label_type(labels)
    if images.dtype.is_floating:
        with tf.control_dependencies([assert_unit_range(images)]):
            images = tf.identity(images)
    if labels.shape.rank is None:
        one_each = tf.equal(tf.size(labels), tf.shape(images)[0])
        message = "Labels must be class numbers, one an image. Received labels of shape:"
        with tf.control_dependencies([tf.debugging.Assert(one_each, [message, tf.shape(labels)])]):
            labels = tf.identity(labels)
    return images, tf.reshape(tf.cast(labels, tf.int32), [-1])


def check_image_type(images) -> None:
    """Refuses images that are not uint8 or float of rank 4 (see ``check_batch``)."""
    dtype = tf.as_dtype(images.dtype)
    if tf.TensorShape(images.shape).rank is None:
        raise ValueError(
            "Images need a known rank; call images.set_shape([None, height, width, channels]) in "
            "the dataset's map. Received: images.shape=<unknown>"
        )
    if len(images.shape) != 4:
        raise ValueError(
            "Images must be a batch of shape [B, H, W, C] (grey images have C = 1). "
            f"Received: images.shape={tuple(images.shape)}"
        )
    if not (dtype == tf.uint8 or dtype.is_floating):
        raise ValueError(
            "Images must be uint8 in 0..255 or float in [0, 1]; cast them. "
            f"Received: images.dtype={dtype.name}"
        )


def check_label_type(labels) -> None:
    """Refuses labels that are not whole class numbers, one an image (see ``check_batch``)."""
    dtype, shape = tf.as_dtype(labels.dtype), tf.TensorShape(labels.shape)
    if shape.rank == 2 and shape[-1] not in (1, None):
        raise ValueError(
            "Labels must be class numbers of shape [B], not one-hot rows; use "
            f"tf.argmax(labels, axis=-1). Received: labels.shape={tuple(shape)}"
        )
    if not dtype.is_integer:
        raise ValueError(
            f"Labels must be integer class numbers; cast them. Received: labels.dtype={dtype.name}"
        )
    if shape.rank not in (None, 1, 2):
        raise ValueError(
            f"Labels must have shape [B] or [B, 1]. Received: labels.shape={tuple(shape)}"
        )


def assert_unit_range(images: tf.Tensor) -> tf.Operation:
    """An assertion that no value is NaN or outside [0, 1]."""
    # A NaN fails both comparisons, so that one condition catches all three mistakes.
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    inside = tf.reduce_all((images >= 0.0) & (images <= 1.0))
    message = (
        "Float images must lie in [0, 1] without NaN; divide by 255, or pass uint8. "
        "Received (smallest, largest):"
    )
    return tf.debugging.Assert(inside, [message, low, high])


def dataset_transform(augmentation, *, seed: int):
    """A function for ``tf.data.Dataset.apply`` that augments batches ahead of the accelerator.

    Every batch of every epoch gets a fresh stateless seed; the same ``seed`` repeats the sequence.

    Args:
        augmentation: ``augmentation(images, labels, *, seed) -> AugmentedBatch``.
        seed: Seed of the sequence of seeds.

    Returns:
        A function from a dataset of ``(images, labels)`` or ``(images, labels, sample_weight)``
        batches to one of ``(AugmentedBatch, labels)``, with the weights behind where there are
        any; ``AutoLabelModel.fit`` takes it as already augmented.

    Example:
        >>> from keras_autolabel import AugMix
        >>> data = tf.data.Dataset.from_tensors((tf.zeros([2, 8, 8, 1], tf.uint8), [0, 1]))
        >>> augmented = data.apply(dataset_transform(AugMix(num_buckets=5), seed=1))
        >>> augmented.element_spec[0].bucket
        TensorSpec(shape=(2,), dtype=tf.int32, name=None)
    """

    def augment(example, pair):
        images, labels, *sample_weight = example
        images, labels = check_batch(images, labels)
        batch = augmentation(images, labels, seed=tf.bitcast(tf.cast(pair, tf.uint32), tf.int32))
        return (batch, labels, *sample_weight)

    def transform(dataset: tf.data.Dataset) -> tf.data.Dataset:
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        pairs = tf.data.Dataset.zip((dataset, seeds.batch(2, drop_remainder=True)))
        return pairs.map(augment, num_parallel_calls=tf.data.AUTOTUNE)

    return transform
