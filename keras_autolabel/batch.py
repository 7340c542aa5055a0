"""What an augmentation returns, and the checks of what it is given."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

Function = TypeVar("Function", bound=Callable)


def untranslated(function: Function) -> Function:
    """The function, which AutoGraph takes as it stands.

    It would translate every function that a graph calls, each at its first use: for AugMix seven
    times as long as it takes to make the graph. What has no condition on a tensor gains nothing.

    Example:
        >>> @untranslated
        ... def double(x):
        ...     return 2 * x
        >>> int(tf.function(double)(tf.constant(4)))
        8
    """
    return tf.autograph.experimental.do_not_convert(function)


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
    """The ``AugmentedBatch`` without a second image: partners are the labels, and the mix is 0.

    Example:
        >>> batch = without_partner(tf.zeros([1, 8, 8, 1]), tf.constant([3]),
        ...                         distance=tf.constant([0.5]), bucket=tf.constant([4]))
        >>> batch.partners.numpy().tolist(), batch.mix.numpy().tolist()
        ([3], [0.0])
    """
    labels = tf.cast(labels, tf.int32)
    return AugmentedBatch(images, labels, labels, tf.zeros_like(distance), distance, bucket)


def clean_batch(images, labels) -> AugmentedBatch:
    """The batch as it is: every image, uint8 or float in [0, 1], at distance 0, in bucket 0.

    Example:
        >>> clean_batch(tf.fill([1, 8, 8, 1], 1.0), tf.constant([3])).distance.numpy().tolist()
        [0.0]
    """
    images = to_float(images)
    distance = tf.zeros(tf.shape(images)[:1])
    return without_partner(images, labels, distance=distance, bucket=tf.cast(distance, tf.int32))


def label_rows(batch: AugmentedBatch) -> tf.Tensor:
    """All of a batch but its images, as one tensor: Keras hands a loss no more than one.

    It is float32 [B, 5]; exact for class numbers and buckets below 2^24.
    """
    return tf.stack([tf.cast(field, tf.float32) for field in batch[1:]], axis=-1)


def from_label_rows(rows: tf.Tensor) -> AugmentedBatch:
    """The batch that ``label_rows`` was given, its images None.

    Class numbers, [B] or [B, 1], are those of clean images.

    Example:
        >>> batch = clean_batch(tf.zeros([2, 8, 8, 1]), [3, 5])
        >>> from_label_rows(label_rows(batch)).labels.numpy().tolist()
        [3, 5]
    """
    rows = tf.convert_to_tensor(rows)
    if rows.shape.rank == 1 or rows.shape[-1] == 1:
        labels = tf.reshape(tf.cast(rows, tf.int32), [-1])
        distance = tf.zeros_like(labels, tf.float32)
        return without_partner(None, labels, distance=distance, bucket=tf.zeros_like(labels))
    labels, partners, mix, distance, bucket = tf.unstack(rows, axis=-1)
    labels, partners, bucket = (tf.cast(x, tf.int32) for x in (labels, partners, bucket))
    mix, distance = tf.cast(mix, tf.float32), tf.cast(distance, tf.float32)
    return AugmentedBatch(None, labels, partners, mix, distance, bucket)


def to_float(images: tf.Tensor) -> tf.Tensor:
    """Images as float32 in [0, 1]: integers are divided by 255, floats are taken as they are.

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

    Example:
        >>> to_uint8(tf.constant([0.0, 0.2, 1.0])).numpy().tolist()
        [0, 51, 255]
    """
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return images
    return tf.cast(tf.round(tf.cast(images, tf.float32) * 255.0), tf.uint8)


@untranslated
def check_batch(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The images as they came, and the labels as ``class_numbers``; refuses what is no batch.

    Type and rank are checked while tracing, values on every batch (in the graph too).

    Raises:
        ValueError: If type or rank are wrong.
        tf.errors.InvalidArgumentError: If a float image has a NaN or a value outside [0, 1], or
            labels name no class.
    """
    return check_images(images), class_numbers(labels, batch_size=tf.shape(images)[0])


