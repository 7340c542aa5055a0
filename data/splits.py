"""The parts of a data set, wherever their images are."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from data.arrays import Arrays
from data.source import Order, Source

if TYPE_CHECKING:
    import tensorflow as tf

# The test part of a data set that comes without one is the same for every seed.
TEST_SEED = 0


class Split:
    """Some images and their classes, in memory or read when their turn comes.

    Args:
        images: uint8 [M, H, W, C] in memory, beside ``labels``; or a ``Source``, without.
        labels: int32 [M].
        crop_and_flip: Whether training batches are cropped and flipped at random: images in
            memory are padded by 4 pixels and cropped to their size; others show windows of 8% to
            100% of their area. If not, they show what ``batches`` does.

    Attributes:
        source: Where the images come from: ``Arrays``, ``ImageFiles`` or ``ImageRecords``.
        crop_and_flip: As given.

    Example:
        >>> split = Split(np.zeros([10, 8, 8, 1], np.uint8), np.arange(10))
        >>> len(split), split.image_shape
        (10, (8, 8, 1))
    """

    def __init__(
        self,
        images: np.ndarray | Source,
        labels: np.ndarray | None = None,
        crop_and_flip: bool = False,
    ):
        self.source = images if labels is None else Arrays(images, labels)
        self.crop_and_flip = crop_and_flip

    def __len__(self) -> int:
        """Number of images."""
        return len(self.source)

    @property
    def images(self) -> np.ndarray:
        """uint8 [M, H, W, C]; of a part that is in memory, and no other: see ``in_memory``."""
        return self.source.images

    @property
    def labels(self) -> np.ndarray:
        """int32 [M]; reading them may take a pass over the files."""
        return self.source.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        return self.source.image_shape

    def training_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        epochs: int,
        initial_epoch: int = 0,
        initial_step: int = 0,
        input_context: "tf.distribute.InputContext | None" = None,
    ) -> "tf.data.Dataset":
        """Shuffled batches of all epochs, one epoch behind the other.

        A run that is resumed inside epoch e sees what it would have seen: order and crops of an
        epoch depend on nothing but the seed, its number and an image's row. The last, incomplete
        batch of an epoch is left out: it would weigh its examples more than others.

        On several machines, call it inside ``strategy.distribute_datasets_from_function``: with
        the ``input_context`` each worker reads only its own part of each global batch.

        Args:
            batch_size: Rows in each batch, over all replicas.
            seed: Seed of order and crops.
            epochs: Number of epochs, counted from 0.
            initial_epoch: The first epoch to give.
            initial_step: Batches of that epoch that are left out.
            input_context: Of this worker; None: batches are those of all replicas.

        Returns:
            ``tf.data.Dataset`` of (uint8 [b, H, W, C], int32 [b]), with b = ``batch_size`` and
            ``len(self) // batch_size`` batches per epoch, but for what is left out; with an
            ``input_context`` b is the batch of one replica.

        Raises:
            ValueError: If there are fewer images than ``batch_size``, or it cannot be shared.

        Example:
            >>> split = Split(np.zeros([10, 8, 8, 1], np.uint8), np.arange(10))
            >>> len(split.training_batches(batch_size=4, seed=0, epochs=3))
            6
        """
        # TensorFlow takes seconds to import, and who corrupts images needs none of it.
        from data.batches import training_batches

        order, epochs = Order(seed, batch_size, input_context), range(initial_epoch, epochs)
        return training_batches(
            self.source,
            order,
            epochs=epochs,
            initial_step=initial_step,
            crop_and_flip=self.crop_and_flip,
        )

    def batches(self, batch_size: int) -> "tf.data.Dataset":
        """All images in order, never cropped at random, for evaluation.

        Args:
            batch_size: Rows in each batch but the last, which has what is left.

        Returns:
            ``tf.data.Dataset`` of (uint8 [b, H, W, C], int32 [b]).

        Example:
            >>> split = Split(np.zeros([5, 8, 8, 1], np.uint8), np.arange(5))
            >>> [labels.tolist() for _, labels in split.batches(3).as_numpy_iterator()]
            [[0, 1, 2], [3, 4]]
        """
        from data.batches import batches

        return batches(self.source, batch_size)

    def select(self, rows: np.ndarray) -> "Split":
        """The examples with these row numbers, int [m]; ascending, unless all are in memory."""
        return Split(self.source.select(rows), crop_and_flip=self.crop_and_flip)


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

    Example:
        >>> part = Split(np.zeros([6, 8, 8, 1], np.uint8), np.array([0, 1, 0, 1, 0, 1]))
        >>> train, holdout, test = (part.select([i, i + 1]) for i in (0, 2, 4))
        >>> Splits("stripes", "drawn by hand", train, holdout, test, ("no", "yes")).counts()
        {'train': 2, 'holdout': 2, 'test': 2}
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


def split_off(part: Split, size: int, *, seed: int, what: str) -> tuple[Split, Split]:
    """Splits ``size`` examples off, stratified by class; see ``source.stratified_rows``.

    Returns:
        ``(rest, split_off)``.

    Example:
        >>> part = Split(np.zeros([6, 8, 8, 1], np.uint8), np.array([0, 0, 0, 1, 1, 1]))
        >>> rest, held_out = split_off(part, 2, seed=0, what="hold-out")
        >>> sorted(held_out.labels.tolist()), len(rest)
        ([0, 1], 4)
    """
    chosen = part.source.stratified_rows(size, seed=seed, what=what)
    rest = np.setdiff1d(np.arange(len(part)), chosen)
    return part.select(rest), part.select(chosen)


def in_memory(part: Split) -> Split:
    """The images of a part as arrays, as ``batches`` gives them, never cropped nor flipped.

    Example:
        >>> part = Split(np.zeros([6, 8, 8, 1], np.uint8), np.arange(6))
        >>> in_memory(part.select([4, 5])).labels.tolist()
        [4, 5]
    """
    if part.source.in_memory:
        return Split(part.source)
    images = np.empty([len(part), *part.image_shape], np.uint8)
    labels = np.empty([len(part)], np.int32)
    start = 0
    for some_images, some_labels in part.batches(100).as_numpy_iterator():
        end = start + len(some_labels)
        images[start:end], labels[start:end] = some_images, some_labels
        start = end
    return Split(images, labels)
