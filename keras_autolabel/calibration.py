"""Calibration: sums per bucket and bin, the expected calibration error, the metric."""

import tensorflow as tf
from tensorflow import keras


def calibration_sums(
    labels: tf.Tensor,
    probabilities: tf.Tensor,
    *,
    num_bins: int = 15,
    bucket: tf.Tensor | None = None,
    num_buckets: int = 1,
    sample_weight: tf.Tensor | None = None,
) -> tf.Tensor:
    """All that calibration needs of a batch: sums per bucket and bin of confidence.

    Sums of several batches, or of several replicas, are added. Bins have equal width over [0, 1],
    are closed on the left, and 1.0 belongs to the last.

    Args:
        labels: int [B], the true classes.
        probabilities: float [B, K], rows that sum to 1.
        num_bins: Number of bins R.
        bucket: int [B], the bucket of each example; None: all in bucket 0.
        num_buckets: Number of buckets.
        sample_weight: float [B], the weight of each example; None: 1.

    Returns:
        float32 [num_buckets, num_bins, 3]: Σ weight, Σ weight·confidence, Σ weight·correct.

    Example:
        >>> sums = calibration_sums([0, 1], [[0.9, 0.1], [0.6, 0.4]], num_bins=2)
        >>> sums.numpy().round(1).tolist()
        [[[0.0, 0.0, 0.0], [2.0, 1.5, 1.0]]]
    """
    probabilities = tf.cast(probabilities, tf.float32)
    labels = tf.reshape(labels, [-1])
    confidence = tf.reduce_max(probabilities, axis=-1)
    predicted = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
    correct = tf.cast(predicted == tf.cast(labels, tf.int32), tf.float32)
    weight = tf.ones_like(confidence)
    if sample_weight is not None:
        weight = tf.cast(tf.reshape(sample_weight, [-1]), tf.float32)
    segment = _bin_of(confidence, num_bins)
    if bucket is not None:
        segment += tf.cast(bucket, tf.int32) * num_bins
    rows = weight[:, tf.newaxis] * tf.stack([tf.ones_like(correct), confidence, correct], axis=-1)
    sums = tf.math.unsorted_segment_sum(rows, segment, num_buckets * num_bins)
    return tf.reshape(sums, [num_buckets, num_bins, 3])


def _bin_of(confidence: tf.Tensor, num_bins: int) -> tf.Tensor:
    inner_edges = tf.range(1, num_bins, dtype=tf.float32) / num_bins
    return tf.reduce_sum(tf.cast(confidence[..., tf.newaxis] >= inner_edges, tf.int32), axis=-1)


def calibration_of(sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """ECE, Conf and Acc out of ``calibration_sums``.

    ``ECE = Σ_r |B_r|/m · |acc(B_r) − conf(B_r)|``, which is ``Σ_r |Σ correct − Σ confidence| / m``
    (section 3 of the AutoLabel paper; Guo et al., 2017).

    Args:
        sums: float [..., num_bins, 3].

    Returns:
        ``(ece, conf, acc)``, each float of shape [...] in [0, 1]; NaN where there is no example.

    Example:
        >>> ece, conf, acc = calibration_of(tf.constant([[[2.0, 1.5, 1.0]]]))
        >>> float(ece[0]), float(conf[0]), float(acc[0])
        (0.25, 0.75, 0.5)
    """
    count, confidence, correct = tf.unstack(sums, axis=-1)
    examples = tf.reduce_sum(count, axis=-1)
    ece = tf.reduce_sum(tf.abs(correct - confidence), axis=-1) / examples
    conf = tf.reduce_sum(confidence, axis=-1) / examples
    acc = tf.reduce_sum(correct, axis=-1) / examples
    return ece, conf, acc


def expected_calibration_error(
    labels: tf.Tensor, probabilities: tf.Tensor, *, num_bins: int = 15
) -> tf.Tensor:
    """Expected calibration error of predictions (section 3 of the paper; Guo et al., 2017).

    Args:
        labels: int [B], the true classes.
        probabilities: float [B, K], rows that sum to 1.
        num_bins: Number of equal-width bins R over [0, 1].

    Returns:
        float32 scalar in [0, 1]; NaN without examples.

    Example:
        >>> float(expected_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]]))
        0.25
    """
    ece, _, _ = calibration_of(calibration_sums(labels, probabilities, num_bins=num_bins))
    return ece[0]


@keras.utils.register_keras_serializable(package="keras_autolabel")
class ExpectedCalibrationError(keras.metrics.Metric):
    """``expected_calibration_error`` as a streaming Keras metric.

    Args:
        num_bins: Number of equal-width bins R over [0, 1].
        from_logits: Whether predictions are logits (as those of an ``AutoLabelModel``) rather than
            probabilities.
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
        from_logits: bool = False,
        name: str = "ece",
        dtype: str | None = None,
    ):
        super().__init__(name=name, dtype=dtype)
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1. Received: num_bins={num_bins}")
        self.num_bins = num_bins
        self.from_logits = from_logits
        self.sums = self.add_weight(
            name="sums", shape=(num_bins, 3), initializer="zeros", dtype="float32"
        )

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Adds a batch.

        Args:
            y_true: int [B] or [B, 1].
            y_pred: float [B, K].
            sample_weight: float [B] or None.
        """
        y_pred = tf.cast(y_pred, tf.float32)
        probabilities = tf.nn.softmax(y_pred) if self.from_logits else y_pred
        sums = calibration_sums(
            tf.convert_to_tensor(y_true),
            probabilities,
            num_bins=self.num_bins,
            sample_weight=sample_weight,
        )
        self.sums.assign(tf.convert_to_tensor(self.sums) + sums[0])

    def result(self) -> tf.Tensor:
        """float32 scalar: the ECE of all that was added; 0 before anything was."""
        sums = tf.convert_to_tensor(self.sums)
        gaps = tf.reduce_sum(tf.abs(sums[:, 2] - sums[:, 1]))
        return tf.math.divide_no_nan(gaps, tf.reduce_sum(sums[:, 0]))

    def reset_state(self) -> None:
        """Forgets all that was added."""
        self.sums.assign(tf.zeros_like(tf.convert_to_tensor(self.sums)))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_bins": self.num_bins,
            "from_logits": self.from_logits,
        }
