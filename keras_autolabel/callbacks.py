"""``AutoLabel``: the callback that learns the labels from calibration, epoch by epoch."""

import warnings

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import AugmentedBatch, check_image_type, check_label_type
from keras_autolabel.calibration import calibration_of, calibration_sums
from keras_autolabel.checks import check_network, check_values
from keras_autolabel.distribution import replica_seed
from keras_autolabel.labels import LabelTable, update_confidence
from keras_autolabel.model import AutoLabelModel

# Rows that go through the network at once on each replica.
ROWS_PER_REPLICA = 256
# Keeps the seeds of the hold-out apart from those of the train step.
HOLDOUT_STREAM = 1_000_003


class AutoLabel(keras.callbacks.Callback):
    """Updates the label table of an ``AutoLabelModel`` at the end of each epoch, Eq. (1).

    For every distance bucket S_n the hold-out is augmented with distances drawn uniformly inside
    the bucket; ECE, mean confidence and accuracy of the network on it decide how the label of
    that bucket changes (Algorithm of section 4.1). Labels stay in [max(Acc, 1/K), 1].

    For every bucket, ``logs`` get ``label_confidence_<index>``, ``holdout_ece_<index>``,
    ``holdout_accuracy_<index>`` and ``holdout_confidence_<index>``: History, TensorBoard, and
    callbacks that stand behind this one see them. ``history`` keeps the same as arrays. Keras
    prints all logs behind its progress bar; put ``keras.callbacks.ProgbarLogger()`` before this
    callback to leave these out.

    Args:
        validation_data: The clean hold-out D_V, never trained on and not the test set:
            ``(images, labels)`` arrays, or a ``tf.data.Dataset`` of such batches. It is kept in
            memory (as it comes: uint8 is a quarter of float32).
        step_size: α of Eq. (1).
        num_bins: Bins of the ECE.
        examples_per_bucket: None: the whole hold-out in every bucket, as in the paper. An
            integer: a sample of so many, stratified by class, a new one each epoch.
        start_epoch: The first epoch, counted from 0, that ends with an update.

    Attributes:
        history: A list with a dict per epoch: ``epoch``, and arrays of the table's shape
            ``label`` (after the update), ``ece``, ``accuracy``, ``confidence``.

    Raises:
        ValueError: If the hold-out is empty or cannot be right, or an argument is out of range;
            when training starts, if the model has no label table or a loss that does not read
            it, or if the hold-out does not fit the network.

    Example:
        >>> holdout = np.zeros([20, 8, 8, 1], np.uint8), np.arange(20) % 10
        >>> callback = AutoLabel(holdout, step_size=0.1)
        >>> # model.fit(train, epochs=20, callbacks=[callback])
    """

    def __init__(
        self,
        validation_data: tuple[np.ndarray, np.ndarray] | tf.data.Dataset,
        *,
        step_size: float = 0.1,
        num_bins: int = 15,
        examples_per_bucket: int | None = None,
        start_epoch: int = 0,
    ):
        super().__init__()
        _check_at_least(0.0, step_size=step_size, start_epoch=start_epoch)
        _check_at_least(1, num_bins=num_bins)
        if examples_per_bucket is not None:
            _check_at_least(1, examples_per_bucket=examples_per_bucket)
        self.images, self.labels = _as_arrays(validation_data)
        self.step_size = step_size
        self.num_bins = num_bins
        self.examples_per_bucket = examples_per_bucket
        self.start_epoch = start_epoch
        self.history: list[dict] = []

    # --- what Keras calls -------------------------------------------------------------------------

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Refuses a model that cannot learn labels, and a hold-out that does not fit it."""
        model = self.model
        if not isinstance(model, AutoLabelModel) or model.augmentation is None:
            raise ValueError(
                "AutoLabel needs an AutoLabelModel with an augmentation. "
                f"Received: {type(model).__name__}"
            )
        if not isinstance(model.label_policy, LabelTable):
            raise ValueError(
                "AutoLabel updates a LabelTable, leave label_policy out. Received: "
                f"label_policy={type(model.label_policy).__name__}"
            )
        if model.given_loss is not None:
            raise ValueError(
                "AutoLabel has no effect on a loss that does not read its labels: leave loss out "
                f"of compile. Received: loss={type(model.given_loss).__name__}"
            )
        try:
            check_values(self.images, self.labels, model.num_classes)
            check_network(model.network, self.images.shape, model.num_classes)
        except ValueError as error:
            raise ValueError(f"The hold-out: {error}") from error
        missing = np.setdiff1d(np.arange(model.num_classes), self.labels)
        if missing.size:
            warnings.warn(
                f"The hold-out has no example of class {', '.join(map(str, missing))}: "
                "labels are learned without it.",
                stacklevel=2,
            )
        self.num_buckets = int(np.prod(model.label_policy.bucket_shape))
        self.sums_of_batch = self._compile_sums()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measures the hold-out in every bucket and updates the table."""
        policy = self.model.label_policy
        nothing = np.full(policy.bucket_shape, np.nan, np.float32)
        ece, conf, acc = nothing, nothing, nothing
        if epoch >= self.start_epoch:
            ece, conf, acc = self.measure(epoch)
            updated = update_confidence(
                tf.convert_to_tensor(policy.confidence),
                ece=ece,
                conf=conf,
                acc=acc,
                step_size=self.step_size,
                floor=1.0 / self.model.num_classes,
            )
            policy.confidence.assign(updated)
            _warn_of_kept(ece)
        label = tf.convert_to_tensor(policy.confidence).numpy()
        self.history.append(
            {"epoch": epoch, "label": label, "ece": ece, "accuracy": acc, "confidence": conf}
        )
        if logs is not None:
            logs.update(_named("label_confidence", label))
            logs.update(_named("holdout_ece", ece))
            logs.update(_named("holdout_accuracy", acc))
            logs.update(_named("holdout_confidence", conf))

    # --- the hold-out, augmented ------------------------------------------------------------------

    def measure(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ECE, mean confidence and accuracy on Q(S_n), for all buckets in one pass.

        Args:
            epoch: Seeds what is drawn, together with the model's seed.

        Returns:
            ``(ece, conf, acc)``, float32 arrays of the table's shape; NaN in an empty bucket.
        """
        strategy = self.model.distribute_strategy
        rows = ROWS_PER_REPLICA * strategy.num_replicas_in_sync
        data = strategy.experimental_distribute_dataset(self._rows_of_epoch(epoch, rows))
        sums = tf.zeros([self.num_buckets, self.num_bins, 3])
        for number, batch in enumerate(data):
            seed = tf.constant([self.model.seed ^ HOLDOUT_STREAM, epoch])
            sums += self.sums_of_batch(
                *batch, tf.random.experimental.stateless_fold_in(seed, number)
            )
        shape = self.model.label_policy.bucket_shape
        return tuple(x.numpy().reshape(shape) for x in calibration_of(sums))

    def _rows_of_epoch(self, epoch: int, rows_per_batch: int) -> tf.data.Dataset:
        """Batches of (images, labels, bucket, weight), all (example, bucket) pairs shuffled.

        The shuffle makes each batch a random sample of the whole hold-out, so that mixup finds
        its partners in all of it. The last batch is filled up with rows of weight 0.
        """
        rng = np.random.default_rng([self.model.seed, HOLDOUT_STREAM, epoch])
        if self.examples_per_bucket is None:
            examples = np.tile(np.arange(len(self.labels)), self.num_buckets)
        else:
            examples = np.concatenate(
                [self._stratified_sample(rng) for _ in range(self.num_buckets)]
            )
        bucket = np.repeat(np.arange(self.num_buckets), len(examples) // self.num_buckets)
        order = rng.permutation(len(examples))
        padding = -len(order) % rows_per_batch
        weight = np.repeat([1.0, 0.0], [len(order), padding]).astype(np.float32)
        order = np.resize(order, len(order) + padding)
        rows = (examples[order], bucket[order].astype(np.int32), weight)
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.images), tf.constant(self.labels, tf.int32)

        def gather(example, bucket, weight):
            return tf.gather(images, example), tf.gather(labels, example), bucket, weight

        return tf.data.Dataset.from_tensor_slices(rows).batch(rows_per_batch).map(gather)

    def _stratified_sample(self, rng: np.random.Generator) -> np.ndarray:
        """Indices of ``examples_per_bucket`` examples, each class as often as it should be.

        Systematic sampling: equally spaced picks, from a random start, of an order in which the
        examples of a class stand together, shuffled. Each class is hit in proportion to its size.
        """
        size = min(self.examples_per_bucket, len(self.labels))
        order = rng.permutation(len(self.labels))
        order = order[np.argsort(self.labels[order], kind="stable")]
        start = rng.uniform()
        return order[((np.arange(size) + start) * len(order) / size).astype(int)]

    def _compile_sums(self):
        model, num_buckets, num_bins = self.model, self.num_buckets, self.num_bins

        def on_replica(images, labels, bucket, weight, seed):
            batch = model.augmentation(
                images, labels, seed=replica_seed(seed), bucket=bucket, network=model.network
            )
            probabilities = tf.nn.softmax(tf.cast(model(batch.images, training=False), tf.float32))
            return calibration_sums(
                batch.labels,
                probabilities,
                num_bins=num_bins,
                bucket=bucket,
                num_buckets=num_buckets,
                sample_weight=weight,
            )

        @tf.function
        def on_all(*batch_and_seed):
            strategy = model.distribute_strategy
            sums = strategy.run(on_replica, args=batch_and_seed)
            return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

        return on_all


def _check_at_least(smallest: float, **arguments: float) -> None:
    for name, value in arguments.items():
        if not value >= smallest:
            raise ValueError(f"{name} must be at least {smallest}. Received: {name}={value}")


def _as_arrays(validation_data) -> tuple[np.ndarray, np.ndarray]:
    """The hold-out as arrays, checked."""
    if isinstance(validation_data, tf.data.Dataset):
        batches = [_pair(batch, most=3) for batch in validation_data.as_numpy_iterator()]
        if not batches:
            raise ValueError("The hold-out is empty: labels cannot be learned without it.")
        if not np.ndim(batches[0][1]):
            raise ValueError("The hold-out has single examples: batch it, dataset.batch(256).")
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    else:
        images, labels = (np.asarray(part) for part in _pair(validation_data))
    if not len(labels):
        raise ValueError("The hold-out is empty: labels cannot be learned without it.")
    if len(images) != len(labels):
        raise ValueError(
            "The hold-out must have a label for each image. "
            f"Received: {len(images)} images, {len(labels)} labels"
        )
    check_image_type(images)
    check_label_type(labels)
    return images, labels.reshape(-1)


def _pair(data, *, most: int = 2) -> tuple:
    """Images and labels; a dataset may have weights behind them, which are not needed."""
    parts = data if isinstance(data, tuple | list) else ()
    if not 2 <= len(parts) <= most or isinstance(parts[0], AugmentedBatch):
        raise ValueError(
            "The hold-out must be (images, labels), not augmented, or a tf.data.Dataset of "
            f"batches of them. Received: {[type(x).__name__ for x in parts] or data!r}"
        )
    return data[:2]


def _named(name: str, table: np.ndarray) -> dict[str, float]:
    return {
        "_".join([name, *map(str, index)]): float(value) for index, value in np.ndenumerate(table)
    }


def _warn_of_kept(ece: np.ndarray) -> None:
    kept = [str(index) for index in np.flatnonzero(~np.isfinite(ece))]
    if kept:
        warnings.warn(
            f"No finite ECE in bucket {', '.join(kept)} (no example, or the network returned NaN): "
            "its label is kept.",
            stacklevel=3,
        )
