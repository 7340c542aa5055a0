import dataclasses
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import data
from data.image_folder import ImageFiles

CLASSES = ("ant", "bee", "cat")


def _picture(path, number, side=20):
    """A picture of one colour, which tells its number; JPEGs keep it but for a level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = side + number % 5, side + number % 3
    Image.new("RGB", (width, height), (number % 256, 100, number // 256)).save(path)


def _fill(folder, per_class, *, suffix="png", first=0):
    for label, name in enumerate(CLASSES):
        for i in range(per_class):
            number = first + label * per_class + i
            _picture(folder / name / f"{i:04d}.{suffix}", number)


def _numbers(images) -> np.ndarray:
    return images[:, 0, 0, 0].astype(int) + 256 * images[:, 0, 0, 2].astype(int)


@pytest.fixture
def folder(tmp_path):
    _fill(tmp_path, 20)
    return tmp_path


def _load(folder, **options):
    return data.load("image_folder", data_dir=str(folder), image_size=8, **options)


def test_parts_are_disjoint_and_stratified(folder):
    splits = _load(folder, holdout_examples=9)
    assert splits.counts() == {"train": 41, "holdout": 9, "test": 10}
    assert splits.class_names == CLASSES and splits.train.image_shape == (8, 8, 3)
    seen = []
    for part in (splits.train, splits.holdout, splits.test):
        part = data.in_memory(part)
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
        numbers = _numbers(part.images)
        np.testing.assert_array_equal(numbers // 20, part.labels)
        assert np.ptp(np.bincount(part.labels)) <= 1
        seen += numbers.tolist()
    assert sorted(seen) == list(range(60))
    assert isinstance(splits.train, data.StreamedSplit) and isinstance(splits.holdout, data.Split)


def test_the_seed_moves_the_hold_out_but_not_the_test_images(folder):
    one, other = (_load(folder, holdout_examples=9, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.test.source.files, other.test.source.files)
    assert np.any(one.holdout.images != other.holdout.images)
    few = _load(folder, holdout_examples=9, train_examples=12)
    assert np.bincount(few.train.labels).tolist() == [4, 4, 4]
    assert set(few.train.source.files) <= set(one.train.source.files)


@pytest.mark.parametrize("test_folder", ["test", "validation", "val"])
def test_folders_train_and_test(tmp_path, test_folder):
    _fill(tmp_path / "train", 6, suffix="jpg")
    _fill(tmp_path / test_folder, 2, suffix="bmp", first=18)
    splits = _load(tmp_path, holdout_examples=3)
    assert splits.counts() == {"train": 15, "holdout": 3, "test": 6}
    assert splits.class_names == CLASSES
    assert _numbers(data.in_memory(splits.test).images).tolist() == list(range(18, 24))


def test_other_classes_in_the_test_folder_are_refused(tmp_path):
    _fill(tmp_path / "train", 2)
    _fill(tmp_path / "test", 2)
    (tmp_path / "test" / "dog").mkdir()
    with pytest.raises(ValueError, match="same classes. Received: dog in one of them only"):
        _load(tmp_path)


def test_images_in_folders_below_a_class_belong_to_it(folder):
    _picture(folder / "bee" / "queens" / "0.gif", 255)
    (folder / "bee" / ".DS_Store").write_text("")
    (folder / "bee" / "Thumbs.db").write_text("")
    (folder / ".cache").mkdir()
    assert sum(_load(folder, holdout_examples=9).counts().values()) == 61


@pytest.mark.parametrize("crop_and_flip", [False, True])
def test_training_batches_are_a_function_of_seed_and_epoch(tmp_path, crop_and_flip):
    for number in range(12):
        rng = np.random.default_rng(number)
        path = tmp_path / CLASSES[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 30, 3)).astype(np.uint8)).save(path)
    train = _load(tmp_path, holdout_examples=2, crop_and_flip=crop_and_flip).train
    options = {"batch_size": 4, "seed": 3, "epochs": 3}
    whole = list(train.training_batches(**options).as_numpy_iterator())
    assert len(whole) == len(train.training_batches(**options)) == 6
    assert whole[0][0].shape == (4, 8, 8, 3) and whole[0][0].dtype == np.uint8
    tf.random.set_seed(123)
    resumed = train.training_batches(**options, initial_epoch=2).as_numpy_iterator()
    for expected, received in zip(whole[4:], resumed, strict=True):
        np.testing.assert_array_equal(expected[0], received[0])
        np.testing.assert_array_equal(expected[1], received[1])
    images = np.concatenate([images for images, _ in whole])
    # Windows of 24 images are 24 pictures; without them there are only those of the files.
    assert len({image.tobytes() for image in images}) == (24 if crop_and_flip else 8)
    assert train.centre_fraction == (0.875 if crop_and_flip else 1.0)


def test_workers_share_the_batches_of_a_single_one(folder):
    train = _load(folder, holdout_examples=9, crop_and_flip=True).train
    options = {"batch_size": 8, "seed": 0, "epochs": 1}
    whole = np.concatenate([images for images, _ in train.training_batches(**options)])
    shares = []
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=2)
        batches = train.training_batches(**options, input_context=context)
        shares.append(np.stack([images for images, _ in batches]))
    together = np.concatenate(shares, axis=1).reshape(whole.shape)
    np.testing.assert_array_equal(together, whole)


@dataclasses.dataclass(frozen=True)
class CountedFiles(ImageFiles):
    """Counts the files that are read."""

    counter: list = dataclasses.field(default_factory=list)

    def read(self, key):
        with tf.control_dependencies([tf.py_function(self.counter.append, [key], [])]):
            return super().read(tf.identity(key))


def test_no_more_files_are_read_than_the_next_batches_need(tmp_path):
    _fill(tmp_path, 100)
    train = _load(tmp_path, holdout_examples=9, crop_and_flip=True).train
    source = CountedFiles(train.source.files, train.source.labels)
    counted = dataclasses.replace(train, source=source)
    batches = counted.training_batches(batch_size=4, seed=0, epochs=100)
    assert len(counted) == 241 and not source.counter
    # Without autotuning, which widens buffers while the consumer is slow, little is ahead: two
    # batches that wait, one being made, and what the threads of map hold. An epoch is 241 images.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    options.threading.private_threadpool_size = 2
    for taken, _ in enumerate(batches.with_options(options).take(5), start=1):
        assert 4 * taken <= len(source.counter) <= 4 * taken + 40


@pytest.mark.parametrize("skip", [False, True])
def test_unreadable_files_are_named_and_counted(folder, skip):
    (folder / "ant" / "0000.png").write_bytes(b"")
    (folder / "bee" / "0001.png").write_bytes((folder / "bee" / "0002.png").read_bytes()[:-20])
    _picture(folder / "cat" / "0003.jpg", 3, side=200)
    jpeg = (folder / "cat" / "0003.jpg").read_bytes()
    (folder / "cat" / "0003.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "cat" / "notes.txt").write_text("no image")
    if skip:
        splits = _load(folder, holdout_examples=9, skip_unreadable=True)
        assert sum(splits.counts().values()) == 58
        assert "4 unreadable files left out" in splits.source
        # What is left can indeed be read.
        assert len(data.in_memory(splits.train)) == len(splits.train)
        return
    with pytest.raises(ValueError, match="4 of 62 files .* --skip_unreadable") as error:
        _load(folder)
    for name in ("ant/0000.png (empty)", "bee/0001.png", "cat/0003.jpg", "cat/notes.txt (no .jpg"):
        assert name in str(error.value)


def test_a_jpeg_with_something_behind_its_end_is_read(folder):
    _picture(folder / "cat" / "0000.jpg", 7)
    with open(folder / "cat" / "0000.jpg", "ab") as file:
        file.write(bytes(5000))
    assert sum(_load(folder, holdout_examples=9).counts().values()) == 61


def _remove(folder, names):
    for name in names:
        for path in (folder / name).iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "0.png").touch(), "1 images in .* have no label, .*: 0.png"),
        (lambda folder: _remove(folder, ["bee"]), "has no image of bee"),
        (lambda folder: _remove(folder, CLASSES), "has no image of ant, bee, cat"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message):
        _load(folder)


def test_a_folder_with_one_class_or_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 2. Received: no folder"):
        _load(tmp_path)
    _picture(tmp_path / "ant" / "0.png", 0)
    with pytest.raises(ValueError, match="at least 2. Received: ant"):
        _load(tmp_path)


def test_classes_with_a_single_image_are_refused(tmp_path):
    _fill(tmp_path, 20)
    _picture(tmp_path / "dog" / "0.png", 0)
    with pytest.raises(ValueError, match="on both sides of a split. Received: 1 classes"):
        _load(tmp_path)


def test_a_folder_must_be_named_and_be_there(tmp_path):
    with pytest.raises(ValueError, match="needs --data_dir"):
        data.load("image_folder")
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere"):
        _load(tmp_path / "nowhere")


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
