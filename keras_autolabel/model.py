"""``AutoLabelModel``: a Keras model that augments and labels its batches inside ``fit``."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment.augmentation import Augmentation
from keras_autolabel.batch import (
    AugmentedBatch,
    check_batch,
    check_image_type,
    check_images,
    check_label_type,
    class_numbers,
    clean_batch,
    known_classes,
    label_rows,
    refused_in_one_line,
    to_float,
)
from keras_autolabel.checks import (
    check_arguments,
    check_augmentation,
    check_last_batch,
    check_loss,
    check_policy,
    check_temperature,
    check_values,
    image_shape_of,
    parts_of,
)
from keras_autolabel.distribution import (
    ONE_FOR_ALL_REPLICAS,
    check_strategy,
    is_of_workers,
    replicas,
)
from keras_autolabel.export import save_for_serving
from keras_autolabel.labels import LabelTable, OneHot
from keras_autolabel.losses import SoftTargetLoss
from keras_autolabel.metrics import CalibrationMetric
from keras_autolabel.network import OnUnitImages, check_construction, check_outputs
from keras_autolabel.probability import ProbabilityModel
from keras_autolabel.progress import LabelLogs


@keras.utils.register_keras_serializable(package="keras_autolabel")
class AutoLabelModel(keras.Model):
    """Wraps a network so that ``fit`` augments each batch and labels it by its distance.

    Images are uint8, or floats in [0, 1]; labels are class numbers or exactly one-hot rows. ``fit``
    takes arrays, a ``tf.data.Dataset`` or a ``keras.utils.PyDataset``, or a dataset that
    ``augmentation.dataset_transform`` has already augmented; ``evaluate`` and ``predict`` take
    plain images. The model's output are logits; ``probability_model`` gives probabilities.

    Under a strategy the random parameters of an ``Augmentation`` are drawn for the global batch, so
    that training does not depend on the number of replicas, but for mixup's and CutMix's partners,
    which are of the replica's own rows. The loss is Keras': where replicas have rows to different
    numbers (a last batch that does not divide evenly), their means count alike;
    ``drop_remainder=True`` avoids it.

    ``model.network`` is the network itself, trained in place: it takes floats in ``value_range``,
    scaled by its caller, and its weights alone are saved and loaded by its own ``save_weights`` and
    ``load_weights``.

    Args:
        network: Keras model that maps float32 images in ``value_range``, [B, H, W, C], to logits
            [B, num_classes].
        augmentation: An ``Augmentation``, or any
            ``augmentation(images, labels, *, seed, bucket=None, network=None) -> AugmentedBatch``
            with a ``bucket_shape``; None: images stay as they are.
        num_classes: K, at least 2.
        label_policy: ``policy(batch) -> (confidence, partner_share)``. None: a ``LabelTable``
            that starts where the augmentation says, or ``OneHot`` without augmentation.
        value_range: The range in which the network gets its images, wherever they come from:
            (0, 255) where it rescales by itself.
        seed: Seed of all that is drawn in the train step, an int in [0, 2^31).
        name: Name of the model.

    Raises:
        ValueError: If an argument is out of range, the network's first or last layer or its
            outputs are not those of logits of such images, or the label policy does not fit the
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
        value_range: tuple[float, float] = (0, 1),
        seed: int = 0,
        name: str = "auto_label_model",
    ) -> None:
        # autocast would round float images to bfloat16 under mixed precision, and uint8 ones not.
        super().__init__(name=name, autocast=False)
        check_strategy()
        check_arguments(num_classes, seed, value_range)
        check_augmentation(augmentation)
        if isinstance(network, AutoLabelModel):
            raise ValueError(
                "network must be the network alone: pass its model.network. "
                "Received: an AutoLabelModel"
            )
        check_construction(network, value_range)
        self.network = network
        self.augmentation = augmentation
        self.num_classes = num_classes
        self.label_policy = label_policy or _default_policy(augmentation)
        self.value_range = tuple(value_range)
        self.classifier = OnUnitImages(network, self.value_range)
        self.seed = int(seed)
        self.given_loss = None
        # Steps so far; the optimizer's count stands still while gradients are accumulated.
        self.draws = self.add_weight(
            name="draws",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation=ONE_FOR_ALL_REPLICAS,
        )
        check_policy(self.label_policy, augmentation, num_classes)
        self.image_shape = None
        if getattr(network, "inputs", None):
            self.check_network(network.inputs[0].shape[1:])
        if getattr(network, "built", False):
            self.build()

    # --- what Keras calls -------------------------------------------------------------------------

    def call(self, inputs: tf.Tensor | AugmentedBatch, training: bool = False) -> tf.Tensor:
        """Logits [B, K], float32, of images, uint8 or float in [0, 1], or an ``AugmentedBatch``."""
        augmented = isinstance(inputs, AugmentedBatch)
        images = inputs.images if augmented else check_images(inputs)
        logits = self.classifier(to_float(images), training=training)
        return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        loss: keras.losses.Loss | None = None,
        metrics: list | None = None,
        *,
        jit_compile: bool | str = False,
        **kwargs: Any,
    ) -> None:
        """Configures training.

        Args:
            optimizer: As in Keras.
            loss: None: ``SoftTargetLoss`` of the model's label policy. Any other Keras loss object
                is given the class numbers and the logits.
            metrics: As in Keras; they see class numbers and logits. ``"accuracy"`` is that of the
                true class.
            jit_compile: As in Keras, but off, for ``"auto"`` too: XLA drops the checks of images
                and labels that stand in the graph.
            **kwargs: As in Keras.

        Raises:
            ValueError: If the loss is no loss object, takes probabilities or one-hot labels, or
                has a label policy of its own, or XLA has no kernels for the augmentation.
        """
        if isinstance(getattr(loss, "policy", None), _LabelsOf):
            loss = None  # ``model.loss``, or what an HDF5 file says of it.
        check_loss(loss, self.label_policy, self.num_classes)
        jit_compile = jit_compile and jit_compile != "auto"
        if jit_compile and not getattr(self.augmentation, "jit_compiles", True):
            raise ValueError(
                f"XLA has no kernels for {type(self.augmentation).__name__}: leave out jit_compile "
                "or augment in the dataset, by dataset_transform."
            )
        for metric in tf.nest.flatten([metrics, kwargs.get("weighted_metrics")]):
            if isinstance(metric, CalibrationMetric) and metric.from_logits is None:
                metric.from_logits = True
        self.given_loss = None if isinstance(loss, SoftTargetLoss) else loss
        loss = self.given_loss or SoftTargetLoss(_LabelsOf(self.label_policy))
        super().compile(optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile, **kwargs)
        if is_of_workers(self.distribute_strategy):
            # Metrics are those of all workers; Keras 2 would add up what each of them has of these.
            self.distribute_reduction_method = "first"

    def get_compile_config(self) -> dict:
        """The arguments of ``compile``."""
        config = super().get_compile_config()
        if not config:
            # There is none before compile.
            return config
        loss = self.given_loss and keras.utils.serialize_keras_object(self.given_loss)
        return {**config, "loss": loss}

    def compile_from_config(self, config: dict) -> None:
        """Compiles as ``get_compile_config`` describes."""
        self.compile(**keras.utils.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def build(self, input_shape=None) -> None:
        """Nothing to build: the network builds itself on its first images."""
        self.built = True

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any):
        """``keras.Model.fit``; refuses images and labels that cannot be right before it starts.

        Callbacks that update labels (``AutoLabel``) are called before all others, so that those
        that save the model, or log, see the labels that the next epoch is trained on.

        Raises:
            ValueError: If images or labels, also those of ``validation_data``, are of the wrong
                type, shape or range, or the last batch is too small for the augmentation.
        """
        given = inspect.signature(super().fit).bind(x, y, *args, **kwargs).arguments
        self._check_data(x, y)
        if y is not None and given.get("steps_per_epoch") is None:
            # Keras splits the images off in the same way.
            examples = int(len(y) * (1.0 - (given.get("validation_split") or 0.0)))
            batch_size = given.get("batch_size") or 32
            check_last_batch(self.augmentation, examples=examples, batch_size=batch_size)
        if given.get("validation_data") is not None:
            try:
                parts = keras.utils.unpack_x_y_sample_weight(given["validation_data"])
                self._check_data(*parts[:2])
            except ValueError as error:
                raise ValueError(f"validation_data: {error}") from error
        if isinstance(given.get("callbacks"), keras.callbacks.CallbackList):
            LabelLogs.check_order(given["callbacks"].callbacks)
        else:
            learns = self.given_loss is None and isinstance(self.label_policy, LabelTable)
            callbacks = tf.nest.flatten(given.get("callbacks") or [])
            given["callbacks"] = LabelLogs.around(callbacks, learns=learns)
        with refused_in_one_line():
            return super().fit(**given)

    @refused_in_one_line()
    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any):
        """``keras.Model.evaluate``: images as they are, one-hot labels."""
        self._check_size(x)
        return super().evaluate(x, *args, **kwargs)

    @refused_in_one_line()
    def predict(self, x: Any, *args: Any, **kwargs: Any):
        """``keras.Model.predict``: logits, float32 [M, K]."""
        self._check_size(x)
        return super().predict(x, *args, **kwargs)

    @refused_in_one_line()
    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any):
        """``keras.Model.train_on_batch``: a step of ``fit``."""
        self._check_size(x)
        return super().train_on_batch(x, *args, **kwargs)

    @refused_in_one_line()
    def test_on_batch(self, x: Any, *args: Any, **kwargs: Any):
        """``keras.Model.test_on_batch``: a step of ``evaluate``."""
        self._check_size(x)
        return super().test_on_batch(x, *args, **kwargs)

    @refused_in_one_line()
    def predict_on_batch(self, x: Any):
        """``keras.Model.predict_on_batch``: logits, float32 [B, K]."""
        self._check_size(x)
        return super().predict_on_batch(x)

    @refused_in_one_line()
    def __call__(self, *args: Any, **kwargs: Any):
        """``keras.Model.__call__``: logits, see ``call``."""
        return super().__call__(*args, **kwargs)

    def train_step(self, data) -> dict:
        """Keras' own step, on the augmented batch."""
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = self.augment(x, labels)
        logs = super().train_step((batch, batch.labels, sample_weight))
        self.draws.assign_add(1)
        return logs

    def test_step(self, data) -> dict:
        """Keras' own step, on images as they are."""
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return super().test_step((images, known_classes(labels, self.num_classes), sample_weight))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras' own, of class numbers; for ``SoftTargetLoss``, of all that x says of labels.

        ``training`` is what Keras 3 says of its step; a subclass may pass it on, as in Keras.
        """
        augmented = isinstance(x, AugmentedBatch) and self.given_loss is None
        y = label_rows(x) if augmented else class_numbers(y)
        return super().compute_loss(x, y, y_pred, sample_weight)

    def get_metrics_result(self) -> dict:
        """Keras' own; in a step of several workers the mean of what each of them has.

        For ECE that is not what all of them have together, which Keras asks for when an epoch ends:
        in each step that would be an exchange for each of the metrics' variables, here it is one.
        """
        context = tf.distribute.get_replica_context()
        if not is_of_workers(self.distribute_strategy) or context is None:
            return super().get_metrics_result()
        # A metric inside another one asks the other workers by itself.
        inside = [part for metric in self.metrics for part in metric.submodules]
        if any(isinstance(part, keras.metrics.Metric) for part in inside):
            return super().get_metrics_result()
        # The method of the class is without Keras' sum over workers.
        own = {}
        for metric in self.metrics:
            result = type(metric).result(metric)
            # Keras names the figures of a metric that has several as it does itself.
            own.update(result if isinstance(result, dict) else {metric.name: result})
        return context.all_reduce(tf.distribute.ReduceOp.MEAN, own)

    def compute_metrics(self, x, y, y_pred, sample_weight=None) -> dict:
        """Keras' own, of class numbers."""
        return super().compute_metrics(x, class_numbers(y), y_pred, sample_weight)

    # --- the pieces -------------------------------------------------------------------------------

    def augment(self, images: Any, labels: Any) -> AugmentedBatch:
        """The next batch of training, augmented; as it is if that was already done."""
        if isinstance(images, AugmentedBatch):
            return images._replace(labels=known_classes(images.labels, self.num_classes))
        images, labels = check_batch(images, labels)
        labels = known_classes(labels, self.num_classes)
        if self.augmentation is None:
            return clean_batch(images, labels)
        step = tf.cast(tf.convert_to_tensor(self.draws), tf.int32)
        # What is no ``Augmentation`` draws for its own rows alone: replicas must draw apart.
        replica = 0 if isinstance(self.augmentation, Augmentation) else replicas()[0]
        seed = tf.random.experimental.stateless_fold_in(tf.stack([self.seed, step]), replica)
        return self.augmentation(images, labels, seed=seed, network=self.classifier)

    def check_network(self, image_shape: Sequence[int | None]) -> None:
        """Refuses images that do not fit the network, or outputs that are no logits of theirs.

        Args:
            image_shape: (H, W, C), None for what is not known.

        Raises:
            ValueError: If they do not fit.
        """
        known = self.image_shape or (None, None, None)
        shape = [size or own for size, own in zip(image_shape, known, strict=True)]
        # A network without an input shape would be built for the sizes of the probe.
        if getattr(self.network, "inputs", None) or None not in shape:
            check_outputs(self.classifier, shape, self.num_classes)
            self.build()
        self.image_shape = tuple(self.image_shape or image_shape)

    def _check_data(self, x, y) -> None:
        images, labels = parts_of(x, y)
        if images is None:
            return
        check_image_type(images)
        check_label_type(labels)
        self.check_network(images.shape[1:])
        if isinstance(labels, np.ndarray):
            check_values(np.asarray(images), labels, self.num_classes)

    def _check_size(self, x) -> None:
        """Refuses images of another shape than is known, if the network cannot be called so."""
        shape = image_shape_of(x)
        if self.image_shape and shape and not shape.is_compatible_with(self.image_shape):
            self.check_network(shape)

    # --- what leaves the model --------------------------------------------------------------------

    def probability_model(self, temperature: float = 1.0) -> ProbabilityModel:
        """A plain Keras model of the same weights, from images to calibrated probabilities.

        Args:
            temperature: Divides the logits, above 0; of ``TemperatureScaling``, for instance.

        Returns:
            A Keras model: uint8, or float in [0, 1], [B, H, W, C] -> float32 [B, K].

        Raises:
            ValueError: If the temperature is not above 0.
        """
        return ProbabilityModel(self, temperature)

    def export(
        self,
        filepath: str,
        format: str = "tf_saved_model",
        *,
        class_names: Sequence[str] | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Writes a TF SavedModel that needs neither Keras nor this package.

        Its ``serving_default`` takes uint8 ``images``, its signature ``float_images`` floats in
        [0, 1], and the loaded object, called, either; all return ``logits``, ``probabilities``
        (of logits / temperature), ``class`` and ``confidence``. Beside the network it carries
        ``label_table``, ``temperature`` and ``class_names``.

        Args:
            filepath: Folder to write.
            format: Any other of Keras 3's formats, such as ``"onnx"``, is left to Keras: float32
                images in [0, 1] to logits, no names and no temperature.
            class_names: Names of the K classes; None: the class numbers.
            temperature: Divides the logits, above 0.
            **kwargs: As in Keras, for other formats.

        Raises:
            ValueError: If the number of names is not ``num_classes``, the temperature is not
                above 0, or the model has not seen an image yet.
        """
        names = [str(k) for k in range(self.num_classes)] if class_names is None else class_names
        if len(names) != self.num_classes:
            raise ValueError(
                f"class_names must name the {self.num_classes} classes. Received: {len(names)}"
            )
        check_temperature(temperature)
        if self.image_shape is None:
            raise ValueError("The network has no known input shape: train it first.")
        if format != "tf_saved_model":
            # Keras' exporters know no input of a subclassed model, and want one that was called.
            images = keras.Input(self.image_shape, name="images")
            plain = keras.Model(images, self(images))
            plain(images)
            plain.export(filepath, format=format, **kwargs)
            return
        table = getattr(self.label_policy, "confidence", None)
        save_for_serving(
            self.classifier,
            filepath,
            weights=self.network.weights,
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
            "value_range": list(self.value_range),
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


# HDF5 files name a model's class without its package.
keras.utils.get_custom_objects()["AutoLabelModel"] = AutoLabelModel


@keras.utils.register_keras_serializable(package="keras_autolabel")
class _LabelsOf:
    """A label policy for a loss to call: Keras 2 would save a table that the loss itself held."""

    def __init__(self, policy: Callable | None = None) -> None:
        self.policy = policy
        self.weighs_loss = getattr(policy, "weighs_loss", False)

    def __call__(self, batch: AugmentedBatch) -> tuple[tf.Tensor, tf.Tensor]:
        return self.policy(batch)

    def get_config(self) -> dict:
        """Nothing: Keras asks, and the model that the loss is given to puts in its own policy."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "_LabelsOf":
        """Of no policy yet."""
        return cls()


def _default_policy(augmentation) -> OneHot | LabelTable:
    if augmentation is None:
        return OneHot()
    initial = getattr(augmentation, "initial_confidence", 1.0)
    return LabelTable(augmentation.bucket_shape, initial=initial)
