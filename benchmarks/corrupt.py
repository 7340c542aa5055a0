"""How fast images are corrupted, beside imagecorruptions-imaug.

    python -m benchmarks.corrupt

Crops of a photograph, severity 3. The other package has ImageNet's constants, made for 224 pixels;
ours has those of CIFAR-10-C, so that its blurs are smaller. It takes one image at a time.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from absl import app

from benchmarks.augment import crops
from benchmarks.rounds import FLAGS, Case, Way, benchmark, define_flags
from data.corruptions import corrupt
from data.corruptions.severities import ALL19

SEVERITY = 3


def ours(images: np.ndarray, name: str) -> Callable[[], None]:
    """A batch at a time."""

    def run():
        corrupt(images, name, severity=SEVERITY, seed=FLAGS.seed)

    return run


def by_imagecorruptions(images: np.ndarray, name: str) -> Callable[[], None]:
    """An image at a time."""
    import imagecorruptions

    def run():
        np.random.seed(FLAGS.seed)
        for image in images:
            imagecorruptions.corrupt(image, severity=SEVERITY, corruption_name=name)

    return run


def cases() -> Iterator[Case]:
    """Every corruption, then three of them by the side of the images."""
    images = crops(32, FLAGS.seed, 2 if FLAGS.tiny else 64)
    for name in ALL19[:2] if FLAGS.tiny else ALL19:
        yield _case(f"{name}, {len(images)} of 32×32×3", images, name)
    for name in ("gaussian_noise", "defocus_blur", "elastic_transform"):
        for side in (16,) if FLAGS.tiny else (16, 32, 64, 96):
            images = crops(side, FLAGS.seed, 2 if FLAGS.tiny else 16)
            yield _case(name, images, name, ("side of the images, pixels", side))


def _case(what: str, images: np.ndarray, name: str, grows: tuple | None = None) -> Case:
    ways = [
        Way("keras_autolabel", partial(ours, images, name)),
        Way("imagecorruptions-imaug", partial(by_imagecorruptions, images, name)),
    ]
    return Case(what, ways, len(images), grows=grows)


if __name__ == "__main__":
    define_flags()
    app.run(lambda argv: benchmark("corrupt", cases, argv))
