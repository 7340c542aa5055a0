"""Batches for training and for evaluation, of images in memory and of images on disk."""

from typing import TYPE_CHECKING

import tensorflow as tf

from data import crops
from data.epochs import all_epochs, epoch_order, finished, share_of, steps_per_epoch

if TYPE_CHECKING:
    from data.splits import Split
    from data.streams import StreamedSplit


def training_batches(
    split: "Split",
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    initial_epoch: int = 0,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Shuffled batches of images in memory; see ``Split.training_batches``."""
    steps = steps_per_epoch(len(split), batch_size)
    rows_here, rows_per_replica = share_of(batch_size, input_context)
    all_images, all_labels = _on_cpu(split)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = epoch_order(
            len(split), epoch, seed=seed, batch_size=batch_size, input_context=input_context
        )
        moves = ()
        if split.crop_and_flip:
            moves = crops.draw_shifts(len(split), seed=crops.crop_seed(seed, epoch))
        rows = (order, *(tf.gather(move, order) for move in moves))
        return tf.data.Dataset.from_tensor_slices(rows).batch(rows_per_replica)

    def gather(rows: tf.Tensor, *moves: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.ensure_shape(rows, [rows_per_replica])
        images = tf.gather(all_images, rows)
        if moves:
            images = crops.shift_and_flip(images, *moves)
        return images, tf.gather(all_labels, rows)

    order = all_epochs(one_epoch, initial_epoch=initial_epoch, epochs=epochs)
    batches = order.map(gather, num_parallel_calls=tf.data.AUTOTUNE)
    return finished(batches, steps * (epochs - initial_epoch) * rows_here // rows_per_replica)


def batches(split: "Split", batch_size: int) -> tf.data.Dataset:
    """All images in memory, in order; see ``Split.batches``."""
    images, labels = _on_cpu(split)

    def rows_from(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return images[start : start + batch_size], labels[start : start + batch_size]

    starts = tf.data.Dataset.range(0, len(split), batch_size)
    return starts.map(rows_from, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def streamed_training_batches(
    split: "StreamedSplit",
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    initial_epoch: int = 0,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Shuffled batches of images on disk; see ``Split.training_batches``.

    What an epoch reads is known from its number; images are decoded behind that, several at once,
    and no more of them than the next few batches hold.
    """
    steps = steps_per_epoch(len(split), batch_size)
    rows_here, rows_per_replica = share_of(batch_size, input_context)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = split.source.shuffled(
            epoch, seed=seed, batch_size=batch_size, input_context=input_context
        )
        seeds = crops.crop_seed(seed, epoch)
        return shuffled.take(steps * rows_here).map(lambda *example: (seeds, *example))

    def read(seeds: tf.Tensor, position: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = split.source.read(key)
        if not split.crop_and_flip:
            return _centre_of(encoded, split), label
        seeds = tf.random.experimental.stateless_fold_in(seeds, position)
        return _random_crop_of(encoded, split, seeds), label

    examples = all_epochs(one_epoch, initial_epoch=initial_epoch, epochs=epochs)
    examples = examples.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return finished(
        examples.batch(rows_per_replica, drop_remainder=True),
        steps * (epochs - initial_epoch) * rows_here // rows_per_replica,
    )


def streamed_batches(split: "StreamedSplit", batch_size: int) -> tf.data.Dataset:
    """All images on disk, in order; see ``Split.batches``."""

    def read(position: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = split.source.read(key)
        return _centre_of(encoded, split), label

    examples = split.source.in_order().map(read, num_parallel_calls=tf.data.AUTOTUNE)
    number = tf.data.experimental.assert_cardinality(-(-len(split) // batch_size))
    return examples.batch(batch_size).apply(number).prefetch(2)


def _on_cpu(split: "Split") -> tuple[tf.Tensor, tf.Tensor]:
    with tf.device("CPU:0"):
        return tf.constant(split.images), tf.constant(split.labels, tf.int32)


def _centre_of(encoded: tf.Tensor, split: "StreamedSplit") -> tf.Tensor:
    return crops.decode_window(
        encoded,
        lambda shape: crops.centre_window(shape, fraction=split.centre_fraction),
        image_size=split.image_size,
        antialias=split.antialias,
    )


def _random_crop_of(encoded: tf.Tensor, split: "StreamedSplit", seeds: tf.Tensor) -> tf.Tensor:
    window_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seeds, 2))
    image = crops.decode_window(
        encoded,
        lambda shape: crops.draw_window(shape, seed=window_seed),
        image_size=split.image_size,
        antialias=split.antialias,
    )
    return tf.where(crops.draw_flip(flip_seed), image[:, ::-1], image)
