"""Makes a small set of colour images to try things on: which photograph is a piece of?

    python -m benchmarks.photographs --output_dir=runs/photographs
    python -m train.compare --dataset=image_folder --data_dir=runs/photographs --image_size=32

The photographs are those that come with scikit-image and scikit-learn, grey ones among them. They
are cut into tiles that do not overlap; every fourth, along diagonals, is for the test. A photograph
gives at most --tiles of them, drawn at random.
"""

import os

import numpy as np
from absl import app, flags
from PIL import Image
from skimage import data as skimage_data
from sklearn.datasets import load_sample_image

from train import command_line

# Of scikit-image those that it brings along; chessboards and the like are no photographs.
OF_SKIMAGE = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "retina",
    "rocket",
)
OF_SKLEARN = ("china", "flower")
ONE_IN = 4

flags.DEFINE_string("output_dir", "runs/photographs", "Folder that is made.")
flags.DEFINE_integer("side", 32, "Side of a tile in pixels.", lower_bound=8)
flags.DEFINE_integer("tiles", 250, "Tiles of a photograph at most.", lower_bound=2)
flags.DEFINE_integer("seed", 0, "Seed of what is drawn where there are more tiles.")

FLAGS = flags.FLAGS


def photographs() -> dict[str, np.ndarray]:
    """Name -> uint8 [H, W, 3]."""
    found = {name: getattr(skimage_data, name)() for name in OF_SKIMAGE}
    found |= {name: load_sample_image(f"{name}.jpg") for name in OF_SKLEARN}
    return {name: np.asarray(Image.fromarray(x).convert("RGB")) for name, x in found.items()}


def tiles_of(photograph: np.ndarray, side: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cuts a photograph into tiles for training and for the test, which share no pixel.

    Args:
        photograph: uint8 [H, W, 3].
        side: Height and width of a tile.

    Returns:
        ``(train, test)``, lists of uint8 [side, side, 3].

    Example:
        >>> train, test = tiles_of(np.zeros([64, 130, 3], np.uint8), 32)
        >>> len(train), len(test)
        (6, 2)
    """
    rows, columns = (length // side for length in photograph.shape[:2])
    train, test = [], []
    for row in range(rows):
        for column in range(columns):
            y, x = row * side, column * side
            # Two columns a row: neighbours of a test tile, diagonal ones too, are not of the test.
            part = test if (column + 2 * row) % ONE_IN == 0 else train
            part.append(photograph[y : y + side, x : x + side])
    return train, test


def main(argv: list[str]) -> None:
    """Makes the folder."""
    with command_line.one_line_errors("benchmarks.photographs", argv):
        if os.path.exists(FLAGS.output_dir):
            raise ValueError(f"{FLAGS.output_dir} is there already; name another --output_dir.")
        rng = np.random.default_rng(FLAGS.seed)
        counts = {"train": 0, "test": 0}
        for name, photograph in photographs().items():
            parts = dict(zip(counts, tiles_of(photograph, FLAGS.side), strict=True))
            most = {"test": FLAGS.tiles // ONE_IN, "train": FLAGS.tiles - FLAGS.tiles // ONE_IN}
            for part, tiles in parts.items():
                folder = os.path.join(FLAGS.output_dir, part, name)
                os.makedirs(folder)
                for number in sorted(rng.permutation(len(tiles))[: most[part]]):
                    Image.fromarray(tiles[number]).save(os.path.join(folder, f"{number:04d}.png"))
                    counts[part] += 1
        print(
            f"{FLAGS.output_dir}: {counts['train']:,} training, {counts['test']:,} test tiles of "
            f"{len(OF_SKIMAGE + OF_SKLEARN)} photographs, {FLAGS.side} pixels, seed {FLAGS.seed}."
        )


if __name__ == "__main__":
    app.run(main)
