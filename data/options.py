"""What a loader is asked for, and what it returns."""

import dataclasses
from typing import NamedTuple

from data.splits import Split


@dataclasses.dataclass(frozen=True)
class Options:
    """How a data set is to be loaded; ``data.load`` explains each one."""

    data_dir: str | None = None
    crop_and_flip: bool | None = None
    image_size: int | None = None
    download: bool = False
    skip_unreadable: bool = False

    def crops(self, published: bool) -> bool:
        """Whether to crop and flip a data set for which ``published`` is the usual."""
        return published if self.crop_and_flip is None else self.crop_and_flip


class Parts(NamedTuple):
    """A data set, before a hold-out is split off.

    Attributes:
        source: Where the images come from, for reports.
        train: The training images, those of the hold-out included.
        test: The test images.
        class_names: Names of the K classes.
        one_held_out_of: The default hold-out is one of so many training images,
        most_held_out: and at most so many.
    """

    source: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    one_held_out_of: int = 6
    most_held_out: int = 5000

    def default_holdout(self) -> int:
        """Size of the hold-out where none is asked for."""
        return min(len(self.train) // self.one_held_out_of, self.most_held_out)
