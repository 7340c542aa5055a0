"""``AutoLabelModel``: a Keras model that augments, labels and learns inside its train step."""

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import (
    AugmentedBatch,
    check_batch,
    check_image_type,
    check_label_type,
    clean_batch,
    to_float,
)
from keras_autolabel.checks import (
    check_arguments,
    check_last_batch,
    check_loss,
    check_network,
    check_policy,
    check_values,
    parts_of,
)
from keras_autolabel.distribution import num_replicas, replica_seed, sum_over_replicas
from keras_autolabel.export import save_for_serving
from keras_autolabel.labels import LabelTable, OneHot
from keras_autolabel.losses import SoftTargetLoss


@keras.utils.register_keras_serializable(package="keras_autolabel")
class AutoLabelModel(keras.Model):
    """Wraps a network so that ``fit`` augments each batch and labels it by its distance.

    ``fit`` takes ``(images, labels)``, arrays or a ``tf.data.Dataset``, or a dataset that
    ``augmentation.dataset_transform`` has already augmented; ``evaluate`` and ``predict`` take
    plain images. The model's output are logits.

    Args:
        network: Keras model that maps float32 images in [0, 1], [B, H, W, C], to logits
            [B, num_classes]; it need not scale uint8 images, they come scaled.
        augmentation: ``augmentation(images, labels, *, seed, bucket=None, network=None) ->
            AugmentedBatch`` with a ``bucket_shape``; None: images stay as they are.
        num_classes: K, at least 2.
        label_policy: ``policy(batch) -> (confidence, partner_share)``. None: a ``LabelTable``
            that starts where the augmentation says, or ``OneHot`` without augmentation.
        seed: Seed of all that is drawn in the train step, an int in [0, 2^31).
        name: Name of the model.

    Raises:
        ValueError: If ``num_classes`` or ``seed`` is out of range, the network returns
            probabilities or the wrong number of classes, or the label policy does not fit the
            classes or the augmentation.

    Example:
        >>> from keras_autolabel import AugMix
        >>> network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
        ...                             keras.layers.Dense(10)])
        >>> model = AutoLabelModel(network, AugMix(num_buckets=5), num_classes=10)
        >>> model.compile("sgd", metrics=["accuracy"])
        >>> tuple(model.label_policy.confidence.shape)
        (3, 5)
    """

    def __init__(
        self,
        network: keras.Model,
        augmentation: Callable[..., AugmentedBatch] | None = None,
        *,
        num_classes: int,
        label_policy: Callable[[AugmentedBatch], tuple[tf.Tensor, tf.Tensor]] | None = None,
        seed: int = 0,
        name: str = "auto_label_model",
    ):
        # autocast would round float images to bfloat16 under mixed precision, and uint8 ones not.
        super().__init__(name=name, autocast=False)
        check_arguments(num_classes, seed)
        self.network = network
        self.augmentation = augmentation
        self.num_classes = num_classes
        self.label_policy = label_policy or _default_policy(augmentation)
        self.seed = int(seed)
        self.loss_mean = keras.metrics.Mean(name="loss")
        check_policy(self.label_policy, augmentation, num_classes)
        self.image_shape = None
        if getattr(network, "inputs", None):
            self._check_network(network.inputs[0].shape)

    # --- what Keras calls -------------------------------------------------------------------------

    def call(self, inputs, training: bool = False) -> tf.Tensor:
        """Logits [B, K] of images, uint8 or float in [0, 1], or of an ``AugmentedBatch``."""
        images = inputs.images if isinstance(inputs, AugmentedBatch) else inputs
        return self.network(to_float(images), training=training)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        loss: keras.losses.Loss | None = None,
        *,
        metrics: list | None = None,
        jit_compile: bool = False,
        **kwargs,
    ) -> None:
        """Configures training.

        Args:
            optimizer: As in Keras.
            loss: None: ``SoftTargetLoss`` of the model's label policy. Any other Keras loss object
                is given the class numbers and the logits.
            metrics: As in Keras; ``"accuracy"`` is that of the true class.
            jit_compile: As in Keras, but off: XLA has no kernel for the geometric operations.
            **kwargs: As in Keras.

        Raises:
            ValueError: If the loss is no loss object, takes probabilities, sums, or has a label
                policy of its own.
        """
        check_loss(loss, self.label_policy)
        super().compile(optimizer, metrics=metrics, jit_compile=jit_compile, **kwargs)
        self.given_loss = None if isinstance(loss, SoftTargetLoss) else loss

    def get_compile_config(self) -> dict:
        """The arguments of ``compile``."""
        loss = self.given_loss and keras.utils.serialize_keras_object(self.given_loss)
        return {**super().get_compile_config(), "loss": loss}

    def compile_from_config(self, config: dict) -> None:
        """Compiles as ``get_compile_config`` describes."""
        self.compile(**keras.utils.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def build(self, input_shape=None) -> None:
        """Nothing to build: the network builds itself on its first images."""
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics, the loss of this model's own train step first."""
        return [self.loss_mean, *(metric for metric in super().metrics if metric.name != "loss")]

    def fit(self, x=None, y=None, *args, **kwargs) -> keras.callbacks.History:
        """``keras.Model.fit``; refuses images and labels that cannot be right before it starts.

        Raises:
            ValueError: If images or labels, also those of ``validation_data``, are of the wrong
                type, shape or range, or the last batch of mixup would hold one image.
        """
        given = inspect.signature(super().fit).bind(x, y, *args, **kwargs).arguments
        self._check_data(x, y)
        if y is not None and given.get("steps_per_epoch") is None:
            # Keras splits the images off in the same way.
            examples = int(len(y) * (1.0 - (given.get("validation_split") or 0.0)))
            batch_size = given.get("batch_size")
            check_last_batch(self.augmentation, examples=examples, batch_size=batch_size)
        if given.get("validation_data") is not None:
            try:
                parts = keras.utils.unpack_x_y_sample_weight(given["validation_data"])
                self._check_data(*parts[:2])
            except ValueError as error:
                raise ValueError(f"validation_data: {error}") from error
        return super().fit(x, y, *args, **kwargs)

    def train_step(self, data) -> dict:
        """One step: augment, label, cross-entropy, update."""
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = self.augment(x, labels)
        with tf.GradientTape() as tape:
            logits = self(batch.images, training=True)
            loss = self._loss_of(batch, logits, sample_weight)
            scaled = getattr(self.optimizer, "scale_loss", tf.identity)(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self.compute_metrics(batch.images, batch.labels, logits, sample_weight)

    def test_step(self, data) -> dict:
        """One step of ``evaluate``: images as they are, one-hot labels."""
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        _, labels = check_batch(images, labels)
        labels = self._known(labels)
        logits = self(images, training=False)
        self._loss_of(labels, logits, sample_weight)
        return self.compute_metrics(images, labels, logits, sample_weight)

    # --- the pieces -------------------------------------------------------------------------------

    def _check_data(self, x, y) -> None:
        images, labels = parts_of(x, y)
        if images is None:
            return
        check_image_type(images)
        check_label_type(labels)
        self._check_network(images.shape)
        if isinstance(labels, np.ndarray):
            check_values(np.asarray(images), labels, self.num_classes)

    def _check_network(self, images_shape) -> None:
        known = self.image_shape or (None, None, None)
        shape = [size or own for size, own in zip(images_shape[1:], known, strict=True)]
        # A network without an input shape would be built for the sizes of the probe.
        if getattr(self.network, "inputs", None) or None not in shape:
            check_network(self.network, [None, *shape], self.num_classes)
        self.image_shape = tuple(self.image_shape or images_shape[1:])

    def augment(self, images, labels) -> AugmentedBatch:
        """The batch of the current step, augmented; as it is if that was already done."""
        if isinstance(images, AugmentedBatch):
            return images._replace(labels=self._known(images.labels))
        images, labels = check_batch(images, labels)
        labels = self._known(labels)
        if self.augmentation is None:
            return clean_batch(images, labels)
        step = tf.cast(tf.convert_to_tensor(self.optimizer.iterations), tf.int32)
        seed = replica_seed(tf.stack([self.seed, step]))
        return self.augmentation(images, labels, seed=seed, network=self.network)

    def _known(self, labels: tf.Tensor) -> tf.Tensor:
        """The labels as they are; an assertion in the graph refuses those of no class."""
        in_range = tf.reduce_all((labels >= 0) & (labels < self.num_classes))
        message = f"Labels must lie in 0..{self.num_classes - 1} (num_classes - 1). Received:"
        with tf.control_dependencies([tf.debugging.Assert(in_range, [message, labels])]):
            return tf.identity(labels)

    def _loss_of(self, y_true: AugmentedBatch | tf.Tensor, logits, sample_weight) -> tf.Tensor:
        """This replica's part of the loss: all parts together are the mean of the global batch."""
        labels = y_true.labels if isinstance(y_true, AugmentedBatch) else y_true
        if self.given_loss:
            losses = self.given_loss.call(labels, logits)
        else:
            losses = SoftTargetLoss(self.label_policy).call(y_true, logits)
        if sample_weight is not None:
            losses *= tf.cast(tf.reshape(sample_weight, [-1]), losses.dtype)
        rows = tf.cast(tf.shape(logits)[0], losses.dtype)
        zero = tf.zeros([], losses.dtype)
        regularisation = tf.add_n([tf.cast(x, losses.dtype) for x in self.losses] or [zero])
        total = tf.reduce_sum(losses)
        self.loss_mean.update_state(total / rows + regularisation, sample_weight=rows)
        return total / sum_over_replicas(rows) + regularisation / num_replicas()

    def export(
        self,
        filepath: str,
        *,
        class_names: Sequence[str] | None = None,
        temperature: float = 1.0,
    ) -> None:
        """Writes a TF SavedModel that needs neither Keras nor this package.

        Its ``serving_default`` takes uint8 ``images``, its signature ``float_images`` floats in
        [0, 1], and the loaded object, called, either; all return ``logits``, ``probabilities``
        (of logits / temperature), ``class`` and ``confidence``. Beside the network it carries
        ``label_table``, ``temperature`` and ``class_names``.

        Args:
            filepath: Folder to write.
            class_names: Names of the K classes; None: the class numbers.
            temperature: Divides the logits, above 0.

        Raises:
            ValueError: If the number of names is not ``num_classes``, the temperature is not
                above 0, or the model has not seen an image yet.
        """
        names = [str(k) for k in range(self.num_classes)] if class_names is None else class_names
        if len(names) != self.num_classes:
            raise ValueError(
                f"class_names must name the {self.num_classes} classes. Received: {len(names)}"
            )
        if not temperature > 0.0:
            raise ValueError(f"temperature must be above 0. Received: temperature={temperature}")
        if self.image_shape is None:
            raise ValueError("The network has no known input shape: train it first.")
        table = getattr(self.label_policy, "confidence", None)
        save_for_serving(
            self.network,
            filepath,
            image_shape=self.image_shape,
            label_table=np.ones(()) if table is None else tf.convert_to_tensor(table).numpy(),
            class_names=list(names),
            temperature=temperature,
        )

    def get_config(self) -> dict:
        """The constructor's arguments."""
        serialize = keras.utils.serialize_keras_object
        return {
            "network": serialize(self.network),
            "augmentation": self.augmentation and serialize(self.augmentation),
            "num_classes": self.num_classes,
            "label_policy": serialize(self.label_policy),
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "AutoLabelModel":
        """The model that ``get_config`` describes."""
        config = dict(config)
        for key in ("network", "augmentation", "label_policy"):
            if config[key] is not None:
                config[key] = keras.utils.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        return cls(**config)


def _default_policy(augmentation) -> OneHot | LabelTable:
    if augmentation is None:
        return OneHot()
    initial = getattr(augmentation, "initial_confidence", 1.0)
    return LabelTable(augmentation.bucket_shape, initial=initial)
