"""Images in memory, and draws of every class."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

# TensorFlow takes seconds to import, and who corrupts images needs none of it: the functions that
# make batches import it.
if TYPE_CHECKING:
    import tensorflow as tf

    from data.batches import Order


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Images and classes in memory: a ``Source`` of a ``Split``. The key of an image is its row.

    Attributes:
        images: uint8 [M, H, W, C].
        labels: int32 [M].
    """

    images: np.ndarray
    labels: np.ndarray
    in_memory: ClassVar[bool] = True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        return self.images.shape[1:]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def select(self, rows: np.ndarray) -> "Arrays":
        """The images with these row numbers, int [m]."""
        return Arrays(self.images[rows], self.labels[rows])

    def stratified_rows(self, size: int, *, seed: int, what: str) -> np.ndarray:
        """Row numbers of a draw of every class; see the function of this name."""
        return stratified_rows(self.labels, size, seed=seed, what=what)

    def in_order(self) -> "tf.data.Dataset":
        """All rows, in order."""
        import tensorflow as tf

        return tf.data.Dataset.range(len(self))

    def epoch(
        self, epoch: "tf.Tensor", order: "Order", crops: "tf.Tensor | None"
    ) -> "tf.data.Dataset":
        """This worker's rows of an epoch, see ``epoch_rows``, each with its shift and flip."""
        import tensorflow as tf

        from data.batches import epoch_rows
        from data.crops import draw_shifts

        rows = epoch_rows(len(self), epoch, order)
        moves = () if crops is None else draw_shifts(len(self), seed=crops)
        return tf.data.Dataset.from_tensor_slices(
            (rows, *(tf.gather(move, rows) for move in moves))
        )

    def reader(self) -> "Callable[..., tuple[tf.Tensor, tf.Tensor]]":
        """What gives images, uint8 [b, H, W, C], and labels, int32 [b], for rows and moves."""
        import tensorflow as tf

        from data.crops import shift_and_flip

        with tf.device("CPU:0"):
            all_images, all_labels = tf.constant(self.images), tf.constant(self.labels, tf.int32)

        def read(rows: tf.Tensor, *moves: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images = tf.gather(all_images, rows)
            return shift_and_flip(images, *moves) if moves else images, tf.gather(all_labels, rows)

        return read


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
