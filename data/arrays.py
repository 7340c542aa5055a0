"""Images in memory."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data.source import Order, Source

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays(Source):
    """Images and classes in memory. The key of an image is its row.

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

    def select(self, rows: np.ndarray) -> "Arrays":
        """The images with these row numbers, int [m]."""
        return Arrays(self.images[rows], self.labels[rows])

    def epoch(
        self, epoch: "tf.Tensor", order: Order, crops: "tf.Tensor | None"
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
