import numpy as np
import pytest
import tensorflow as tf

from keras_autolabel.batch import (
    AugmentedBatch,
    check_batch,
    check_images,
    check_whole,
    class_numbers,
    clean_batch,
    from_label_rows,
    known_classes,
    label_rows,
    refused_in_one_line,
    to_float,
    to_uint8,
    without_partner,
)

GREY = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
UNIT = GREY / np.float32(255)
CLASSES = [2, 0, 1]
ONE_HOT = np.eye(4)[CLASSES]


def test_bytes_become_floats_and_floats_bytes():
    every = np.arange(256, dtype=np.uint8)
    floats = to_float(every)
    assert floats.dtype == tf.float32
    np.testing.assert_allclose(floats, np.arange(256) / 255, atol=1e-7)
    for given in (floats, tf.cast(floats, tf.float64), every):
        assert to_uint8(given).dtype == tf.uint8
        np.testing.assert_array_equal(to_uint8(given), every)
    np.testing.assert_array_equal(to_uint8([0.4 / 255, 0.6 / 255, 254.6 / 255]), [0, 1, 255])
    assert to_float(tf.constant([0.5], tf.float16)).dtype == tf.float32
    np.testing.assert_array_equal(to_float(np.float64([0.25, 1.0])), np.float32([0.25, 1.0]))


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        *(np.array(CLASSES, dtype) for dtype in ("int32", "int64", "uint8", "float32", "float16")),
        *(np.reshape(CLASSES, [3, 1]).astype(dtype) for dtype in ("int64", "uint8", "float32")),
        *(ONE_HOT.astype(dtype) for dtype in ("float16", "float32", "float64", "uint8", "int64")),
        ONE_HOT.astype(bool),
    ],
    ids=lambda labels: f"{labels.dtype}{labels.shape}",
)
def test_labels_are_the_classes_that_they_name(labels):
    rank, columns = labels.ndim, labels.shape[1:]
    shapes = {labels.shape, (None,) * rank, (None, *columns), (3, None)[:rank]}
    in_graphs = [
        tf.function(class_numbers, input_signature=[tf.TensorSpec(shape, labels.dtype)])
        for shape in shapes
    ]
    for numbers in (class_numbers, *in_graphs):
        assert numbers(tf.constant(labels)).dtype == tf.int32
        np.testing.assert_array_equal(numbers(tf.constant(labels)), CLASSES)


@pytest.mark.parametrize("num_classes", [4, tf.constant(4)], ids=["known", "in the graph"])
def test_classes_are_those_up_to_the_last(num_classes):
    last = "K - 1" if tf.is_tensor(num_classes) else "3"
    for labels in ([0, 3], [[0], [3]], np.eye(4)[[0, 3]]):
        np.testing.assert_array_equal(known_classes(labels, num_classes), [0, 3])
    for labels, found in (([1, 4], "1, 4"), ([-1, 3], "-1, 3"), ([[2], [9]], "2, 9")):
        with pytest.raises(ValueError, match=rf"0\.\.{last} .*: {found}$"), refused_in_one_line():
            known_classes(labels, num_classes)


def test_one_hot_rows_have_as_many_columns_as_there_are_classes():
    for columns in (2, 5):
        with pytest.raises(ValueError, match=rf"num_classes=4.*\({columns}, {columns}\)"):
            known_classes(np.eye(columns), 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="keras_autolabel"):
        known_classes(np.eye(5), tf.constant(4))


def test_bools_are_the_classes_0_and_1():
    np.testing.assert_array_equal(class_numbers([True, False]), [1, 0])
    np.testing.assert_array_equal(class_numbers([[True], [False]]), [1, 0])


@pytest.mark.parametrize(
    "labels",
    [
        [[0.9, 0.1], [0.0, 1.0]],
        [[1, 1], [0, 1]],
        [[0, 0], [0, 1]],
        [[0, 2], [0, 1]],
        [[np.nan, 1.0], [0.0, 1.0]],
        [0.0, 1.5],
        [[0.0], [np.nan]],
    ],
)
def test_labels_that_name_no_class_are_refused_in_graphs_too(labels):
    labels = tf.constant(labels)
    spec = tf.TensorSpec([None] * labels.shape.rank, labels.dtype)
    for numbers in (class_numbers, tf.function(class_numbers, input_signature=[spec])):
        with pytest.raises(tf.errors.InvalidArgumentError, match="keras_autolabel"):
            numbers(labels)


