"""Images in TFRecord files, read in a new order each epoch and by each worker in part."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from data.crops import View
from data.source import Order, Source

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Files that are read at once, and records among which those of an epoch are shuffled.
FILES_AT_ONCE, RECORDS_SHUFFLED = 16, 2048
# Keeps the seeds of the records' order apart from those of the files'.
RECORD_STREAM = 3_000_017


@dataclasses.dataclass(frozen=True, eq=False)
class ImageRecords(Source):
    """Images and classes in TFRecord files.

    The key of an image is its position in the files, counted through all of them, and its record,
    a serialised example. On several machines each worker reads its own part of the files, and no
    others: a new part each epoch.

    Attributes:
        files: Paths.
        lengths: int [F], records in each file.
        features: What a record holds.
        positions: int64 [M], ascending: the records that belong to this part.
        view: What is shown of each image.
    """

    files: tuple[str, ...]
    lengths: np.ndarray
    features: "tfds.features.FeatureConnector"
    positions: np.ndarray
    view: View

    @classmethod
    def of(cls, builder: "tfds.core.DatasetBuilder", split: str, view: View) -> "ImageRecords":
        """All records of a split, such as ``"train"``, of a prepared builder.

        Raises:
            ValueError: If the files are no TFRecords.
        """
        if builder.info.file_format.value != "tfrecord":
            raise ValueError(
                f"{builder.data_dir} must hold TFRecord files. "
                f"Received: {builder.info.file_format.value}"
            )
        info = builder.info.splits[split]
        files = tuple(str(file) for file in info.filepaths)
        lengths = np.array(info.shard_lengths, np.int64)
        return cls(files, lengths, builder.info.features, np.arange(lengths.sum()), view)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.positions)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        return self.view.image_shape

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32 [M]; reads every file of this part once, without decoding an image."""
        labels = self.in_order().map(lambda _, record: self._parse(record)[1]).batch(1000)
        return np.concatenate([*labels.as_numpy_iterator(), np.zeros([0], np.int32)])

    def in_order(self) -> tf.data.Dataset:
        """All positions and records once."""
        files = tf.data.Dataset.from_tensor_slices(self._files_of_part())
        return files.flat_map(self._records).filter(self._belongs())

    def epoch(self, epoch: tf.Tensor, order: Order, crops: tf.Tensor | None) -> tf.data.Dataset:
        """This worker's positions and records of an epoch, each with the seed of all crops.

        Files come in a drawn order, 16 at once; records are shuffled among 2,048. A worker whose
        files hold less than its part begins them again.
        """
        seeds = tf.stack([tf.constant(order.seed, tf.int64), epoch])
        context, worker, workers = order.input_context, 0, 1
        if context is not None:
            worker, workers = context.input_pipeline_id, context.num_input_pipelines
        files = self._files_of_part()
        if len(files) < workers:
            raise ValueError(f"{len(files)} files cannot be read by {workers} workers.")
        files = tf.random.experimental.stateless_shuffle(files, seed=seeds)
        files = files[worker::workers]
        records = tf.data.Dataset.from_tensor_slices(files).interleave(
            self._records, cycle_length=FILES_AT_ONCE, num_parallel_calls=tf.data.AUTOTUNE
        )
        records = records.filter(self._belongs()).batch(RECORDS_SHUFFLED)
        records = records.enumerate().map(functools.partial(_shuffled_together, seeds))
        records = records.prefetch(1).unbatch().repeat()
        return records if crops is None else records.map(lambda *key: (*key, crops))

    def reader(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """What gives an image and its label for a position, a record and a seed of crops."""

        def read(position: tf.Tensor, record: tf.Tensor, *crops: tf.Tensor):
            encoded, label = self._parse(record)
            return self.view.of(encoded, position, *crops), label

        return read

    def select(self, rows: np.ndarray) -> "ImageRecords":
        """The images with these row numbers, int [m] ascending."""
        return dataclasses.replace(self, positions=self.positions[rows])

    def stratified_rows(self, size: int, *, seed: int, what: str) -> np.ndarray:
        """Draws rows, each class equally often (where it does not come out even, give or take 1).

        Files are read in a drawn order until there is enough of every class: 2% of ImageNet for
        10,000 images. Their shares of the classes would need a pass over all of it.

        All else is as in ``source.stratified_rows``.
        """
        classes = self.features["label"].num_classes
        rng = np.random.default_rng(seed)
        wanted = np.full([classes], size // classes)
        wanted[rng.permutation(classes)[: size % classes]] += 1
        files = rng.permutation(self._files_of_part()) if classes <= size < len(self) else []
        records = tf.data.Dataset.from_tensor_slices(np.array(files, np.int64))
        records = records.flat_map(self._records).filter(self._belongs())
        examples = records.map(lambda position, record: (position, self._parse(record)[1]))
        chosen = []
        for position, label in examples.as_numpy_iterator():
            if wanted[label]:
                wanted[label] -= 1
                chosen.append(position)
            if len(chosen) == size:
                return np.searchsorted(self.positions, np.sort(chosen))
        raise ValueError(
            f"The number of {what} examples must be at least {classes}, and leave some of "
            f"{len(self)}; each class comes equally often. Received: {size}"
        )

    def _parse(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The image of a record, as it is stored, and its label, int32 []."""
        import tensorflow_datasets as tfds

        example = self.features.deserialize_example(
            record, decoders={"image": tfds.decode.SkipDecoding()}
        )
        return example["image"], tf.cast(example["label"], tf.int32)

    def _files_of_part(self) -> np.ndarray:
        """int64, the numbers of the files that hold something of this part."""
        ends = np.cumsum(self.lengths)
        return np.unique(np.searchsorted(ends, self.positions, side="right"))

    def _records(self, file: tf.Tensor) -> tf.data.Dataset:
        """All positions and records of a file, by its number."""
        first = tf.constant(np.cumsum(self.lengths) - self.lengths)[file]
        return tf.data.TFRecordDataset(tf.constant(self.files)[file]).enumerate(first)

    def _belongs(self):
        belongs = np.zeros([self.lengths.sum()], bool)
        belongs[self.positions] = True
        belongs = tf.constant(belongs)
        return lambda position, record: belongs[position]


def _shuffled_together(seeds, window, examples):
    positions, records = examples
    seeds = tf.random.experimental.stateless_fold_in(
        tf.stack([seeds[0] ^ RECORD_STREAM, seeds[1]]), window
    )
    order = tf.random.experimental.stateless_shuffle(tf.range(tf.size(positions)), seed=seeds)
    return tf.gather(positions, order), tf.gather(records, order)
