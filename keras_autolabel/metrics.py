"""Streaming Keras metrics of calibration, exact from sums."""

import inspect

import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import check_whole
from keras_autolabel.calibration import bins_of, calibration_sums, check_predictions


class CalibrationMetric(keras.metrics.Metric):
    """What the metrics share: logits or probabilities, sums of weight and gap, and their reset.

    Args:
        shape: The shape of the sums.
        from_logits: Whether predictions are logits rather than probabilities. None: they are logits
            where the metric is compiled into an ``AutoLabelModel``, whose output they are.
        name: Name of the metric.
        dtype: Ignored for the sums, which are float32.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        from_logits: bool | None,
        name: str,
        dtype: str | None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.from_logits = from_logits
        self.sums = self.add_weight(name="sums", shape=shape, initializer="zeros", dtype="float32")

    def sums_of(
        self, labels: tf.Tensor, probabilities: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor:
        """What a batch adds to the sums."""
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Adds a batch.

        Args:
            y_true: Class numbers [B] or [B, 1], or one-hot rows [B, K].
            y_pred: float [B, K].
            sample_weight: float [B] or None.
        """
        y_pred = tf.convert_to_tensor(y_pred)
        if self.from_logits:
            y_pred = tf.nn.softmax(tf.cast(y_pred, tf.float32))
        labels, probabilities = check_predictions(y_true, y_pred)
        added = self.sums_of(labels, probabilities, sample_weight)
        self.sums.assign(tf.convert_to_tensor(self.sums) + added)

    def reset_state(self) -> None:
        """Forgets all that was added."""
        self.sums.assign(tf.zeros_like(tf.convert_to_tensor(self.sums)))

    def get_config(self) -> dict:
        """The constructor's arguments, which are kept under their own names."""
        own = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return own | super().get_config()


@keras.utils.register_keras_serializable(package="keras_autolabel")
class ExpectedCalibrationError(CalibrationMetric):
    """``expected_calibration_error`` as a streaming Keras metric.

    Args:
        num_bins: Number of equal-width bins R over [0, 1].
        from_logits: Whether predictions are logits rather than probabilities. None: they are logits
            where the metric is compiled into an ``AutoLabelModel``, whose output they are.
        name: Name of the metric.
        dtype: Ignored for the sums, which are float32.

    Raises:
        ValueError: If ``num_bins`` is below 1.

    Example:
        >>> metric = ExpectedCalibrationError()
        >>> metric.update_state([0, 1], [[0.75, 0.25], [0.75, 0.25]])
        >>> float(metric.result())
        0.25
    """

    def __init__(
        self,
        num_bins: int = 15,
        *,
        from_logits: bool | None = None,
        name: str = "ece",
        dtype: str | None = None,
    ) -> None:
        check_whole(1, num_bins=num_bins)
        super().__init__((num_bins, 3), from_logits=from_logits, name=name, dtype=dtype)
        self.num_bins = num_bins

    def sums_of(
        self, labels: tf.Tensor, probabilities: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor:
        """float32 [num_bins, 3], as in ``calibration_sums``."""
        return calibration_sums(
            labels, probabilities, num_bins=self.num_bins, sample_weight=sample_weight
        )[0]

    def result(self) -> tf.Tensor:
        """float32 scalar: the ECE of all that was added; 0 before anything was."""
        sums = tf.convert_to_tensor(self.sums)
        gaps = tf.reduce_sum(tf.abs(sums[:, 2] - sums[:, 1]))
        return tf.math.divide_no_nan(gaps, tf.reduce_sum(sums[:, 0]))


@keras.utils.register_keras_serializable(package="keras_autolabel")
class ConfidenceGap(CalibrationMetric):
    """``confidence_gap`` as a streaming Keras metric: which way a classifier is off.

    Args:
        from_logits: As in ``ExpectedCalibrationError``.
        name: Name of the metric.
        dtype: Ignored for the sums, which are float32.

    Example:
        >>> metric = ConfidenceGap()
        >>> metric.update_state([0, 1], [[0.75, 0.25], [0.75, 0.25]])
        >>> float(metric.result())
        0.25
    """

    def __init__(
        self,
        *,
        from_logits: bool | None = None,
        name: str = "gap",
        dtype: str | None = None,
    ) -> None:
        super().__init__((3,), from_logits=from_logits, name=name, dtype=dtype)

    def sums_of(
        self, labels: tf.Tensor, probabilities: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor:
        """float32 [3], as in ``calibration_sums``."""
        sums = calibration_sums(labels, probabilities, num_bins=1, sample_weight=sample_weight)
        return sums[0, 0]

    def result(self) -> tf.Tensor:
        """float32 scalar: the gap of all that was added; 0 before anything was."""
        weight, confidence, correct = tf.unstack(tf.convert_to_tensor(self.sums))
        return tf.math.divide_no_nan(confidence - correct, weight)


@keras.utils.register_keras_serializable(package="keras_autolabel")
class ClasswiseECE(CalibrationMetric):
    """``classwise_ece`` as a streaming Keras metric.

    Args:
        num_classes: K.
        num_bins: Number of equal-width bins R over [0, 1].
        from_logits: As in ``ExpectedCalibrationError``.
        name: Name of the metric.
        dtype: Ignored for the sums, which are float32.

    Raises:
        ValueError: If ``num_classes`` or ``num_bins`` is below 1.

    Example:
        >>> metric = ClasswiseECE(num_classes=2)
        >>> metric.update_state([0, 0], [[0.75, 0.25], [0.5, 0.5]])
        >>> float(metric.result())
        0.375
    """

    def __init__(
        self,
        num_classes: int,
        num_bins: int = 15,
        *,
        from_logits: bool | None = None,
        name: str = "classwise_ece",
        dtype: str | None = None,
    ) -> None:
        check_whole(1, num_classes=num_classes, num_bins=num_bins)
        shape = (num_classes, num_bins, 2)
        super().__init__(shape, from_logits=from_logits, name=name, dtype=dtype)
        self.num_classes = num_classes
        self.num_bins = num_bins

    def sums_of(
        self, labels: tf.Tensor, probabilities: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor:
        """float32 [num_classes, num_bins, 2]: Σ weight, Σ weight·(probability − truth)."""
        gaps = tf.cast(probabilities - tf.one_hot(labels, self.num_classes), tf.float64)
        weight = tf.ones_like(gaps)
        if sample_weight is not None:
            weight *= tf.cast(tf.reshape(sample_weight, [-1, 1]), tf.float64)
        first_bins = tf.range(self.num_classes) * self.num_bins
        segment = bins_of(probabilities, self.num_bins) + first_bins
        rows = tf.stack([weight, weight * gaps], axis=-1)
        sums = tf.math.unsorted_segment_sum(rows, segment, self.num_classes * self.num_bins)
        return tf.cast(tf.reshape(sums, self.sums.shape), tf.float32)

    def result(self) -> tf.Tensor:
        """float32 scalar: the error of all that was added; 0 before anything was."""
        weight, gaps = tf.unstack(tf.convert_to_tensor(self.sums), axis=-1)
        # Every class has the weight of all examples: the mean over classes is the ratio of sums.
        return tf.math.divide_no_nan(tf.reduce_sum(tf.abs(gaps)), tf.reduce_sum(weight))