def test_labels_of_unknown_rank_are_checked_in_the_graph():
    def of_unknown_rank(labels, dtype):
        data = tf.data.Dataset.from_generator(lambda: [(GREY, labels)], (tf.uint8, dtype))
        return data.map(lambda x, y: check_batch(tf.ensure_shape(x, [None, 4, 4, 1]), y))

    for labels, dtype in (([3, 1], tf.int32), ([[3], [1]], tf.int64), ([3.0, 1.0], tf.float32)):
        ((_, numbers),) = of_unknown_rank(labels, dtype)
        np.testing.assert_array_equal(numbers, [3, 1])
    for labels, dtype in ((np.eye(10)[:2], tf.float32), ([0.5, 1.0], tf.float32)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="keras_autolabel"):
            list(of_unknown_rank(labels, dtype))


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [GREY, UNIT, UNIT.astype("float16"), UNIT.astype("float64")])
def test_images_pass_as_they_came(images):
    for check in (check_batch, tf.function(check_batch)):
        checked, numbers = check(tf.constant(images), tf.constant([0, 1]))
        assert checked.dtype == images.dtype
        np.testing.assert_array_equal(checked, images)
        np.testing.assert_array_equal(numbers, [0, 1])


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1, 255.0, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_values_outside_0_to_1_are_refused_in_the_graph_too(value, dtype):
    images = UNIT.astype(dtype)
    images[1, 2, 3, 0] = value
    spec = tf.TensorSpec([None] * 4, dtype)
    for check in (check_images, tf.function(check_images, input_signature=[spec])):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"must lie in \[0, 1\]"):
            check(tf.constant(images))


@pytest.mark.parametrize(
    ("images", "labels", "received"),
    [
        (GREY[..., 0], [0, 1], r"images.shape=\(2, 4, 4\)"),
        (GREY.astype(np.int32), [0, 1], "images.dtype=int32"),
        (GREY.astype(bool), [0, 1], "images.dtype=bool"),
        (GREY, ["a", "b"], "labels.dtype=string"),
        (GREY, 3, r"labels.shape=\(\)"),
        (GREY, np.zeros([2, 1, 1], int), r"labels.shape=\(2, 1, 1\)"),
    ],
)
def test_types_and_ranks_are_refused(images, labels, received):
    for check in (check_batch, tf.function(check_batch)):
        with pytest.raises(ValueError, match=received):
            check(tf.constant(images), tf.constant(labels))


def test_images_need_a_known_rank():
    check = tf.function(check_images, input_signature=[tf.TensorSpec(None, tf.uint8)])
    with pytest.raises(ValueError, match="images.set_shape"):
        check(GREY)


# --- what the graph asserts, in one line ----------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (lambda: check_images(tf.constant([[[[-0.25], [1.5]]]])), "-0.25, 1.5"),
        (lambda: class_numbers(tf.constant([[0.5, 0.5]])), "1"),
        (lambda: class_numbers(tf.constant([0.5, 1.5, 2.0])), "2"),
    ],
)
def test_an_assertion_is_refused_in_one_line_with_its_values(function, values):
    messages = set()
    for call in (function, tf.function(function)):
        with pytest.raises(ValueError) as refused, refused_in_one_line():
            call()
        messages.add(str(refused.value))
    (message,) = messages
    assert message.endswith(f": {values}") and "\n" not in message
    assert message.startswith(("Float images must lie in [0, 1] ", "Label"))


def test_errors_of_others_are_left_alone():
    with pytest.raises(tf.errors.InvalidArgumentError), refused_in_one_line():
        tf.reshape([1, 2, 3], [2])


@pytest.mark.parametrize("value", [0, -1, 2.5, 3.0, "3", True, None])
def test_what_is_no_whole_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match=f"depth .*at least 1. Received: depth={value!r}"):
        check_whole(1, depth=value)
    check_whole(1, depth=1, steps=np.int64(7))


# --- batches --------------------------------------------------------------------------------------


def test_a_clean_batch_is_at_distance_0_in_bucket_0():
    batch = clean_batch(GREY, np.array([5, 3]))
    np.testing.assert_allclose(batch.images, GREY / 255, atol=1e-7)
    assert batch.images.dtype == tf.float32
    labels, zeros = np.array([5, 3], np.int32), np.zeros(2, np.float32)
    expected = (labels, labels, zeros, zeros, np.zeros(2, np.int32))
    for field, values in zip(batch[1:], expected, strict=True):
        # Each of its own shape and type: what is broadcast is not the same.
        np.testing.assert_array_equal(field, values, strict=True)


def test_label_rows_keep_every_class_and_bucket_of_imagenet_21k():
    numbers = tf.range(21_841)
    fractions = tf.random.stateless_uniform([21_841], [1, 2])
    batch = AugmentedBatch(None, numbers, numbers[::-1], fractions / 2, fractions, numbers)
    for rows in (label_rows(batch), tf.cast(label_rows(batch), tf.float64)):
        assert rows.shape == (21_841, 5)
        again = from_label_rows(rows)
        assert again.images is None
        for field, expected in zip(again[1:], batch[1:], strict=True):
            assert field.dtype == expected.dtype
            np.testing.assert_array_equal(field, expected)


@pytest.mark.parametrize("labels", [np.uint8([5, 3]), [[5], [3]], np.float32([5, 3])])
def test_class_numbers_are_rows_of_clean_images(labels):
    expected = without_partner(None, [5, 3], distance=tf.zeros(2), bucket=tf.constant([0, 0]))
    for field, of_clean in zip(from_label_rows(labels)[1:], expected[1:], strict=True):
        assert field.dtype == of_clean.dtype
        np.testing.assert_array_equal(field, of_clean)
