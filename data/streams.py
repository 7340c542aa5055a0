"""Images that are read when their turn comes, whatever they are stored in."""

import dataclasses
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


class Source(Protocol):
    """Where a ``StreamedSplit`` gets its encoded images from."""

    @property
    def labels(self) -> np.ndarray:
        """int32 [M], in order."""

    def __len__(self) -> int:
        """Number of images, M."""

    def in_order(self) -> "tf.data.Dataset":
        """All images once, as (position int64 [], key for ``read``), in order."""

    def shuffled(
        self,
        epoch: "tf.Tensor",
        *,
        seed: int,
        batch_size: int,
        input_context: "tf.distribute.InputContext | None",
    ) -> "tf.data.Dataset":
        """This worker's images of an epoch, as ``in_order`` gives them, for whole batches."""

    def read(self, key: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
        """An image as it is stored, string [], and its label, int32 []."""

    def select(self, rows: np.ndarray) -> "Source":
        """The images with these row numbers, int [m] ascending."""

    def stratified_rows(self, size: int, *, seed: int, what: str) -> np.ndarray:
        """Row numbers of a draw of every class."""


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """Some images and their classes, read and decoded when their turn comes.

    Attributes:
        source: The encoded images.
        image_size: Side of the square that each becomes, in pixels.
        crop_and_flip: Whether training batches show random windows, 8% to 100% of the area, and
            half of them flipped; if not, they show what ``batches`` does.
        centre_fraction: ``batches`` shows the middle square of this part of the shorter side.
        antialias: Whether images are filtered before they are made smaller.

    Example:
        >>> from data.image_folder import ImageFiles
        >>> source = ImageFiles(np.array(["ant.png", "bee.jpg"]), np.array([0, 1], np.int32))
        >>> split = StreamedSplit(source, image_size=64)
        >>> len(split), split.image_shape
        (2, (64, 64, 3))
    """

    source: Source
    image_size: int
    crop_and_flip: bool = False
    centre_fraction: float = 1.0
    antialias: bool = True

    def __len__(self) -> int:
        """Number of images."""
        return len(self.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        return self.image_size, self.image_size, 3

    @property
    def labels(self) -> np.ndarray:
        """int32 [M]; reading them may take a pass over the files."""
        return self.source.labels

    def training_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        epochs: int,
        initial_epoch: int = 0,
        input_context: "tf.distribute.InputContext | None" = None,
    ) -> "tf.data.Dataset":
        """Shuffled batches of all epochs; everything is as in ``Split.training_batches``."""
        # TensorFlow takes seconds to import, and who corrupts images needs none of it.
        from data import pipeline

        return pipeline.streamed_training_batches(
            self,
            batch_size=batch_size,
            seed=seed,
            epochs=epochs,
            initial_epoch=initial_epoch,
            input_context=input_context,
        )

    def batches(self, batch_size: int) -> "tf.data.Dataset":
        """All images in order, as (uint8 [b, H, W, 3], int32 [b]); the last batch is what is left.

        Args:
            batch_size: Rows in each batch but the last.

        Returns:
            ``tf.data.Dataset``.
        """
        from data import pipeline

        return pipeline.streamed_batches(self, batch_size)

    def select(self, rows: np.ndarray) -> "StreamedSplit":
        """The examples with these row numbers, int [m] ascending."""
        return dataclasses.replace(self, source=self.source.select(rows))

    def stratified_rows(self, size: int, *, seed: int, what: str) -> np.ndarray:
        """Row numbers of a draw of every class."""
        return self.source.stratified_rows(size, seed=seed, what=what)