def check_images(images: tf.Tensor) -> tf.Tensor:
    """The images as they came; refuses what ``check_batch`` refuses of images."""
    images = tf.convert_to_tensor(images)
    check_image_type(images)
    if not images.dtype.is_floating:
        return images
    # A NaN fails both comparisons, so that one condition catches all three mistakes.
    inside = tf.reduce_all((images >= 0.0) & (images <= 1.0))
    return asserted(
        images,
        inside,
        "Float images must lie in [0, 1] without NaN; divide by 255, or pass uint8. "
        "Received (smallest, largest):",
        tf.reduce_min(images),
        tf.reduce_max(images),
    )


def class_numbers(labels: tf.Tensor, *, batch_size: tf.Tensor | None = None) -> tf.Tensor:
    """Labels as the numbers of the classes that they name.

    Args:
        labels: Class numbers [B] or [B, 1], of any dtype that holds whole numbers, or one-hot rows
            [B, K]: what ``label_mode="int"``, ``"binary"`` and ``"categorical"`` of
            ``keras.utils.image_dataset_from_directory`` give.
        batch_size: int32 [], B, where it is known; checked if the rank of the labels is not.

    Returns:
        int32 [B].

    Raises:
        ValueError: If type or rank are wrong.
        tf.errors.InvalidArgumentError: If a row is not one-hot, or a number is not whole.

    Example:
        >>> class_numbers(tf.constant([[0.0, 1.0, 0.0]])).numpy().tolist()
        [1]
    """
    labels = tf.convert_to_tensor(labels)
    check_label_type(labels)
    shape = labels.shape
    if shape.rank is None and batch_size is not None:
        message = "Labels must be class numbers, one an image. Received labels:"
        size = tf.size(labels)
        return asserted(_whole_numbers(labels), tf.equal(size, batch_size), message, size)
    if shape.rank != 2 or shape[-1] == 1:
        return _whole_numbers(labels)
    if shape[-1] is not None:
        return _classes_of_rows(labels)
    single = tf.equal(tf.shape(labels)[-1], 1)
    return tf.cond(single, lambda: _whole_numbers(labels), lambda: _classes_of_rows(labels))


def known_classes(labels: tf.Tensor, num_classes: int | tf.Tensor) -> tf.Tensor:
    """Labels as class numbers, int32 [B]; refuses those of no class.

    Args:
        labels: As in ``class_numbers``.
        num_classes: K, a tensor where only the graph knows it.

    Raises:
        ValueError: If type, rank or the width of one-hot rows are wrong.
        tf.errors.InvalidArgumentError: If a label is not in 0..K − 1 (in the graph too).
    """
    labels = tf.convert_to_tensor(labels)
    last = "K - 1" if tf.is_tensor(num_classes) else num_classes - 1
    known_width = labels.shape.rank == 2 and not tf.is_tensor(num_classes)
    if known_width and labels.shape[-1] not in (None, 1, num_classes):
        raise ValueError(
            f"One-hot labels must have shape [B, num_classes={num_classes}]. "
            f"Received: labels.shape={tuple(labels.shape)}"
        )
    numbers = class_numbers(labels)
    known = tf.reduce_all((numbers >= 0) & (numbers < num_classes))
    message = f"Labels must lie in 0..{last} (num_classes - 1). Received (smallest, largest):"
    return asserted(numbers, known, message, tf.reduce_min(numbers), tf.reduce_max(numbers))


def _whole_numbers(labels: tf.Tensor) -> tf.Tensor:
    flat = tf.reshape(labels, [-1])
    if not labels.dtype.is_floating:
        return tf.cast(flat, tf.int32)
    broken = tf.math.count_nonzero(tf.floor(flat) != flat)
    message = "Labels must be whole numbers of classes. Broken numbers:"
    return tf.cast(asserted(flat, broken == 0, message, broken), tf.int32)


