"""Make data/fashion_mnist_small.png, the part of Fashion-MNIST that lies in the repository.

    python -m data.make_fashion_mnist_small --data_dir=FOLDER

It holds the first 400 images of each class out of the published training images, then the first
200 of each class out of the published test images, one of each class in turn, 100 in a row. The
four published files are checked first. The file is the same to the byte with the same Pillow;
another zlib may pack the same pixels otherwise.
"""

import argparse
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from data.fashion_mnist import (
    CLASSES,
    PUBLISHED,
    SIDE,
    SMALL_FILE,
    SMALL_TEST,
    SMALL_TRAIN,
    find_folder,
    read_part,
    unpack,
)
from data.options import Options

COLUMNS = 100
# SHA-256 of what the files hold, unpacked: Debian's are packed anew, without name and date.
SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}


def check_files(folder: str) -> None:
    """Refuses files that are not the published ones.

    Raises:
        ValueError: With the first file that is another one, its hash and the right one.
    """
    for name in PUBLISHED:
        path = os.path.join(folder, name)
        found = hashlib.sha256(unpack(path)).hexdigest()
        if found != SHA256[name]:
            raise ValueError(
                f"{path} is not the published file: unpacked, its SHA-256 is {found}, not "
                f"{SHA256[name]}; get it again."
            )


def first_of_each_class(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Row numbers of the first examples of each of the ten classes, one of each in turn.

    Example:
        >>> labels = np.array([1, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 9])
        >>> first_of_each_class(labels, 1)
        array([ 2,  0,  3,  4,  5,  6,  7,  8,  9, 10])
    """
    classes = range(len(CLASSES))
    return np.stack([np.flatnonzero(labels == x)[:per_class] for x in classes], axis=1).ravel()


def picture_of(images: np.ndarray, columns: int) -> np.ndarray:
    """Lays images side by side, row by row; ``fashion_mnist.images_in`` cuts them out again.

    Example:
        >>> picture_of(np.zeros([6, 28, 28, 1], np.uint8), 3).shape
        (56, 84)
    """
    tiles = images.reshape(-1, columns, SIDE, SIDE).swapaxes(1, 2)
    return tiles.reshape(-1, columns * SIDE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the file as the command line says, or end with one line that says why not."""
    from PIL import Image

    parser = argparse.ArgumentParser(
        prog="python -m data.make_fashion_mnist_small",
        description="Make the part of Fashion-MNIST that lies in the repository.",
    )
    parser.add_argument("--data_dir", help="folder of the four published files")
    parser.add_argument("--output", default=SMALL_FILE, help="the PNG; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        folder = find_folder(Options(options.data_dir))
        check_files(folder)
        chosen = []
        for part, per_class in (("train", SMALL_TRAIN), ("t10k", SMALL_TEST)):
            images, labels = read_part(folder, part)
            chosen.append(images[first_of_each_class(labels, per_class)])
        picture = Image.fromarray(picture_of(np.concatenate(chosen), COLUMNS))
        picture.save(options.output, "PNG", optimize=True)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(f"{options.output}: {sum(map(len, chosen))} images")


if __name__ == "__main__":
    main()
