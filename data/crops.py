"""Crops and flips of training images: what is drawn from a seed, then what is done with it."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

PADDING = 4
CROP_AREA, CROP_ASPECT_RATIO = (0.08, 1.0), (3.0 / 4.0, 4.0 / 3.0)
# Keeps the seeds of crops apart from those of the order of an epoch.
CROP_STREAM = 2_000_003


def crop_seed(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """The stateless seed, int64 [2], of all crops of an epoch, int64 []."""
    return tf.stack([tf.constant(seed ^ CROP_STREAM, tf.int64), epoch])


def draw_shifts(num_examples: int, *, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws where each padded image is cropped and whether it is flipped.

    Returns:
        ``(shifts, flips)``: int32 [M, 2], down and right, uniform on 0..2 * PADDING; bool [M],
        true for one half.

    Example:
        >>> shifts, flips = draw_shifts(1000, seed=tf.constant([0, 1]))
        >>> int(tf.reduce_min(shifts)), int(tf.reduce_max(shifts))
        (0, 8)
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    shifts = tf.random.stateless_uniform(
        [num_examples, 2], seeds[0], minval=0, maxval=2 * PADDING + 1, dtype=tf.int32
    )
    return shifts, tf.random.stateless_uniform([num_examples], seeds[1]) < 0.5


def shift_and_flip(images: tf.Tensor, shifts: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Pads images with ``PADDING`` black pixels, crops them to their size and flips some.

    Height and width are known; a shift of ``PADDING`` leaves an image where it is.

    Example:
        >>> image = tf.reshape(tf.range(1, 5), [1, 2, 2, 1])
        >>> shift_and_flip(image, tf.constant([[5, 4]]), tf.constant([True]))[0, :, :, 0].numpy()
        array([[4, 3],
               [0, 0]], dtype=int32)
    """
    height, width = images.shape[1:3]
    rows = shifts[:, :1] + tf.range(height)
    columns = tf.range(width)
    columns = tf.where(flips[:, tf.newaxis], width - 1 - columns, columns) + shifts[:, 1:]
    images = tf.pad(images, [[0, 0], [PADDING, PADDING], [PADDING, PADDING], [0, 0]])
    return tf.gather(tf.gather(images, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def draw_window(image_shape: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Draws a window of 8% to 100% of an image, from 3:4 to 4:3.

    Returns:
        int32 [4]: top, left, height, width in pixels. The whole image, if its shape lets none of
        100 draws fit in.

    Example:
        >>> window = draw_window(tf.constant([100, 200, 3]), seed=tf.constant([0, 1]))
        >>> top, left, height, width = window.numpy().tolist()
        >>> 0 <= top <= 100 - height and 0 <= left <= 200 - width
        True
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        image_shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=CROP_ASPECT_RATIO,
        area_range=CROP_AREA,
        max_attempts=100,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def centre_window(image_shape: tf.Tensor, *, fraction: float) -> tf.Tensor:
    """The square in the middle of an image.

    ``fraction`` is its side by the shorter side of the image; 0.875 is the usual 224 of 256.

    Returns:
        int32 [4]: top, left, height, width in pixels.

    Example:
        >>> centre_window(tf.constant([100, 200, 3]), fraction=0.875).numpy().tolist()
        [6, 56, 87, 87]
    """
    shorter = tf.cast(tf.reduce_min(image_shape[:2]), tf.float32)
    side = tf.maximum(tf.cast(fraction * shorter, tf.int32), 1)
    return tf.concat([(image_shape[:2] - side) // 2, [side, side]], axis=0)


@dataclasses.dataclass(frozen=True)
class View:
    """What is shown of images that come in any size: always a square of RGB.

    Attributes:
        image_size: Side of the square that each becomes, in pixels.
        centre_fraction: Unless it is cropped, the middle square of this part of the shorter side.
        antialias: Whether to filter what a smaller image cannot show; the published settings of
            ImageNet do not.

    Example:
        >>> png = tf.io.encode_png(tf.fill([5, 9, 3], tf.constant(7, tf.uint8)))
        >>> View(4).of(png, 0, tf.constant([0, 1])).shape.as_list()
        [4, 4, 3]
    """

    image_size: int
    centre_fraction: float = 1.0
    antialias: bool = True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.image_size, self.image_size, 3

    def of(
        self, encoded: tf.Tensor, number: tf.Tensor, crops: tf.Tensor | None = None
    ) -> tf.Tensor:
        """What is shown of a file.

        Args:
            encoded: string []: the contents of a JPEG, PNG, GIF (its first frame) or BMP file.
            number: int []: which image it is; on it hangs its crop.
            crops: int [2]: the seed of all crops; None: the middle square is shown.

        Returns:
            uint8 [image_size, image_size, 3].
        """
        if crops is None:
            return self._decoded(
                encoded, lambda shape: centre_window(shape, fraction=self.centre_fraction)
            )
        seed = tf.random.experimental.stateless_fold_in(crops, number)
        window_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        image = self._decoded(encoded, lambda shape: draw_window(shape, seed=window_seed))
        return tf.where(tf.random.stateless_uniform([], flip_seed) < 0.5, image[:, ::-1], image)

    def _decoded(
        self, encoded: tf.Tensor, window_of: Callable[[tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        """The window of an image, bicubically. Of a JPEG nothing but the window is decoded."""

        def of_jpeg() -> tf.Tensor:
            window = window_of(tf.image.extract_jpeg_shape(encoded))
            return tf.image.decode_and_crop_jpeg(encoded, window, channels=3)

        def of_other() -> tf.Tensor:
            image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
            top, left, height, width = tf.unstack(window_of(tf.shape(image)))
            return image[top : top + height, left : left + width]

        image = tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_other)
        size = [self.image_size, self.image_size]
        image = tf.image.resize(image, size, method="bicubic", antialias=self.antialias)
        image = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
        return tf.ensure_shape(image, [*size, 3])
