"""Data sets by name: uint8 images, int32 labels, fixed and disjoint splits.

``DATASETS`` are the loaders by name.

Example:
    >>> list(DATASETS)
    ['fashion_mnist_small', 'digits', 'fashion_mnist', 'cifar10', 'cifar100', 'imagenet2012', \
'image_folder']
"""

import functools
from collections.abc import Callable

import numpy as np

from data.fashion_mnist import load_fashion_mnist, load_fashion_mnist_small
from data.options import Options, Parts
from data.splits import TEST_SEED, Split, Splits, in_memory, split_off

# Data sets whose images come in any size.
RESIZED = ("imagenet2012", "image_folder")
# Data sets that need no files but those of this checkout and of scikit-learn.
COME_ALONG = ("fashion_mnist_small", "digits")


def load(
    name: str,
    *,
    data_dir: str | None = None,
    seed: int = 0,
    train_examples: int | None = None,
    holdout_examples: int | None = None,
    crop_and_flip: bool | None = None,
    image_size: int | None = None,
    download: bool = False,
    skip_unreadable: bool = False,
) -> Splits:
    """Loads a data set.

    The hold-out is drawn from the training images, stratified by class; ``train_examples`` are a
    stratified draw of what remains (of ``imagenet2012``, both have each class equally often).
    Both depend on ``seed`` alone. The test images never change. The hold-out is in memory, and so
    is the rest but for ``imagenet2012`` and ``image_folder``, which are read while they are used.

    Args:
        name: One of ``DATASETS``.
        data_dir: Folder with the files; None: where they usually are. ``image_folder`` needs it,
            ``fashion_mnist_small`` and ``digits`` have none.
        seed: Seed of the splits.
        train_examples: Training images to keep; None: all that are not held out.
        holdout_examples: Size of the hold-out; None: a sixth of the training images, at most
            5,000, of ``imagenet2012`` 10,000; of ``fashion_mnist_small`` a quarter, 1,000.
        crop_and_flip: Whether training images are cropped at random and flipped. None: as is
            published, that is for ``cifar10``, ``cifar100`` and ``imagenet2012``.
        image_size: Side of the images of ``imagenet2012`` and ``image_folder`` in pixels; None:
            224. Other data sets have a size of their own.
        download: Whether TFDS, for ``fashion_mnist`` Keras, may fetch what is missing.
        skip_unreadable: ``image_folder``: whether files that are no readable image are left out.

    Returns:
        ``Splits``.

    Raises:
        ValueError: If the name is unknown, an argument does not fit the data set, files are
            damaged, or more examples are asked for than there are.
        FileNotFoundError: If files are missing; says which, and how to get them.
        ImportError: If TFDS is needed and not installed.
        OSError: If a download failed.

    Example:
        >>> load("fashion_mnist_small").counts()
        {'train': 3000, 'holdout': 1000, 'test': 2000}
    """
    if name not in DATASETS:
        raise ValueError(f"Unknown data set; known: {', '.join(DATASETS)}. Received: {name!r}")
    if image_size is not None and (name not in RESIZED or image_size < 1):
        raise ValueError(
            f"image_size is for {' and '.join(RESIZED)}, and at least 1. "
            f"Received: image_size={image_size} for {name}"
        )
    if data_dir is not None and name in COME_ALONG:
        raise ValueError(
            f"data_dir has no effect: {name} comes along; leave it out, or name another data set. "
            f"Received: data_dir={data_dir}"
        )
    if skip_unreadable and name != "image_folder":
        raise ValueError(f"skip_unreadable is for image_folder; leave it out. Received: {name}")
    options = Options(data_dir, crop_and_flip, image_size, download, skip_unreadable)
    parts = DATASETS[name](options)
    size = parts.default_holdout() if holdout_examples is None else holdout_examples
    train, holdout = split_off(parts.train, size, seed=seed, what="hold-out")
    if train_examples is not None and train_examples != len(train):
        _, train = split_off(train, train_examples, seed=seed + 1, what="training")
    return Splits(name, parts.source, train, in_memory(holdout), parts.test, parts.class_names)


def _digits(options: Options) -> Parts:
    """1,797 handwritten digits of 8×8, brought to 16×16 (Alpaydin & Kaynak, 1998)."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = zoom(digits.images, (1, 2, 2), order=1, mode="nearest", grid_mode=True)
    images = np.round(images * (255.0 / 16.0)).astype(np.uint8)[..., np.newaxis]
    labels = digits.target.astype(np.int32)
    everything = Split(images, labels, options.crops(published=False))
    train, test = split_off(everything, 300, seed=TEST_SEED, what="test")
    source = "scikit-learn load_digits, 8x8 brought to 16x16"
    return Parts(source, train, test, tuple(str(name) for name in digits.target_names))


# These import TensorFlow, which takes seconds, and so they are imported when they are needed.
def _cifar(name: str, options: Options) -> Parts:
    from data.tfds_loaders import load_cifar

    return load_cifar(name, options)


def _imagenet2012(options: Options) -> Parts:
    from data.tfds_loaders import load_imagenet2012

    return load_imagenet2012(options)


def _image_folder(options: Options) -> Parts:
    from data.image_folder import load_image_folder

    return load_image_folder(options)


DATASETS: dict[str, Callable[[Options], Parts]] = {
    "fashion_mnist_small": load_fashion_mnist_small,
    "digits": _digits,
    "fashion_mnist": load_fashion_mnist,
    "cifar10": functools.partial(_cifar, "cifar10"),
    "cifar100": functools.partial(_cifar, "cifar100"),
    "imagenet2012": _imagenet2012,
    "image_folder": _image_folder,
}
