import io
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import data
from data import corrupt as command
from data.corruptions import corrupt
from data.crops import View
from data.image_folder import ImageFiles, problem_of

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
    assert not splits.train.source.in_memory and splits.holdout.source.in_memory


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
    (tmp_path / test_folder / "dog").mkdir()
    with pytest.raises(ValueError, match="Received: dog"):
        _load(tmp_path)


def test_images_in_folders_below_a_class_belong_to_it(folder):
    _picture(folder / "bee" / "queens" / "0.gif", 255)
    (folder / "bee" / ".DS_Store").write_text("")
    (folder / "bee" / "Thumbs.db").write_text("")
    (folder / ".cache").mkdir()
    assert sum(_load(folder, holdout_examples=9).counts().values()) == 61


def test_windows_are_trained_on_and_the_middle_is_measured_where_it_is_asked_for(folder):
    for crop_and_flip, fraction in ((False, 1.0), (True, 0.875)):
        splits = _load(folder, holdout_examples=9, crop_and_flip=crop_and_flip)
        assert splits.train.crop_and_flip == splits.test.crop_and_flip == crop_and_flip
        assert splits.train.source.view == splits.test.source.view == View(8, fraction, True)


def test_no_more_files_are_read_than_the_next_batches_need(tmp_path):
    numbers = []

    class CountedFiles(ImageFiles):
        def reader(self):
            read = super().reader()

            def counted(row, *crops):
                with tf.control_dependencies([tf.py_function(numbers.append, [row], [])]):
                    return read(tf.identity(row), *crops)

            return counted

    _fill(tmp_path, 100)
    source = _load(tmp_path, holdout_examples=9, crop_and_flip=True).train.source
    source = CountedFiles(source.files, source.labels, source.view)
    batches = data.Split(source).training_batches(batch_size=4, seed=0, epochs=100)
    assert len(source) == 241 and not numbers
    # Without autotuning, which widens buffers while the consumer is slow, little is ahead: two
    # batches that wait, one being made, and what the threads of map hold. An epoch is 241 images.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    options.threading.private_threadpool_size = 2
    for taken, _ in enumerate(batches.with_options(options).take(5), start=1):
        assert 4 * taken <= len(numbers) <= 4 * taken + 40


