import sys

import numpy as np
import pytest
import tensorflow as tf

from data import epochs, in_memory
from data.splits import Split


def _numbered(count: int, *, crop_and_flip: bool = False) -> Split:
    """Images that show their row's number, in the middle of 9x9 pixels, to no crop's harm."""
    images = np.zeros([count, 9, 9, 1], np.uint8)
    images[:, 4, 4, 0] = np.arange(count) + 1
    return Split(images, np.arange(count, dtype=np.int32), crop_and_flip)


def _rows(batches) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches.as_numpy_iterator()]


def test_an_epoch_has_each_image_at_most_once_beside_its_label():
    batches = _numbered(10).training_batches(batch_size=4, seed=0, epochs=3)
    assert len(batches) == 6
    for images, labels in batches.as_numpy_iterator():
        assert images.dtype == np.uint8 and images.shape == (4, 9, 9, 1)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(images[:, 4, 4, 0], labels + 1)
    rows = np.array(_rows(batches)).reshape(3, 8)
    assert all(len(set(epoch)) == 8 for epoch in rows.tolist())
    assert len({tuple(epoch) for epoch in rows.tolist()}) == 3


@pytest.mark.parametrize("crop_and_flip", [False, True])
def test_a_resumed_run_sees_what_it_would_have_seen(crop_and_flip):
    split = _numbered(10, crop_and_flip=crop_and_flip)
    options = {"batch_size": 5, "seed": 7, "epochs": 4}
    whole = list(split.training_batches(**options).as_numpy_iterator())
    # TensorFlow's own seed plays no part.
    tf.random.set_seed(123)
    resumed = split.training_batches(**options, initial_epoch=3)
    assert len(resumed) == 2
    for expected, received in zip(whole[6:], resumed.as_numpy_iterator(), strict=True):
        for one, other in zip(expected, received, strict=True):
            np.testing.assert_array_equal(one, other)


def test_another_seed_is_another_order():
    split = _numbered(20)
    orders = [_rows(split.training_batches(batch_size=20, seed=s, epochs=1)) for s in (0, 1)]
    assert orders[0] != orders[1]


def test_a_crop_depends_on_seed_epoch_and_row_alone():
    def crops_of(split, **options):
        seen = {}
        for number, (images, labels) in enumerate(split.training_batches(**options)):
            epoch = number // (len(split) // options["batch_size"])
            seen |= {(epoch, int(row)): image for image, row in zip(images, labels, strict=True)}
        return seen

    split = _numbered(12, crop_and_flip=True)
    small = crops_of(split, batch_size=3, seed=0, epochs=2)
    large = crops_of(split, batch_size=12, seed=0, epochs=2)
    assert len(small) == len(large) == 24
    for key, image in small.items():
        np.testing.assert_array_equal(image, large[key])
    moved = [np.any(small[0, row] != small[1, row]) for row in range(12)]
    assert np.mean(moved) > 0.7
    other = crops_of(split, batch_size=12, seed=1, epochs=2)
    assert np.mean([np.any(large[key] != other[key]) for key in large]) > 0.7


def test_images_are_cropped_only_where_it_is_asked_for():
    split = _numbered(8)
    ((images, labels),) = split.training_batches(batch_size=8, seed=0, epochs=1)
    np.testing.assert_array_equal(images, split.images[labels])


def test_workers_share_the_batches_of_a_single_one():
    split = _numbered(40, crop_and_flip=True)
    options = {"batch_size": 8, "seed": 0, "epochs": 2}
    whole = list(split.training_batches(**options).as_numpy_iterator())
    shares = []
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=4)
        batches = split.training_batches(**options, input_context=context)
        assert len(batches) == 20
        shares.append(list(batches.as_numpy_iterator()))
    assert shares[0][0][0].shape == (2, 9, 9, 1)
    for step, (images, labels) in enumerate(whole):
        parts = [shares[worker][2 * step + i] for worker in range(2) for i in range(2)]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)


def test_a_strategy_takes_the_batches_of_a_worker():
    split, strategy = _numbered(10), tf.distribute.MirroredStrategy(["CPU:0"])
    batches = strategy.distribute_datasets_from_function(
        lambda context: split.training_batches(
            batch_size=5, seed=0, epochs=1, input_context=context
        )
    )
    rows = [labels.numpy().tolist() for _, labels in batches]
    assert rows == _rows(split.training_batches(batch_size=5, seed=0, epochs=1))


@pytest.mark.parametrize(("batch_size", "replicas"), [(6, 4), (9, 3)])
def test_a_batch_that_cannot_be_shared_is_refused(batch_size, replicas):
    context = tf.distribute.InputContext(2, 0, num_replicas_in_sync=replicas)
    with pytest.raises(ValueError, match=f"Received: batch_size={batch_size} for {replicas}"):
        epochs.share_of(batch_size, context)


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="Received: 10 images, batch_size=11"):
        _numbered(10).training_batches(batch_size=11, seed=0, epochs=1)


def test_batches_are_in_order_and_the_last_one_is_what_is_left():
    split = _numbered(10, crop_and_flip=True)
    batches = split.batches(4)
    assert len(batches) == 3
    assert _rows(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    images = np.concatenate([images for images, _ in batches.as_numpy_iterator()])
    np.testing.assert_array_equal(images, split.images)
    assert batches.element_spec[0].dtype == tf.uint8


def test_in_memory_keeps_the_images_and_drops_the_crops():
    part = in_memory(_numbered(5, crop_and_flip=True))
    assert not part.crop_and_flip and part.image_shape == (9, 9, 1) and len(part) == 5


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
