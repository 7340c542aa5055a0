"""``AutoLabel``: the callback that learns the labels from calibration, epoch by epoch."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal, TypedDict

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import (
    AugmentedBatch,
    check_image_type,
    check_label_type,
    check_numbers,
    check_whole,
)
from keras_autolabel.calibration import calibration_of, calibration_sums, noise_floor_of
from keras_autolabel.checks import check_values, divergence_of, names_of_non_finite
from keras_autolabel.distribution import block_seed
from keras_autolabel.labels import (
    LabelTable,
    update_confidence,
    update_confidence_together,
)
from keras_autolabel.model import AutoLabelModel

# Rows that go through the network at once on each replica.
ROWS_PER_REPLICA = 256
# Augmented hold-out images of an epoch, by default: a tenth of CIFAR's 45,000 training images.
EXAMPLES_PER_EPOCH = 4500
# Keeps the seeds of the hold-out apart from those of the train step.
HOLDOUT_STREAM = 1_000_003
MOST_NAMED = 5
# How the labels of an epoch follow from what was measured.
UPDATES = ("paper", "together")


class LabelEpoch(TypedDict):
    """What ``AutoLabel.history`` keeps of an epoch; arrays are float32 of the table's shape.

    Attributes:
        epoch: Counted from 0.
        label: The table after the update.
        ece: ECE of the augmented hold-out in each bucket, without its noise floor if ``debias``;
            NaN where it was not measured.
        accuracy: Its accuracy.
        confidence: Its mean confidence.
        clean_ece: ECE of the clean hold-out.
        clean_accuracy: Its accuracy.
        clean_confidence: Its mean confidence.

    Example:
        >>> holdout = np.zeros([20, 8, 8, 1], np.uint8), np.arange(20) % 10
        >>> callback = AutoLabel(holdout)
        >>> [float(epoch["label"].min()) for epoch in callback.history]  # training adds to it
        []
    """

    epoch: int
    label: np.ndarray
    ece: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray
    clean_ece: float
    clean_accuracy: float
    clean_confidence: float


class AutoLabel(keras.callbacks.Callback):
    """Updates the label table of an ``AutoLabelModel`` at the end of each epoch, Eq. (1).

    For every distance bucket S_n the hold-out is augmented with distances drawn uniformly inside
    the bucket; ECE, mean confidence and accuracy of the network on it decide how the label of
    that bucket changes (Algorithm of section 4.1). Labels stay in [max(Acc, 1/K), 1].

    An update with m examples in each of the buckets costs ``buckets · m`` augmentations and forward
    passes, and one forward pass of the whole clean hold-out. With the 4,500 augmented images of the
    default, at CIFAR's 45,000 training and 5,000 hold-out images, that is at most a tenth of an
    epoch, whatever the augmentation costs: a training image is augmented too, and its gradient
    costs about two more forward passes. The paper's pass over everything costs 5,000 images a
    bucket. docs/results.md has what the sample does to the labels.

    ``logs`` get ``label_mean``, which Keras' progress line shows, and, for History and CSVLogger,
    what it does not: ``label_confidence_<index>``, ``holdout_ece_<index>``,
    ``holdout_accuracy_<index>`` and ``holdout_confidence_<index>`` of every bucket, and
    ``holdout_ece``, ``holdout_accuracy`` and ``holdout_confidence`` of the clean hold-out.
    ``history`` keeps the same as arrays. Where ``fit`` has a ``keras.callbacks.TensorBoard`` too,
    they are in its run ``labels``, all in the group ``labels``, with a picture of the table. With
    ``use_ema``, the hold-out is measured with the averaged weights, which are those that training
    leaves behind.

    Args:
        validation_data: The clean hold-out D_V, never trained on and not the test set:
            ``(images, labels)`` arrays, or a ``tf.data.Dataset`` or ``keras.utils.PyDataset`` of
            such batches. It is kept in memory (as it comes: uint8 is a quarter of float32).
        step_size: α of Eq. (1).
        num_bins: Bins of the ECE.
        examples_per_bucket: Hold-out images measured in each bucket, a sample stratified by class,
            a new one each epoch. ``"auto"``: 4,500, divided by the number of buckets. None: the
            whole hold-out in every bucket, as in the paper. Never more than the hold-out has.
        start_epoch: The first epoch, counted from 0, that ends with an update.
        debias: Whether Eq. (1) takes the ECE without its noise floor, ``√max(ECE² − floor², 0)``,
            see ``calibration.debiased_ece``; the paper's takes it as measured.
        update: ``"paper"``: each label follows its own bucket, ``update_confidence``.
            ``"together"``: all move by one step, which the clean hold-out can hold back,
            ``labels.update_confidence_together``; docs/results.md has both beside each other.

    Attributes:
        history: A ``LabelEpoch`` for each epoch that this object has seen; where a model that
            was trained before is trained on, it begins there, which ``fit`` says where it prints.

    Raises:
        ValueError: If the hold-out is empty or cannot be right, or an argument is out of range;
            when training starts, if the model has no label table or a loss that does not read
            it, or if the hold-out does not fit the network.

    Example:
        >>> holdout = np.zeros([20, 8, 8, 1], np.uint8), np.arange(20) % 10
        >>> callback = AutoLabel(holdout, step_size=0.1)
        >>> # model.fit(train, epochs=20, callbacks=[callback])
    """

    # ``fit`` calls it before all other callbacks.
    updates_labels = True

    def __init__(
        self,
        validation_data: Any,
        *,
        step_size: float = 0.1,
        num_bins: int = 15,
        examples_per_bucket: int | Literal["auto"] | None = "auto",
        start_epoch: int = 0,
        debias: bool = False,
        update: str = "paper",
    ) -> None:
        super().__init__()
        check_numbers(step_size=step_size)
        if not 0.0 <= step_size < float("inf"):
            raise ValueError(f"step_size must be at least 0. Received: step_size={step_size}")
        check_whole(1, num_bins=num_bins)
        check_whole(0, start_epoch=start_epoch)
        if examples_per_bucket not in ("auto", None):
            check_whole(1, examples_per_bucket=examples_per_bucket)
        if update not in UPDATES:
            raise ValueError(f"update must be one of {', '.join(UPDATES)}. Received: {update=}")
        self.images, self.labels = _as_arrays(validation_data)
        self.step_size = step_size
        self.num_bins = num_bins
        self.examples_per_bucket = examples_per_bucket
        self.start_epoch = start_epoch
        self.debias = debias
        self.update = update
        self.history: list[LabelEpoch] = []

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
            self.classes = check_values(self.images, self.labels, model.num_classes)
            model.check_network(self.images.shape[1:])
        except ValueError as error:
            raise ValueError(f"The hold-out: {error}") from error
        missing = np.setdiff1d(np.arange(model.num_classes), self.classes)
        if missing.size:
            first = ", ".join(map(str, missing[:MOST_NAMED]))
            more = ", ..." if missing.size > MOST_NAMED else ""
            warnings.warn(
                f"The hold-out has no example of {missing.size} of the {model.num_classes} classes "
                f"({first}{more}): labels are learned without them.",
                stacklevel=2,
            )
        self.num_buckets = int(np.prod(model.label_policy.bucket_shape))
        self.sums_of_bucketed = self._on_all_replicas(self._sums_of_bucketed)
        self.sums_of_clean = self._on_all_replicas(self._sums_of_clean)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Says so once where labels go on from those of a model that was trained before."""
        # Behind on_train_begin, in which ``BackupAndRestore`` restores.
        steps = int(tf.convert_to_tensor(self.model.draws))
        if steps and not self.history and self.params.get("verbose"):
            print(
                f"AutoLabel goes on from the labels of the model, {steps} steps old; its history "
                f"begins with epoch {epoch + 1}."
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measures the hold-out in every bucket and updates the table."""
        policy = self.model.label_policy
        nothing = np.full(policy.bucket_shape, np.nan, np.float32)
        ece, conf, acc = nothing, nothing, nothing
        clean_ece, clean_conf, clean_acc = (float("nan"),) * 3
        diverged = bool(names_of_non_finite(self.model.network.weights))
        if diverged:
            self._stop(epoch, (logs or {}).get("loss", 0.0))
        else:
            with self._weights_that_stay():
                clean_ece, clean_conf, clean_acc = self.measure_clean()
                if epoch >= self.start_epoch:
                    ece, conf, acc = self.measure(epoch)
        if epoch >= self.start_epoch and not diverged:
            update, figures = update_confidence, {"ece": ece, "conf": conf, "acc": acc}
            if self.update == "together":
                update = update_confidence_together
                figures |= {"clean_conf": clean_conf, "clean_acc": clean_acc}
            updated = update(
                tf.convert_to_tensor(policy.confidence),
                **figures,
                step_size=self.step_size,
                floor=1.0 / self.model.num_classes,
            )
            policy.confidence.assign(updated)
            _warn_of_kept(ece, epoch)
        label = tf.convert_to_tensor(policy.confidence).numpy()
        self.history.append(
            {
                "epoch": epoch,
                "label": label,
                "ece": ece,
                "accuracy": acc,
                "confidence": conf,
                "clean_ece": clean_ece,
                "clean_accuracy": clean_acc,
                "clean_confidence": clean_conf,
            }
        )
        if logs is None:
            return
        logs["label_mean"] = float(label.mean())
        logs["holdout_ece"] = clean_ece
        logs["holdout_accuracy"] = clean_acc
        logs["holdout_confidence"] = clean_conf
        logs.update(_named("label_confidence", label))
        logs.update(_named("holdout_ece", ece))
        logs.update(_named("holdout_accuracy", acc))
        logs.update(_named("holdout_confidence", conf))

    def _stop(self, epoch: int, loss: float) -> None:
        """Ends a training whose weights no step can mend."""
        self.model.stop_training = True
        steps = int(tf.convert_to_tensor(self.model.draws))
        warnings.warn(
            f"Training has diverged, and stops: in epoch {epoch + 1}, after {steps} steps in all, "
            f"{divergence_of(self.model, loss)}. The labels stay as they were.",
            stacklevel=3,
        )

    # --- the hold-out, augmented ------------------------------------------------------------------

    def measure(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ECE, mean confidence and accuracy on Q(S_n), for all buckets in one pass.

        Args:
            epoch: Seeds what is drawn, together with the model's seed.

        Returns:
            ``(ece, conf, acc)``, float32 arrays of the table's shape; NaN in an empty bucket.
        """
        sums = self._bucket_sums(epoch)
        ece, conf, acc = calibration_of(sums)
        if self.debias:
            ece = tf.sqrt(tf.maximum(ece**2 - noise_floor_of(sums) ** 2, 0.0))
        shape = self.model.label_policy.bucket_shape
        return tuple(x.numpy().reshape(shape) for x in (ece, conf, acc))

    def _bucket_sums(self, epoch: int) -> tf.Tensor:
        """``calibration_sums`` of the augmented hold-out, [num_buckets, num_bins, 3]."""
        rng = np.random.default_rng([self.model.seed, HOLDOUT_STREAM, epoch])
        size = self.examples_per_bucket
        if size == "auto":
            size = max(1, EXAMPLES_PER_EPOCH // self.num_buckets)
        if size is None:
            examples = np.tile(np.arange(len(self.classes)), self.num_buckets)
        else:
            examples = np.concatenate(
                [self._stratified_sample(size, rng) for _ in range(self.num_buckets)]
            )
        bucket = np.repeat(np.arange(self.num_buckets), len(examples) // self.num_buckets)
        # Shuffled, each batch is a random sample of the whole hold-out, so that mixup finds its
        # partners in all of it.
        order = rng.permutation(len(examples))
        sums = tf.zeros([self.num_buckets, self.num_bins, 3])
        seed = tf.constant([self.model.seed ^ HOLDOUT_STREAM, epoch])
        for number, batch in enumerate(self._batches(examples[order], bucket[order])):
            sums += self.sums_of_bucketed(*batch, seed, tf.constant(number))
        return sums

    def measure_clean(self) -> tuple[float, float, float]:
        """ECE, mean confidence and accuracy on the hold-out as it is."""
        sums = tf.zeros([1, self.num_bins, 3])
        examples = np.arange(len(self.classes))
        for batch in self._batches(examples, np.zeros_like(examples)):
            sums += self.sums_of_clean(*batch)
        return tuple(float(x[0]) for x in calibration_of(sums))

    def _batches(self, examples: np.ndarray, bucket: np.ndarray):
        """Batches of (images, labels, bucket, weight); the last is filled up by weights of 0."""
        strategy = self.model.distribute_strategy
        rows_per_batch = ROWS_PER_REPLICA * strategy.num_replicas_in_sync
        size, padding = len(examples), -len(examples) % rows_per_batch
        weight = np.repeat([1.0, 0.0], [size, padding]).astype(np.float32)
        rows = (*(np.resize(x, size + padding) for x in (examples, bucket.astype("int32"))), weight)
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.images), tf.constant(self.classes)

        def gather(example, bucket, weight):
            return tf.gather(images, example), tf.gather(labels, example), bucket, weight

        data = tf.data.Dataset.from_tensor_slices(rows).batch(rows_per_batch).map(gather)
        return strategy.experimental_distribute_dataset(data)

    def _stratified_sample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of ``size`` examples, or all there are, each class as often as it should be.

        Systematic sampling: equally spaced picks, from a random start, of an order in which the
        examples of a class stand together, shuffled. Each class is hit in proportion to its size.
        """
        size = min(size, len(self.classes))
        order = rng.permutation(len(self.classes))
        order = order[np.argsort(self.classes[order], kind="stable")]
        start = rng.uniform()
        return order[((np.arange(size) + start) * len(order) / size).astype(int)]

    # --- on every replica -------------------------------------------------------------------------

    def _sums_of_bucketed(self, images, labels, bucket, weight, seed, number) -> tf.Tensor:
        model, seed = self.model, block_seed(seed, number)
        batch = model.augmentation(
            images, labels, seed=seed, bucket=bucket, network=model.classifier
        )
        return self._sums(batch, batch.labels, bucket, weight, self.num_buckets)

    def _sums_of_clean(self, images, labels, bucket, weight) -> tf.Tensor:
        return self._sums(images, labels, bucket, weight, 1)

    def _sums(self, images, labels, bucket, weight, num_buckets: int) -> tf.Tensor:
        return calibration_sums(
            labels,
            tf.nn.softmax(self.model(images, training=False)),
            num_bins=self.num_bins,
            bucket=bucket,
            num_buckets=num_buckets,
            sample_weight=weight,
        )

    def _on_all_replicas(self, function):
        """A graph of a function that is run on every replica, and whose results are added up."""

        @tf.function
        def on_all(*arguments):
            strategy = self.model.distribute_strategy
            sums = strategy.run(function, args=arguments)
            return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

        return on_all

    @contextlib.contextmanager
    def _weights_that_stay(self) -> Iterator[None]:
        """With ``use_ema`` the averaged weights stay when training ends: measures with them."""
        optimizer, variables = self.model.optimizer, self.model.trainable_variables
        averaged = getattr(getattr(optimizer, "inner_optimizer", optimizer), "use_ema", False)
        if not averaged:
            yield
            return
        trained = [tf.identity(tf.convert_to_tensor(variable)) for variable in variables]
        optimizer.finalize_variable_values(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, trained, strict=True):
                variable.assign(value)


def _as_arrays(validation_data) -> tuple[np.ndarray, np.ndarray]:
    """The hold-out as arrays, checked."""
    batched = isinstance(validation_data, tf.data.Dataset | keras.utils.Sequence)
    if batched:
        batches = [_pair(batch, most=3) for batch in _elements(validation_data)]
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
    return images, labels


def _elements(data: Any) -> Iterator:
    if isinstance(data, tf.data.Dataset):
        yield from data.as_numpy_iterator()
    else:
        yield from (data[index] for index in range(len(data)))


def _pair(data, *, most: int = 2) -> tuple:
    """Images and labels; a dataset may have weights behind them, which are not needed."""
    parts = data if isinstance(data, tuple | list) else ()
    if not 2 <= len(parts) <= most or isinstance(parts[0], AugmentedBatch):
        raise ValueError(
            "The hold-out must be (images, labels), not augmented, or a tf.data.Dataset of "
            f"batches of them. Received: {[type(x).__name__ for x in parts] or type(data).__name__}"
        )
    return data[:2]


def _named(name: str, table: np.ndarray) -> dict[str, float]:
    return {
        "_".join([name, *map(str, index)]): float(value) for index, value in np.ndenumerate(table)
    }


def _warn_of_kept(ece: np.ndarray, epoch: int) -> None:
    kept = ["_".join(map(str, index)) for index in np.argwhere(~np.isfinite(ece))]
    if kept:
        warnings.warn(
            f"Epoch {epoch + 1}: no finite ECE in bucket {', '.join(kept)} (no example, or the "
            "network returned NaN): its label is kept.",
            stacklevel=3,
        )