def _encoded(kind, mode="RGB", **options) -> bytes:
    """Noise of 48 by 64 pixels, rather red."""
    noise = np.random.default_rng(0).integers(0, [256, 150, 50], (48, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _mpo() -> bytes:
    """A JPEG of two pictures, as phones write it."""
    return _encoded("MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))])


def _short_png() -> bytes:
    """A PNG whose sums are right, but whose pixels are too few."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)}
    chunks |= {b"IDAT": zlib.compress(bytes(40)), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
        for kind, text in chunks.items()
    )


def _damaged(jpeg, at, with_what) -> bytes:
    return jpeg[:at] + with_what + jpeg[at + len(with_what) :]


def _bad_scan() -> bytes:
    """A JPEG of several scans, with a damaged table between two of them."""
    jpeg = _encoded("JPEG", progressive=True)
    return _damaged(jpeg, jpeg.rindex(b"\xff\xc4") + 5, b"\xff" * 16)


def _bad_header() -> bytes:
    jpeg = _encoded("JPEG")
    return _damaged(jpeg, jpeg.index(b"\xff\xc4") + 5, b"\xff" * 16)


def _stray_marker() -> bytes:
    """A JPEG in the middle of which a second one seems to begin."""
    jpeg = _encoded("JPEG")
    return _damaged(jpeg, len(jpeg) // 2, b"\xff\xd8\xff\xd8")


def _without_its_end(encoded) -> bytes:
    return encoded[: len(encoded) // 2]


BAD_FILES = {
    "empty.png": (lambda: b"", "empty"),
    "notes.txt": (lambda: b"no image", "no .jpg"),
    "truncated.png": (lambda: _encoded("PNG")[:-20], "Truncated"),
    "truncated.jpg": (lambda: _without_its_end(_encoded("JPEG")), "Invalid JPEG"),
    "truncated.bmp": (lambda: _without_its_end(_encoded("BMP")), "Input size should match"),
    "bit.bmp": (lambda: _encoded("BMP", "1"), "a BMP of 1 bit, .* save it as a PNG"),
    "palette.bmp": (lambda: _encoded("BMP", "P"), "a BMP with a palette, .* save it as a PNG"),
    "truncated.gif": (lambda: _without_its_end(_encoded("GIF")), "Invalid GIF"),
    "truncated_mpo.jpg": (lambda: _mpo()[:2000], "Invalid JPEG"),
    "bad_scan.jpg": (_bad_scan, "Invalid JPEG"),
    "bad_header.jpg": (_bad_header, "Invalid JPEG"),
    "stray_marker.jpg": (_stray_marker, "Invalid JPEG"),
    "short.png": (_short_png, "Invalid PNG"),
}


def test_what_tensorflow_cannot_decode_is_named_and_counted(folder):
    for name, (make, _) in BAD_FILES.items():
        (folder / "ant" / name).write_bytes(make())
    for file in (folder / "ant").iterdir():
        problem = problem_of(file)
        if file.name in BAD_FILES:
            assert re.search(BAD_FILES[file.name][1], problem) and "\n" not in problem
        else:
            assert problem is None
    with pytest.raises(
        ValueError, match=f"{len(BAD_FILES)} of {60 + len(BAD_FILES)} files"
    ) as error:
        _load(folder)
    assert "ant/bad_header.jpg (Invalid JPEG" in str(error.value)
    splits = _load(folder, holdout_examples=9, skip_unreadable=True)
    assert sum(splits.counts().values()) == 60
    assert f"{len(BAD_FILES)} unreadable files" in splits.source


GOOD_FILES = {
    "mpo.jpg": _mpo,
    "progressive.jpg": lambda: _encoded("JPEG", progressive=True),
    "cmyk.jpg": lambda: _encoded("JPEG", "CMYK"),
    # What is damaged within a scan is decoded all the same, and what follows the end is no matter.
    "noisy.jpg": lambda: _damaged(_encoded("JPEG"), 2000, bytes(100)) + b"\xff\xd8",
    "grey.bmp": lambda: _encoded("BMP", "L"),
    "palette.png": lambda: _encoded("PNG", "P"),
    "bit.png": lambda: _encoded("PNG", "1"),
    "palette.gif": lambda: _encoded("GIF"),
}


def test_what_tensorflow_can_decode_is_read(tmp_path):
    _fill(tmp_path / "train", 4)
    _fill(tmp_path / "test", 4)
    for name, make in GOOD_FILES.items():
        (tmp_path / "test" / "cat" / f"a_{name}").write_bytes(make())
    test = data.in_memory(_load(tmp_path, holdout_examples=3).test)
    assert len(test) == 12 + len(GOOD_FILES)
    for image, name in zip(test.images[12:], sorted(GOOD_FILES), strict=True):
        expected = np.asarray(Image.open(io.BytesIO(GOOD_FILES[name]())).convert("RGB"))[:, 8:56]
        np.testing.assert_allclose(image.mean((0, 1)), expected.mean((0, 1)), atol=3, err_msg=name)


def test_links_are_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    _picture(elsewhere / "deep" / "0.png", 255)
    for number in range(6):
        _picture(elsewhere / "dogs" / f"{number}.png", number)
    (folder / "bee" / "more").symlink_to(elsewhere / "deep")
    (folder / "bee" / "one.png").symlink_to(elsewhere / "deep" / "0.png")
    (folder / "dog").symlink_to(elsewhere / "dogs")
    splits = _load(folder, holdout_examples=10)
    assert splits.class_names == (*CLASSES, "dog")
    assert sum(splits.counts().values()) == 68


def test_broken_links_and_circles_are_named(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "ant" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "ant" / "gone").symlink_to(folder / "nowhere")
    (folder / "bee" / "self").symlink_to(folder / "bee")
    (folder / "bee" / "up").symlink_to(folder)
    (folder / "cat" / "away").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder / "cat")
    with pytest.raises(ValueError, match="5 of 65 files") as error:
        _load(folder)
    message = str(error.value)
    assert "ant/gone (no .jpg" in message and "ant/gone.png (a broken link)" in message
    for name in ("bee/self", "bee/up", "cat/away/back"):
        assert f"{name} (a link to a folder that it is in)" in message
    assert _load(folder, holdout_examples=9, skip_unreadable=True).counts()["train"] == 41


def test_the_command_corrupts_the_test_images_of_a_run(folder):
    (folder / "ant" / "notes.txt").write_text("no image")
    options = {"image_size": 24, "crop_and_flip": True, "skip_unreadable": True}
    test = data.in_memory(data.load("image_folder", data_dir=str(folder), **options).test)
    arguments = ["--dataset=image_folder", f"--data_dir={folder}", "--image_size=24"]
    arguments += ["--crop_and_flip", "--skip_unreadable", "--corruptions=contrast"]
    command.main([*arguments, f"--output_dir={folder}-c", "--severities=2", "--processes=1"])
    expected = corrupt(test.images, "contrast", severity=2, seed=0)
    np.testing.assert_array_equal(np.load(f"{folder}-c/contrast.npy"), expected)


def test_the_command_refuses_large_images_before_it_reads_them(folder, capsys):
    arguments = ["--dataset=image_folder", f"--data_dir={folder}", f"--output_dir={folder}-c"]
    with pytest.raises(SystemExit):
        command.main([*arguments, "--image_size=224", "--nocrop_and_flip"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "at most 96 pixels" in error and "[1, 224, 224, 3]" in error


def _remove(folder, names):
    for name in names:
        for path in (folder / name).iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "0.png").touch(), "1 images .*: 0.png"),
        (lambda folder: _remove(folder, ["bee"]), "no image of bee"),
        (lambda folder: _remove(folder, CLASSES), "no image of ant, bee, cat"),
        (lambda folder: [shutil.rmtree(folder / name) for name in CLASSES], "Received: no folder"),
        (lambda folder: [shutil.rmtree(folder / name) for name in CLASSES[1:]], "Received: ant"),
        (lambda folder: _picture(folder / "dog" / "0.png", 0), "Received: 1 classes"),
        (lambda folder: (folder / "dog").symlink_to(folder / "nowhere"), "Received: dog"),
        (shutil.rmtree, "no folder /"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused(folder, change, message):
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _load(folder)
    with pytest.raises(ValueError, match="--data_dir"):
        data.load("image_folder")
