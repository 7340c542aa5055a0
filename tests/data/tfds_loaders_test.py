import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import data
from data import corrupt as command
from data.crops import View
from data.options import Options
from data.records import ImageRecords
from data.source import Order
from data.tfds_loaders import load_imagenet2012, prepared_builder
from tests.data.fake_tfds import fake_images, write_cifar

TRAIN, TEST = 2400, 30


@pytest.fixture(scope="module")
def imagenet(tfds_folder):
    return data.load("imagenet2012", data_dir=tfds_folder, holdout_examples=1000, image_size=16)


@pytest.fixture(scope="module")
def records(tfds_folder) -> ImageRecords:
    builder = prepared_builder("imagenet2012", Options(tfds_folder))
    return ImageRecords.of(builder, "train", View(16))


def test_tfds_knows_cifar10_without_a_network(tmp_path):
    builder = tfds.builder("cifar10", data_dir=str(tmp_path))
    assert builder.info.features["image"].shape == (32, 32, 3)
    assert builder.info.features["label"].num_classes == 10
    assert not builder.is_prepared()


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet2012"])
@pytest.mark.parametrize("there", ["nothing", "an empty folder", "TFDS_DATA_DIR"])
def test_missing_data_are_named_at_once(tmp_path, name, there, monkeypatch):
    if there == "an empty folder":
        (tmp_path / name).mkdir()
    if there == "TFDS_DATA_DIR":
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    # It would try for minutes.
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", pytest.fail)
    with pytest.raises(FileNotFoundError) as error:
        data.load(name, data_dir=None if there == "TFDS_DATA_DIR" else str(tmp_path))
    message = str(error.value)
    assert message.startswith(f"{name} is not in {tmp_path / name}. ")
    assert f"tfds build {name} --data_dir={tmp_path}" in message and "--download" in message
    if name == "imagenet2012":
        assert f"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into {tmp_path}" in message


def test_a_download_is_tried_where_it_is_asked_for(tmp_path, monkeypatch, capsys):
    def fail(self):
        raise tfds.download.DownloadError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(OSError, match="cifar10 could not .*: no network .*tfds build cifar10"):
        data.load("cifar10", data_dir=str(tmp_path), download=True)
    command_line = ["--dataset=cifar10", f"--data_dir={tmp_path}", f"--output_dir={tmp_path}/c"]
    with pytest.raises(SystemExit):
        command.main(command_line)
    assert "Add --download to your command" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main([*command_line, "--download"])
    assert "could not be prepared: no network" in capsys.readouterr().err


def test_imagenet_asks_for_its_archives(tmp_path):
    with pytest.raises(OSError, match="imagenet2012 could not be prepared: .*ILSVRC2012_img_train"):
        data.load("imagenet2012", data_dir=str(tmp_path), download=True)


