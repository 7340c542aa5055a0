"""RandAugment with a magnitude of its own per image, which is the distance."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment.augmentation import Augmentation, check_operations
from keras_autolabel.augment.augmix import MAGNITUDE_OF_LEVEL as AUGMIX_MAGNITUDE_OF_LEVEL
from keras_autolabel.augment.chain import apply_chain
from keras_autolabel.batch import AugmentedBatch, check_numbers, check_whole, to_uint8, untranslated

RANDAUGMENT_OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


def _factor(level: tf.Tensor) -> tf.Tensor:
    return 1.0 + 0.9 * level / 10.0


# As AugMix, but a level of 0 must leave the image as it is.
MAGNITUDE_OF_LEVEL = {
    **AUGMIX_MAGNITUDE_OF_LEVEL,
    "posterize": lambda level: 8.0 - tf.round(4.0 * tf.abs(level) / 10.0),
    "color": _factor,
    "contrast": _factor,
    "brightness": _factor,
    "sharpness": _factor,
}


class RandAugmentDraw(NamedTuple):
    """The random parameters of a batch.

    Attributes:
        distance: float32 [B] in [0, 1], magnitude / max_magnitude.
        bucket: int32 [B].
        operation: int32 [B, num_operations], index into ``operations``.
        direction: float32 [B, num_operations], 1 or −1.
    """

    distance: tf.Tensor
    bucket: tf.Tensor
    operation: tf.Tensor
    direction: tf.Tensor


@keras.utils.register_keras_serializable(package="keras_autolabel")
class RandAugment(Augmentation):
    """RandAugment (Cubuk et al., 2020); the magnitude is drawn per image and is its distance.

    ``num_operations`` random operations, all at the image's magnitude, which is uniform on
    [0, max_magnitude] of 10; the distance is magnitude / max_magnitude. At magnitude 0 all
    operations but autocontrast and equalize, which have none, leave the image as it is.

    Args:
        num_buckets: N, buckets of the distance, at least 1.
        num_operations: Operations in each chain, at least 1.
        max_magnitude: Largest magnitude, in (0, 10].
        operations: Names, of ``RANDAUGMENT_OPERATIONS``.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> randaugment = RandAugment(num_buckets=5)
        >>> images = tf.zeros([2, 8, 8, 3], tf.uint8)
        >>> batch = randaugment(images, [0, 1], seed=tf.constant([1, 2]), bucket=4)
        >>> bool(tf.reduce_all(batch.distance >= 0.8)), randaugment.bucket_shape
        (True, (5,))
    """

    # The warp has no kernel of XLA.
    jit_compiles = False

    def __init__(
        self,
        *,
        num_buckets: int = 10,
        num_operations: int = 2,
        max_magnitude: float = 10.0,
        operations: Sequence[str] = RANDAUGMENT_OPERATIONS,
    ) -> None:
        super().__init__(num_buckets=num_buckets)
        check_whole(1, num_operations=num_operations)
        check_numbers(max_magnitude=max_magnitude)
        if not 0.0 < max_magnitude <= 10.0:
            raise ValueError(
                f"max_magnitude must be in (0, 10]. Received: max_magnitude={max_magnitude}"
            )
        self.num_operations = int(num_operations)
        self.max_magnitude = max_magnitude
        self.operations = check_operations(operations, RANDAUGMENT_OPERATIONS)

    @untranslated
    def draw(
        self, labels: tf.Tensor, seed: tf.Tensor, bucket: int | tf.Tensor | None = None
    ) -> RandAugmentDraw:
        """Draws the random parameters of a batch; arguments as in ``__call__``."""
        seeds = tf.random.split(seed, 3)
        distance, bucket = self.draw_distance(labels, seeds[0], bucket)
        shape = [tf.shape(labels)[0], self.num_operations]
        operation = tf.random.stateless_uniform(
            shape, seeds[1], maxval=len(self.operations), dtype=tf.int32
        )
        forward = tf.random.stateless_uniform(shape, seeds[2]) < 0.5
        return RandAugmentDraw(distance, bucket, operation, tf.where(forward, 1.0, -1.0))

    @untranslated
    def apply(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        drawn: RandAugmentDraw,
        network: Callable | None = None,
    ) -> AugmentedBatch:
        """Applies the chain; arguments as in ``Augmentation.apply``."""
        grey = sorted({"color", "contrast"} & set(self.operations))
        if images.shape[-1] not in (1, 3) and grey:
            raise ValueError(
                f"{' and '.join(grey)} need 1 or 3 channels; leave them out of operations. "
                f"Received: {images.shape[-1]} channels"
            )
        level = self.max_magnitude * drawn.distance[:, tf.newaxis] * drawn.direction
        chain = apply_chain(
            to_uint8(images), drawn.operation, level, self.operations, MAGNITUDE_OF_LEVEL
        )
        return self.moved(chain, labels, drawn)
