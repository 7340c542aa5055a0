"""Data sets by name: uint8 images, int32 labels, fixed and disjoint splits."""

import dataclasses
import gzip
import os
from collections.abc import Callable

import numpy as np

FASHION_MNIST_DIR = "/usr/share/datasets/fashion-mnist"
FASHION_MNIST_CLASSES = (
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
# The test part of a data set that comes without one is the same for every seed.
TEST_SEED = 0


@dataclasses.dataclass(frozen=True)
class Split:
    """Some images and their classes.

    Attributes:
        images: uint8 [M, H, W, C].
        labels: int32 [M].
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set in three disjoint parts.

    Attributes:
        name: Name of the data set.
        source: Where the images come from, for reports.
        train: What the network is trained on.
        holdout: The clean validation set that guides labels and temperature; never trained on.
        test: What is reported.
        class_names: Names of the K classes.
    """

    name: str
    source: str
    train: Split
    holdout: Split
    test: Split
    class_names: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Number of images in each part."""
        return {part: len(getattr(self, part)) for part in ("train", "holdout", "test")}


def load(
    name: str,
    *,
    data_dir: str | None = None,
    seed: int = 0,
    train_examples: int | None = None,
    holdout_examples: int | None = None,
) -> Splits:
    """Loads a data set.

    The hold-out is drawn from the training images, stratified by class; ``train_examples`` are a
    stratified draw of what remains. Both depend on ``seed`` alone. The test images never change.

    Args:
        name: One of ``DATASETS``.
        data_dir: Folder with the files; None: where they usually are.
        seed: Seed of the splits.
        train_examples: Training images to keep; None: all that are not held out.
        holdout_examples: Size of the hold-out; None: a sixth of the training images, at most
            5,000.

    Returns:
        ``Splits``.

    Raises:
        ValueError: If the name is unknown or more examples are asked for than there are.
        FileNotFoundError: If files are missing; says which, and how to get them.

    Example:
        >>> load("digits", train_examples=500).counts()
        {'train': 500, 'holdout': 249, 'test': 300}
    """
    if name not in DATASETS:
        raise ValueError(f"Unknown data set; known: {', '.join(DATASETS)}. Received: {name!r}")
    source, train, test, class_names = DATASETS[name](data_dir)
    size = min(len(train) // 6, 5000) if holdout_examples is None else holdout_examples
    train, holdout = split_off(train, size, seed=seed, what="hold-out")
    if train_examples is not None and train_examples != len(train):
        _, train = split_off(train, train_examples, seed=seed + 1, what="training")
    return Splits(name, source, train, holdout, test, class_names)


def split_off(part: Split, size: int, *, seed: int, what: str) -> tuple[Split, Split]:
    """Splits ``size`` examples off, stratified by class.

    Args:
        part: The examples.
        size: How many to split off.
        seed: Seed of the draw.
        what: What they are for, in messages.

    Returns:
        ``(rest, split_off)``.

    Raises:
        ValueError: If there are too few examples, or fewer than one of each class is asked for.

    Example:
        >>> part = Split(np.zeros([6, 8, 8, 1], np.uint8), np.array([0, 0, 0, 1, 1, 1]))
        >>> rest, held_out = split_off(part, 2, seed=0, what="hold-out")
        >>> sorted(held_out.labels.tolist()), len(rest)
        ([0, 1], 4)
    """
    from sklearn.model_selection import train_test_split

    classes = len(np.unique(part.labels))
    if not classes <= size <= len(part) - classes:
        raise ValueError(
            f"The number of {what} examples must leave one example of each of the {classes} "
            f"classes on both sides of {len(part)}. Received: {size}"
        )
    rest, chosen = train_test_split(
        np.arange(len(part)), test_size=size, stratify=part.labels, random_state=seed
    )
    return tuple(
        Split(part.images[rows], part.labels[rows]) for rows in map(np.sort, (rest, chosen))
    )


def _digits(data_dir: str | None) -> tuple[str, Split, Split, tuple[str, ...]]:
    """1,797 handwritten digits of 8×8, brought to 16×16 (Alpaydin & Kaynak, 1998)."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = zoom(digits.images, (1, 2, 2), order=1, mode="nearest", grid_mode=True)
    images = np.round(images * (255.0 / 16.0)).astype(np.uint8)[..., np.newaxis]
    everything = Split(images, digits.target.astype(np.int32))
    train, test = split_off(everything, 300, seed=TEST_SEED, what="test")
    source = "scikit-learn load_digits, 8x8 brought to 16x16"
    return source, train, test, tuple(str(name) for name in digits.target_names)


def _fashion_mnist(data_dir: str | None) -> tuple[str, Split, Split, tuple[str, ...]]:
    """Fashion-MNIST (Xiao et al., 2017), 28×28 grey, out of its four idx.gz files."""
    folder = data_dir or FASHION_MNIST_DIR
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = _read_idx(folder, f"{prefix}-images-idx3-ubyte.gz", offset=16)
        labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte.gz", offset=8)
        if images.size != labels.size * 28 * 28:
            raise ValueError(
                f"The {prefix} files in {folder} do not fit each other: "
                f"{labels.size} labels, {images.size} pixels."
            )
        parts[part] = Split(images.reshape(-1, 28, 28, 1), labels.astype(np.int32))
    return f"Fashion-MNIST from {folder}", parts["train"], parts["test"], FASHION_MNIST_CLASSES


def _read_idx(folder: str, filename: str, *, offset: int) -> np.ndarray:
    path = os.path.join(folder, filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path} is missing. Fashion-MNIST needs train- and t10k-, each with "
            "images-idx3-ubyte.gz and labels-idx1-ubyte.gz, in one folder: install Debian's "
            "package dataset-fashion-mnist (apt-get install dataset-fashion-mnist), or put the "
            "files into a folder and name it with --data_dir."
        )
    try:
        with gzip.open(path) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); get it again.") from error


DATASETS: dict[str, Callable] = {"digits": _digits, "fashion_mnist": _fashion_mnist}
