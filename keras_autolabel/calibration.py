"""Calibration: sums per bucket and bin, the expected calibration error, the metric."""

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import MARK, check_whole, known_classes, refused_in_one_line

NO_PROBABILITIES = (
    f"{MARK}Rows of probabilities must be in [0, 1] and sum to 1: apply tf.nn.softmax to logits, "
    "or pass from_logits=True to the metric. Received (smallest, largest, worst sum):"
)


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
    # One by one in float32, a million rows would put the ECE off by 0.001.
    rows = tf.cast(rows, tf.float64)
    sums = tf.math.unsorted_segment_sum(rows, segment, num_buckets * num_bins)
    return tf.cast(tf.reshape(sums, [num_buckets, num_bins, 3]), tf.float32)


def check_predictions(labels: tf.Tensor, probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Refuses rows that are no probabilities, and labels that are no classes of theirs.

    Args:
        labels: As in ``batch.class_numbers``.
        probabilities: float [B, K].

    Returns:
        ``(labels, probabilities)``, int32 [B] and float32 [B, K].

    Raises:
        ValueError: If the rank is wrong.
        tf.errors.InvalidArgumentError: If a value is (in the graph too).

    Example:
        >>> labels, _ = check_predictions([1], [[0.25, 0.75]])
        >>> labels.numpy().tolist()
        [1]
    """
    given = tf.convert_to_tensor(probabilities)
    if given.shape.rank not in (None, 2):
        raise ValueError(f"Predictions must have shape [B, K]. Received: {tuple(given.shape)}")
    # Rows of half precision sum to 1 no better than this.
    tolerance = {tf.bfloat16: 2e-2, tf.float16: 5e-3}.get(given.dtype, 1e-3)
    probabilities = tf.cast(given, tf.float32)
    columns = given.shape[-1]
    labels = known_classes(labels, tf.shape(given)[-1] if columns is None else columns)
    low, high = tf.reduce_min(probabilities), tf.reduce_max(probabilities)
    off = tf.reduce_max(tf.abs(tf.reduce_sum(probabilities, axis=-1) - 1.0))
    # A NaN is not refused: a network that has diverged is told of by what it is measured to be.
    wrong = (low < -tolerance) | (off > tolerance)
    asserted = tf.debugging.Assert(~wrong, [NO_PROBABILITIES, low, high, off])
    with tf.control_dependencies([asserted]):
        return labels, tf.identity(probabilities)


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

    Raises:
        ValueError, tf.errors.InvalidArgumentError: If rows are no probabilities (logits, say), or
            labels no classes of theirs.

    Example:
        >>> float(expected_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]]))
        0.25
    """
    labels, probabilities = check_predictions(labels, probabilities)
    ece, _, _ = calibration_of(calibration_sums(labels, probabilities, num_bins=num_bins))
    return ece[0]


@keras.utils.register_keras_serializable(package="keras_autolabel")
class ExpectedCalibrationError(keras.metrics.Metric):
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
        super().__init__(name=name, dtype=dtype)
        check_whole(1, num_bins=num_bins)
        self.num_bins = num_bins
        self.from_logits = from_logits
        self.sums = self.add_weight(
            name="sums", shape=(num_bins, 3), initializer="zeros", dtype="float32"
        )

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
        sums = calibration_sums(
            labels, probabilities, num_bins=self.num_bins, sample_weight=sample_weight
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


class TemperatureScaling:
    """Divides logits by one temperature, fitted on a hold-out (Guo et al., 2017).

    The temperature minimises the negative log-likelihood of ``softmax(logits / T)``, which is
    convex in 1/T: Newton's method on 1/T, kept inside a bracket, finds it to 1e-9. It changes how
    sure a network is, never what it predicts.

    Attributes:
        temperature: T, 1.0 before ``fit``.

    Example:
        >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
        >>> scaling = TemperatureScaling().fit([0, 0, 0, 1], logits)
        >>> round(scaling.temperature, 4), round(4.0 / float(np.log(3.0)), 4)
        (3.641, 3.641)
    """

    smallest, largest = 1e-3, 1e3

    def __init__(self) -> None:
        self.temperature = 1.0

    def fit(self, labels: np.ndarray, logits: np.ndarray) -> "TemperatureScaling":
        """Finds the temperature.

        Args:
            labels: int [M], the true classes of the hold-out.
            logits: float [M, K], what the network says of it.

        Returns:
            This object.

        Raises:
            ValueError: If there is no example, a logit is not finite, a label is no class, or the
                shapes do not fit.
        """
        logits = np.asarray(logits, np.float64)
        labels = np.asarray(labels)
        if logits.ndim != 2 or not len(logits) or len(logits) != len(labels):
            raise ValueError(
                "labels must be [M] and logits [M, K], M at least 1. "
                f"Received: labels {labels.shape}, logits {logits.shape}"
            )
        with refused_in_one_line():
            labels = known_classes(labels, logits.shape[-1]).numpy()
        if not np.all(np.isfinite(logits)):
            raise ValueError("The logits of the hold-out are not finite.")
        if np.all(logits >= 0.0) and np.allclose(logits.sum(axis=-1), 1.0, atol=1e-3):
            raise ValueError(
                "TemperatureScaling takes logits, and these rows are probabilities: pass the "
                "outputs of the network without softmax."
            )
        truth = logits[np.arange(len(labels)), labels]
        low, high = 1.0 / self.largest, 1.0 / self.smallest
        inverse = 1.0
        for _ in range(200):
            slope, curvature = _slope_and_curvature(inverse, logits, truth)
            # Flat to the last digit: the optimum, or all examples right and nothing left to win.
            if slope == 0.0:
                break
            low, high = (inverse, high) if slope < 0.0 else (low, inverse)
            newton = inverse - slope / curvature if curvature > 0.0 else high
            # Where Newton leaves the bracket, halve it, on the scale of the temperature.
            following = newton if low < newton < high else np.sqrt(low * high)
            if abs(following - inverse) <= 1e-9 * inverse:
                break
            inverse = following
        self.temperature = float(1.0 / inverse)
        return self

    def __call__(self, logits: tf.Tensor) -> tf.Tensor:
        """Logits divided by the temperature; same shape and dtype."""
        return logits / self.temperature


def _slope_and_curvature(inverse, logits, truth) -> tuple[float, float]:
    """First and second derivative by 1/T of the mean negative log-likelihood."""
    scaled = inverse * (logits - logits.max(axis=-1, keepdims=True))
    p = np.exp(scaled)
    p /= p.sum(axis=-1, keepdims=True)
    mean = (p * logits).sum(axis=-1)
    variance = (p * (logits - mean[:, np.newaxis]) ** 2).sum(axis=-1)
    return float((mean - truth).mean()), float(variance.mean())
