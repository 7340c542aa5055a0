"""A user's own images: a folder for each class."""

import concurrent.futures
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from data.batches import epoch_rows
from data.crops import View
from data.options import Options, Parts
from data.source import Order, Source
from data.splits import TEST_SEED, Split, split_off

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP"}
# Of these, by Pillow's modes, TensorFlow reads nothing, or the numbers of the colours.
BAD_BMPS = {"1": "a BMP of 1 bit", "P": "a BMP with a palette"}
START_OF_SCAN, END_OF_PICTURE = b"\xff\xda", b"\xff\xd9"
# A marker of a JPEG, but for those that may stand within a scan.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# What file managers leave behind.
NO_IMAGES = ("thumbs.db", "desktop.ini")
TEST_FOLDERS = ("test", "validation", "val")
DEFAULT_SIZE = 224
# Like ImageNet's 224 of 256, for networks that were trained on random windows.
CENTRE_AFTER_CROPS = 0.875
MOST_TESTED = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles(Source):
    """Image files and their classes. The key of an image is its row.

    On several machines each worker reads the files of its own rows and no others.

    Attributes:
        files: str [M], paths.
        labels: int32 [M].
        view: What is shown of each image.
    """

    files: np.ndarray
    labels: np.ndarray
    view: View

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        return self.view.image_shape

    def select(self, rows: np.ndarray) -> "ImageFiles":
        """The files with these row numbers, int [m]."""
        return dataclasses.replace(self, files=self.files[rows], labels=self.labels[rows])

    def epoch(self, epoch: tf.Tensor, order: Order, crops: tf.Tensor | None) -> tf.data.Dataset:
        """This worker's rows of an epoch, see ``epoch_rows``, each with the seed of all crops."""
        rows = tf.cast(epoch_rows(len(self), epoch, order), tf.int64)
        rows = tf.data.Dataset.from_tensor_slices(rows)
        return rows if crops is None else rows.map(lambda row: (row, crops))

    def reader(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """What gives an image and its label for a row and a seed of crops."""
        with tf.device("CPU:0"):
            files, labels = tf.constant(self.files), tf.constant(self.labels)

        def read(row: tf.Tensor, *crops: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self.view.of(tf.io.read_file(files[row]), row, *crops), labels[row]

        return read


def load_image_folder(options: Options) -> Parts:
    """Loads ``data_dir``: a folder for each class, or ``train`` and ``test`` with these folders.

    Every image becomes a square of RGB: the middle square of it, or, in training with
    ``crop_and_flip``, a random window. Where there are no folders ``train`` and ``test`` (or
    ``validation``, or ``val``), a sixth of each class is the test part, at most 10,000 images in
    all. Links are followed. Files are listed and checked now, and decoded when their turn comes.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are fewer than two classes, a class has no image, train and test have
            other classes, or files cannot be read.

    Example:
        >>> # load_image_folder(Options(data_dir="flowers", image_size=64))
    """
    if options.data_dir is None:
        raise ValueError("image_folder needs --data_dir: a folder with a folder for each class.")
    folder = pathlib.Path(options.data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; it must have one for each class.")
    class_names, folders = _parts_of(folder)
    crops = options.crops(published=False)
    view = View(options.image_size or DEFAULT_SIZE, CENTRE_AFTER_CROPS if crops else 1.0)
    parts, unreadable = [], 0
    for part in folders:
        files, labels, bad = _readable_files(part, class_names, options.skip_unreadable)
        parts.append(Split(ImageFiles(files, labels, view), crop_and_flip=crops))
        unreadable += bad
    if len(parts) == 1:
        size = min(len(parts[0]) // 6, MOST_TESTED)
        parts = split_off(parts[0], size, seed=TEST_SEED, what="test")
    left_out = f", {unreadable} unreadable files left out" if unreadable else ""
    return Parts(f"images of {folder}{left_out}", *parts, class_names)


def _parts_of(folder: pathlib.Path) -> tuple[tuple[str, ...], list[pathlib.Path]]:
    """The classes, and the folders of train and test, or the only one."""
    names = _folders(folder)
    tests = [name for name in TEST_FOLDERS if name in names]
    if len(tests) != 1 or set(names) != {"train", *tests}:
        return _class_names(folder), [folder]
    train, test = folder / "train", folder / tests[0]
    class_names = _class_names(train)
    different = sorted(set(_folders(test)) ^ set(class_names))
    if different:
        raise ValueError(
            f"{train} and {test} must have the same classes. "
            f"Received: {', '.join(different[:5])} in one of them only"
        )
    return class_names, [train, test]


def _folders(folder: pathlib.Path) -> list[str]:
    entries = [entry for entry in folder.iterdir() if entry.name[0] != "."]
    broken = sorted(entry.name for entry in entries if not entry.exists())
    if broken:
        raise ValueError(
            f"{folder} has links that lead nowhere; mend or remove them. Received: "
            f"{', '.join(broken[:5])}"
        )
    return sorted(entry.name for entry in entries if entry.is_dir())


def _class_names(folder: pathlib.Path) -> tuple[str, ...]:
    names = tuple(_folders(folder))
    if len(names) < 2:
        raise ValueError(
            f"{folder} must have a folder for each class, at least 2. Received: "
            f"{', '.join(names) or 'no folder'}"
        )
    stray = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in FORMATS)
    if stray:
        raise ValueError(
            f"{len(stray)} images in {folder} have no label, since they are in no class's folder: "
            f"{', '.join(stray[:5])}."
        )
    return names


def _readable_files(
    folder: pathlib.Path, class_names: tuple[str, ...], skip_unreadable: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    """The files of images below a folder, their labels, and how many files are no image."""
    files, labels = [], []
    for label, name in enumerate(class_names):
        entries = [
            path
            for path in sorted(_files_below(folder / name))
            if path.name[0] != "." and path.name.lower() not in NO_IMAGES
        ]
        files += entries
        labels += [label] * len(entries)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        problems = list(threads.map(problem_of, files))
    bad = [f"{file} ({what})" for file, what in zip(files, problems, strict=True) if what]
    if bad and not skip_unreadable:
        raise ValueError(
            f"{len(bad)} of {len(files)} files in {folder} cannot be read: {', '.join(bad[:5])}"
            f"{', ...' if len(bad) > 5 else ''}. Mend or remove them, or leave them out with "
            "--skip_unreadable."
        )
    good = np.array([what is None for what in problems], bool)
    labels = np.array(labels, np.int32)[good]
    empty = [name for label, name in enumerate(class_names) if label not in labels]
    if empty:
        raise ValueError(
            f"{folder} has no image of {', '.join(empty[:5])}. Known: {', '.join(FORMATS)}."
        )
    return np.array([str(file) for file in files])[good], labels, len(bad)


def _files_below(folder: pathlib.Path, *above: pathlib.Path) -> Iterator[pathlib.Path]:
    """All files below a folder, links followed, and the links that lead in a circle."""
    above = (*above, folder.resolve())
    for entry in folder.iterdir():
        if not entry.is_dir():
            yield entry
        elif any(known.is_relative_to(entry.resolve()) for known in above):
            yield entry
        else:
            yield from _files_below(entry, *above)


def problem_of(file: pathlib.Path) -> str | None:
    """Why a file cannot be trained on; None where all is well.

    JPEGs of a single scan, which are most, are looked through for their end, since their decoder
    passes over damage within it; all other files are decoded.

    Example:
        >>> problem_of(pathlib.Path("notes.txt"))
        'no .jpg, .jpeg, .png, .gif, .bmp'
    """
    from PIL import Image

    if file.is_dir():
        return "a link to a folder that it is in"
    if file.suffix.lower() not in FORMATS:
        return f"no {', '.join(FORMATS)}"
    if not file.is_file():
        return "a broken link"
    try:
        with Image.open(file, formats=sorted(set(FORMATS.values()))) as image:
            kind, mode = image.format, image.mode
            image.verify()
        if kind == "BMP" and mode in BAD_BMPS:
            return f"{BAD_BMPS[mode]}, whose colours would be lost; save it as a PNG"
        encoded = file.read_bytes()
        # A JPEG of several pictures, such as phones make, is an MPO to Pillow.
        if kind in ("JPEG", "MPO") and _is_one_scan(encoded):
            tf.image.extract_jpeg_shape(encoded)
        else:
            tf.io.decode_image(encoded, channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        return error.message.rpartition("}} ")[2].partition(" [Op:")[0]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return "empty" if not file.stat().st_size else str(error).removesuffix(f" {str(file)!r}")
    return None


def _is_one_scan(jpeg: bytes) -> bool:
    """Whether nothing but the end of the picture follows its first scan."""
    start = 2
    while start < len(jpeg) and jpeg[start : start + 2] != START_OF_SCAN:
        start += 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
    marker = MARKER.search(jpeg, start + 2)
    return marker is not None and marker[0] == END_OF_PICTURE
