"""What holds for a split over any source."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import Split, in_memory
from data.batches import share_of
from data.crops import View
from data.image_folder import ImageFiles
from data.options import Options
from data.records import ImageRecords
from data.tfds_loaders import prepared_builder

COUNT = 40
SOURCES = ("arrays", "files", "records")


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tfds_folder) -> dict[str, Split]:
    """40 images of noise from each source, each with a class of its own, no two alike."""
    folder = tmp_path_factory.mktemp("images")
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 14, 14, 3), dtype=np.uint8)
    labels = np.arange(COUNT, dtype=np.int32)
    for image, label in zip(images, labels, strict=True):
        Image.fromarray(image).save(folder / f"{label:02}.png")
    files = np.array(sorted(map(str, folder.iterdir())))
    builder = prepared_builder("imagenet2012", Options(tfds_folder))
    # 300 records are in a file.
    records = ImageRecords.of(builder, "train", View(14)).select(np.arange(280, 280 + COUNT))
    return {
        "arrays": Split(images, labels),
        "files": Split(ImageFiles(files, labels, View(14))),
        "records": Split(records),
    }


@pytest.fixture(params=SOURCES)
def part(request, parts) -> Split:
    return parts[request.param]


@pytest.fixture
def cropped(part) -> Split:
    return Split(part.source, crop_and_flip=True)


def _shown(part: Split, **options) -> dict[tuple[int, int], bytes]:
    """What each image, by epoch and label, looks like; in the order of training."""
    batches = part.training_batches(**options)
    steps, shown = len(part) // options["batch_size"], {}
    for number, (images, labels) in enumerate(batches.as_numpy_iterator()):
        assert images.shape == (options["batch_size"], 14, 14, 3) and images.dtype == np.uint8
        assert labels.dtype == np.int32
        for image, label in zip(images, labels.tolist(), strict=True):
            shown[number // steps, label] = image.tobytes()
    assert len(batches) == number + 1
    # A strategy that shards by files would leave out what the order wants.
    shards = batches.options().experimental_distribute.auto_shard_policy
    assert shards == tf.data.experimental.AutoShardPolicy.DATA
    return shown


def _order(shown: dict, epoch: int) -> list[int]:
    return [label for number, label in shown if number == epoch]


def test_an_epoch_has_each_image_at_most_once_beside_its_label(part):
    shown = _shown(part, batch_size=12, seed=0, epochs=3)
    # A key that came twice in an epoch would make one less.
    assert len(shown) == 3 * 36
    known = dict(zip(part.labels.tolist(), map(bytes, in_memory(part).images), strict=True))
    assert all(known[label] == image for (_, label), image in shown.items())
    other = _shown(part, batch_size=12, seed=1, epochs=1)
    orders = [_order(shown, 0), _order(shown, 1), _order(shown, 2), _order(other, 0)]
    assert len(set(map(tuple, orders))) == 4


@pytest.mark.parametrize("step", [0, 1])
def test_a_resumed_run_sees_what_it_would_have_seen(cropped, step):
    options = {"batch_size": 16, "seed": 7, "epochs": 4}
    whole = list(cropped.training_batches(**options).as_numpy_iterator())
    # TensorFlow's own seed plays no part.
    tf.random.set_seed(123)
    resumed = cropped.training_batches(**options, initial_epoch=2, initial_step=step)
    assert len(resumed) == 4 - step
    for expected, received in zip(whole[4 + step :], resumed.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(expected[0], received[0])
        np.testing.assert_array_equal(expected[1], received[1])


def test_a_crop_depends_on_seed_epoch_and_row_alone(cropped):
    large = _shown(cropped, batch_size=40, seed=0, epochs=2)
    small = _shown(cropped, batch_size=5, seed=0, epochs=2)
    assert small == large and len(large) == 80
    other = _shown(cropped, batch_size=40, seed=1, epochs=1)
    # Of an array 1 of 162 shifts and flips is the same by chance.
    for one, two in ((large, {(0, row): large[1, row] for _, row in other}), (large, other)):
        assert np.mean([one[key] != image for key, image in two.items()]) > 0.9


@pytest.mark.parametrize("source", ["arrays", "files"])
def test_workers_share_the_batches_of_a_single_one(parts, source):
    split = Split(parts[source].source, crop_and_flip=True)
    options = {"batch_size": 8, "seed": 0, "epochs": 2}
    whole = list(split.training_batches(**options).as_numpy_iterator())
    shares = []
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=4)
        batches = split.training_batches(**options, input_context=context)
        assert len(batches) == 20
        shares.append(list(batches.as_numpy_iterator()))
    assert shares[0][0][0].shape == (2, 14, 14, 3)
    for step, (images, labels) in enumerate(whole):
        of_replicas = [shares[worker][2 * step + i] for worker in range(2) for i in range(2)]
        np.testing.assert_array_equal(np.concatenate([each[0] for each in of_replicas]), images)
        np.testing.assert_array_equal(np.concatenate([each[1] for each in of_replicas]), labels)


def test_a_strategy_takes_the_batches_of_a_worker(part):
    strategy, options = tf.distribute.MirroredStrategy(["CPU:0"]), {"batch_size": 20, "seed": 0}
    batches = strategy.distribute_datasets_from_function(
        lambda context: part.training_batches(**options, epochs=1, input_context=context)
    )
    alone = part.training_batches(**options, epochs=1).as_numpy_iterator()
    for (_, labels), (_, expected) in zip(batches, alone, strict=True):
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(("batch_size", "replicas"), [(6, 4), (9, 3)])
def test_a_batch_that_cannot_be_shared_is_refused(batch_size, replicas):
    context = tf.distribute.InputContext(2, 0, num_replicas_in_sync=replicas)
    with pytest.raises(ValueError, match=f"batch_size={batch_size} for {replicas}"):
        share_of(batch_size, context)


def test_fewer_images_than_a_batch_are_refused(part):
    with pytest.raises(ValueError, match="40 images, batch_size=41"):
        part.training_batches(batch_size=41, seed=0, epochs=1)


def test_batches_are_in_order_and_the_last_one_is_what_is_left(cropped):
    batches = cropped.batches(16)
    assert len(batches) == 3 and batches.element_spec[0].dtype == tf.uint8
    read = list(batches.as_numpy_iterator())
    assert [len(labels) for _, labels in read] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in read]), cropped.labels)
    held = in_memory(cropped)
    assert not held.crop_and_flip and held.image_shape == cropped.image_shape == (14, 14, 3)
    np.testing.assert_array_equal(np.concatenate([images for images, _ in read]), held.images)


def test_some_rows_are_selected(cropped):
    rows = np.array([3, 4, 30])
    some = cropped.select(rows)
    assert len(some) == 3 and some.crop_and_flip
    np.testing.assert_array_equal(some.labels, cropped.labels[rows])
    np.testing.assert_array_equal(in_memory(some).images, in_memory(cropped).images[rows])