@pytest.mark.parametrize(
    ("name", "classes", "holdout"), [("cifar10", 10, 20), ("cifar100", 100, 100)]
)
def test_cifar(tfds_folder, name, classes, holdout):
    count, tested = {"cifar10": (120, 30), "cifar100": (600, 100)}[name]
    splits = data.load(name, data_dir=tfds_folder)
    assert splits.counts() == {"train": count - holdout, "holdout": holdout, "test": tested}
    assert len(splits.class_names) == classes and splits.name == name
    assert splits.train.crop_and_flip and not splits.holdout.crop_and_flip
    assert splits.source == f"TFDS {name}/3.0.2 from {tfds_folder}/{name}/3.0.2"
    assert np.bincount(splits.holdout.labels).tolist() == [holdout // classes] * classes
    parts = {"train": [splits.train, splits.holdout], "test": [splits.test]}
    for seed, expected in enumerate(parts.values()):
        images = np.concatenate([part.images for part in expected])
        labels = np.concatenate([part.labels for part in expected])
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        written = {
            image.tobytes(): row % classes
            for row, image in enumerate(fake_images(len(images), 32, seed=seed))
        }
        read = dict(zip(map(bytes, images), labels.tolist(), strict=True))
        assert read == written


@pytest.mark.parametrize(("asked", "done"), [(True, True), (False, False)])
def test_cropping_can_be_switched_off(tfds_folder, asked, done):
    splits = data.load("cifar10", data_dir=tfds_folder, crop_and_flip=asked)
    assert splits.train.crop_and_flip == done


def test_cifar_without_a_label_is_refused(tmp_path, monkeypatch):
    write_cifar("cifar10", str(tmp_path), train=20, test=10)
    as_dataset = tfds.core.DatasetBuilder.as_dataset

    def unlabelled(self, **options):
        return as_dataset(self, **options) | {"label": tf.fill([20], -1)}

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_dataset", unlabelled)
    with pytest.raises(ValueError, match="train of .* has examples without a label in 0..9"):
        data.load("cifar10", data_dir=str(tmp_path))


def test_the_parts_of_imagenet(imagenet, records):
    assert imagenet.counts() == {"train": TRAIN - 1000, "holdout": 1000, "test": TEST}
    assert imagenet.class_names[:2] == ("n01440764", "n01443537")
    assert imagenet.holdout.source.in_memory
    assert imagenet.holdout.images.shape == (1000, 16, 16, 3)
    assert sorted(imagenet.holdout.labels) == list(range(1000))
    assert imagenet.test.labels.tolist() == list(range(TEST))
    # Of 2,400 images classes 0 to 399 have three, the others two; one of each is held out.
    assert np.bincount(imagenet.train.labels).tolist() == [2] * 400 + [1] * 600
    for seed, same in ((0, True), (1, False)):
        rows = records.stratified_rows(1000, seed=seed, what="hold-out")
        rest = np.delete(records.positions, rows)
        assert np.array_equal(rest, imagenet.train.source.positions) == same


def test_a_draw_that_does_not_come_out_even_or_cannot_be(records):
    rows = records.stratified_rows(1200, seed=0, what="hold-out")
    counts = np.bincount(records.labels[rows], minlength=1000)
    assert counts.sum() == 1200 and set(counts) == {1, 2}
    for size in (999, TRAIN, 2100):
        with pytest.raises(ValueError, match=f"hold-out .* Received: {size}"):
            records.stratified_rows(size, seed=0, what="hold-out")


def test_only_the_files_that_hold_a_part_are_read(records):
    part = records.select([3, 301, 302, 2399])
    read = [tf.data.TFRecordDataset(name) for name in np.array(records.files)[[0, 1, 7]]]
    assert [sum(1 for _ in file) for file in read] == [300] * 3
    files = tuple(name if i in (0, 1, 7) else "/nowhere" for i, name in enumerate(part.files))
    elsewhere = dataclasses.replace(part, files=files)
    assert [int(position) for position, _ in elsewhere.in_order()] == part.positions.tolist()


def _positions(source, *, context=None, count=None):
    keys = source.epoch(tf.constant(2, tf.int64), Order(0, 8, context), None)
    return [int(position) for position, _ in keys.take(count or len(source))]


def test_neighbours_of_an_epoch_come_from_all_over_the_files(imagenet):
    positions = _positions(imagenet.train.source)
    assert sorted(positions) == imagenet.train.source.positions.tolist()
    assert np.median(np.abs(np.diff(positions))) > TRAIN / 10


def test_workers_read_files_of_their_own(imagenet):
    source = imagenet.train.source
    contexts = [tf.distribute.InputContext(2, i, num_replicas_in_sync=2) for i in range(2)]
    half = len(source) // 2
    parts = [_positions(source, context=context, count=half) for context in contexts]
    assert not {p // 300 for p in parts[0]} & {p // 300 for p in parts[1]}
    # Where a worker's files hold less than half of the images, it begins them again.
    assert len(parts[0]) == len(parts[1]) == half
    batches = imagenet.train.training_batches(
        batch_size=100, seed=0, epochs=1, input_context=contexts[1]
    )
    assert [len(labels) for _, labels in batches] == [50] * 14
    many = tf.distribute.InputContext(9, 0, num_replicas_in_sync=9)
    with pytest.raises(ValueError, match="6 files cannot be read by 9 workers"):
        imagenet.train.training_batches(batch_size=9, seed=0, epochs=1, input_context=many)


def test_images_of_imagenet_are_cut_to_the_middle(tfds_folder):
    _, train, test, *_ = load_imagenet2012(Options(tfds_folder, False, 14))
    # 14 of 16 pixels, and 12 of 14, which are enlarged again; JPEG blurs the noise.
    ((images, _),) = test.select([0]).batches(1)
    original = tf.io.decode_jpeg(tf.io.encode_jpeg(fake_images(1, 16, seed=1)[0])).numpy()
    difference = images[0].numpy().astype(int) - original[1:15, 1:15]
    assert np.abs(difference).mean() < 2.0
    assert not train.crop_and_flip and train.image_shape == (14, 14, 3)
