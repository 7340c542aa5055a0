"""Fashion-MNIST (Xiao et al., 2017): the published files, and a part that lies beside this module.

Source: https://github.com/zalandoresearch/fashion-mnist, MIT licence, see NOTICE.
"""

import gzip
import os
import zlib

import numpy as np

from data.options import Options, Parts
from data.splits import Split

CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SIDE = 28
# The published files, two of each part; images have a header of 16 bytes, labels one of 8.
IMAGES, LABELS = "{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"
PUBLISHED = tuple(name.format(part) for part in ("train", "t10k") for name in (IMAGES, LABELS))

DEBIAN_DIR = "/usr/share/datasets/fashion-mnist"

SMALL_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fashion_mnist_small.png")
# So many images of each class, for training (the hold-out among them) and for tests.
SMALL_TRAIN, SMALL_TEST = 400, 200


def load_fashion_mnist(options: Options) -> Parts:
    """All of Fashion-MNIST: 60,000 and 10,000 grey images of 28×28, out of its four files.

    Args:
        options: ``data_dir``: the folder of the files; None: ``usual_folders``; ``download``:
            whether Keras may fetch them.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or another one.
        OSError: If the download failed.
    """
    folder = find_folder(options)
    train, test = (
        Split(*read_part(folder, part), options.crops(published=False))
        for part in ("train", "t10k")
    )
    return Parts(f"Fashion-MNIST from {folder}", train, test, CLASSES)


def load_fashion_mnist_small(options: Options) -> Parts:
    """4,000 training and 2,000 test images of Fashion-MNIST, of each class equally many.

    They lie in one picture, made by ``data.make_fashion_mnist_small``; image i is of class i % 10.
    """
    from PIL import Image

    with Image.open(SMALL_FILE) as file:
        images = images_in(np.asarray(file))
    labels = (np.arange(len(images)) % len(CLASSES)).astype(np.int32)
    end = SMALL_TRAIN * len(CLASSES)
    train, test = (
        Split(images[part], labels[part], options.crops(published=False))
        for part in (slice(end), slice(end, None))
    )
    source = "6,000 images of Fashion-MNIST, in the repository"
    return Parts(source, train, test, CLASSES, one_held_out_of=4)


def images_in(picture: np.ndarray) -> np.ndarray:
    """Cuts a picture, uint8 [rows·28, columns·28], into images row by row, [M, 28, 28, 1].

    Example:
        >>> picture = np.zeros([56, 84], np.uint8)
        >>> picture[28:, :28] = 9
        >>> images_in(picture)[:, 0, 0, 0].tolist()
        [0, 0, 0, 9, 0, 0]
    """
    rows, columns = (length // SIDE for length in picture.shape)
    tiles = picture.reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2)
    return tiles.reshape(-1, SIDE, SIDE, 1)


def usual_folders() -> list[str]:
    """Where Debian's package puts the files, and where Keras keeps what it fetched.

    Example:
        >>> usual_folders()[0]
        '/usr/share/datasets/fashion-mnist'
    """
    # Keras 2 does not read KERAS_HOME.
    homes = filter(None, (os.environ.get("KERAS_HOME"), "~/.keras"))
    caches = [os.path.join(os.path.expanduser(x), "datasets", "fashion-mnist") for x in homes]
    return list(dict.fromkeys([DEBIAN_DIR, *caches]))


def find_folder(options: Options) -> str:
    """The folder that holds the four published files; options as for ``load_fashion_mnist``.

    Raises:
        FileNotFoundError: If there is none; names a missing file of each folder.
        OSError: If the download failed.

    Example:
        >>> find_folder(Options("/nowhere"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        FileNotFoundError: /nowhere/train-images-idx3-ubyte.gz is missing. ...
    """
    folders = [os.path.expanduser(options.data_dir)] if options.data_dir else usual_folders()
    missing = [_first_missing(folder) for folder in folders]
    if all(missing) and options.download and not options.data_dir:
        _fetch()
        missing = [_first_missing(folder) for folder in folders]
    if not all(missing):
        return folders[missing.index(None)]
    raise FileNotFoundError(
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. {_HOW_TO_GET}"
    )


_HOW_TO_GET = (
    "Fashion-MNIST is four files, train- and t10k-, each with images-idx3-ubyte.gz and "
    "labels-idx1-ubyte.gz, in one folder: add --download to your command once, without --data_dir, "
    "and Keras fetches them (30 MB); or install Debian's package (apt-get install "
    "dataset-fashion-mnist); or name their folder with --data_dir. --dataset=fashion_mnist_small "
    "needs none of this."
)


def _first_missing(folder: str) -> str | None:
    paths = (os.path.join(folder, name) for name in PUBLISHED)
    return next((path for path in paths if not os.path.isfile(path)), None)


def _fetch() -> None:
    """Lets Keras put the files into its cache."""
    from tensorflow import keras

    try:
        keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises a plain one where there is no network.
        reason = str(error).partition("\n")[0]
        raise OSError(f"Fashion-MNIST could not be fetched: {reason}. {_HOW_TO_GET}") from error


def read_part(folder: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8 [M, 28, 28, 1], and labels, int32 [M], of the part "train" or "t10k".

    Raises:
        ValueError: If a file is damaged, or they are not those of Fashion-MNIST.
    """
    pixels = np.frombuffer(unpack(os.path.join(folder, IMAGES.format(part)))[16:], np.uint8)
    labels = np.frombuffer(unpack(os.path.join(folder, LABELS.format(part)))[8:], np.uint8)
    if pixels.size != labels.size * SIDE * SIDE:
        raise ValueError(
            f"The {part} files in {folder} do not fit each other: "
            f"{labels.size} labels, {pixels.size} pixels."
        )
    if not labels.size or labels.max() >= len(CLASSES):
        raise ValueError(
            f"The {part} files in {folder} are not those of Fashion-MNIST, which has labels "
            f"from 0 to 9: {labels.size} labels, up to {labels.max(initial=0)}."
        )
    return pixels.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int32)


def unpack(path: str) -> bytes:
    """What a gzip file holds.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        with gzip.open(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); get it again.") from error