def _classes_of_rows(labels: tf.Tensor) -> tf.Tensor:
    rows = tf.cast(labels, tf.float32)
    numbers = tf.argmax(rows, axis=-1, output_type=tf.int32)
    one_hot = tf.reduce_all(tf.equal(rows, tf.one_hot(numbers, tf.shape(rows)[-1])), axis=-1)
    soft = tf.math.count_nonzero(~one_hot)
    message = "Label rows must be exactly one-hot, a single 1; use class numbers. Soft rows:"
    return asserted(numbers, soft == 0, message, soft)


# What the graph asserts begins with a mark, by which the one line that matters is found again.
MARK = "keras_autolabel: "


def asserted(value: tf.Tensor, condition: tf.Tensor, message: str, *received: tf.Tensor):
    """The value as it is; where the condition does not hold, ``refused_in_one_line`` says so."""
    assertion = tf.debugging.Assert(condition, [f"{MARK}{message}", *received])
    with tf.control_dependencies([assertion]):
        return tf.identity(value)


# What ``check_images`` refuses, among the lines that Keras and AutoGraph put around it.
REFUSED_IMAGES = re.compile(
    r"^\s*(?:\x1b\[1m|ValueError: )?((?:I|Float i)mages (?:must|need) [^\n\x1b]*)", re.MULTILINE
)


@contextlib.contextmanager
def refused_in_one_line() -> Iterator[None]:
    """Turns what this package asserts in the graph into a ``ValueError`` of one line.

    TensorFlow tells of a failed assertion by some thirty lines about the graph, and Keras puts the
    arguments of a call around what the call raises.

    Raises:
        ValueError: Where an assertion of this package failed inside the ``with`` block, or images
            were refused for what they are.
    """
    try:
        yield
    except ValueError as error:
        refused = REFUSED_IMAGES.search(str(error))
        if not refused:
            raise
        raise ValueError(refused[1]) from None
    except tf.errors.InvalidArgumentError as error:
        _, mark, text = str(error.message).rpartition(MARK)
        if not mark:
            raise
        # In a graph: "...Received:] [0] [255]\n\t [[{{node..."; eagerly: "...Received:'\n0\n255".
        text = re.split("\n\t|\x1b|\n\n", text)[0].replace("'", "")
        for between in ("] [", "\n"):
            text = text.replace(f":{between}", ": ").replace(between, ", ")
        raise ValueError(text.rstrip("], ")) from None


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
    """Refuses labels that are neither class numbers nor rows (see ``class_numbers``)."""
    dtype, shape = tf.as_dtype(labels.dtype), tf.TensorShape(labels.shape)
    if not (dtype.is_integer or dtype.is_floating or dtype.is_bool):
        raise ValueError(
            f"Labels must be class numbers or one-hot rows. Received: labels.dtype={dtype.name}"
        )
    if shape.rank not in (None, 1, 2):
        raise ValueError(
            "Labels must have shape [B], [B, 1], or [B, K] if they are one-hot. "
            f"Received: labels.shape={tuple(shape)}"
        )


def check_whole(smallest: int, **arguments: int) -> None:
    """Refuses arguments that are not whole numbers of at least ``smallest``.

    Raises:
        ValueError: Names the argument and what was received.

    Example:
        >>> check_whole(1, num_buckets=2.5)
        Traceback (most recent call last):
        ...
        ValueError: num_buckets must be a whole number of at least 1. Received: num_buckets=2.5
    """
    for name, value in arguments.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < smallest:
            raise ValueError(
                f"{name} must be a whole number of at least {smallest}. Received: {name}={value!r}"
            )


def check_numbers(**arguments: float) -> None:
    """Refuses arguments that are no single numbers.

    Raises:
        ValueError: Names the argument and what was received.

    Example:
        >>> check_numbers(beta="1")
        Traceback (most recent call last):
        ...
        ValueError: beta must be a number. Received: beta='1'
    """
    for name, value in arguments.items():
        if np.ndim(value) or np.asarray(value).dtype.kind not in "fiu":
            raise ValueError(f"{name} must be a number. Received: {name}={value!r}")
