"""What a ``Split`` gets its images from, and draws of every class."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

# TensorFlow takes seconds to import, and who corrupts images needs none of it: the functions that
# make batches import it.
if TYPE_CHECKING:
    import tensorflow as tf


class Order(NamedTuple):
    """What the order of training is drawn for.

    Attributes:
        seed: Seed of the order.
        batch_size: Rows in each batch, over all replicas.
        input_context: Of this worker; None: there is only one.
    """

    seed: int
    batch_size: int
    input_context: "tf.distribute.InputContext | None" = None


class Source(abc.ABC):
    """Images and their classes. Datasets of them hold keys: what ``reader`` needs to find each one.

    Attributes:
        labels: int32 [M], in order.
        image_shape: Height, width and channels of each image, as it is given.
        in_memory: Whether ``images`` are at hand; ``reader`` then takes the keys of a whole batch.
    """

    labels: np.ndarray
    image_shape: tuple[int, int, int]
    in_memory: ClassVar[bool] = False

    def __len__(self) -> int:
        """Number of images, M."""
        return len(self.labels)

    @abc.abstractmethod
    def select(self, rows: np.ndarray) -> "Source":
        """The images with these row numbers, int [m] ascending."""

    def stratified_rows(self, size: int, *, seed: int, what: str) -> np.ndarray:
        """Row numbers of a draw of every class; see the function of this name."""
        return stratified_rows(self.labels, size, seed=seed, what=what)

    def in_order(self) -> "tf.data.Dataset":
        """The keys of all images once, in order; where a key is no more than that, the rows."""
        import tensorflow as tf

        return tf.data.Dataset.range(len(self))

    @abc.abstractmethod
    def epoch(
        self, epoch: "tf.Tensor", order: Order, crops: "tf.Tensor | None"
    ) -> "tf.data.Dataset":
        """The keys of this worker's images of an epoch, int64 [], for whole batches.

        Where there is a seed of ``crops``, int [2], each key is followed by what an image needs to
        be cropped and flipped.
        """

    @abc.abstractmethod
    def reader(self) -> "Callable[..., tuple[tf.Tensor, tf.Tensor]]":
        """What gives an image, uint8, and its label, int32, for the parts of a key."""


def stratified_rows(labels: np.ndarray, size: int, *, seed: int, what: str) -> np.ndarray:
    """Draws examples, every class as often as it should be.

    Args:
        labels: int [M].
        size: How many to draw.
        seed: Seed of the draw.
        what: What they are for, in messages.

    Returns:
        int [size], row numbers, ascending.

    Raises:
        ValueError: If there are too few examples, or fewer than one of each class is asked for.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1, 1])
        >>> labels[stratified_rows(labels, 2, seed=0, what="hold-out")].tolist()
        [0, 1]
    """
    # Slow to import, and a worker that corrupts images imports this module, too.
    from sklearn.model_selection import train_test_split

    counts = np.unique(labels, return_counts=True)[1]
    if counts.min(initial=2) < 2:
        raise ValueError(
            f"Each class needs an image on both sides of a split. Received: {np.sum(counts < 2)} "
            f"classes with one image, where {what} examples are split off"
        )
    if not len(counts) <= size <= len(labels) - len(counts):
        raise ValueError(
            f"The number of {what} examples must leave one example of each of the {len(counts)} "
            f"classes on both sides of {len(labels)}. Received: {size}"
        )
    _, chosen = train_test_split(
        np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed
    )
    return np.sort(chosen)
