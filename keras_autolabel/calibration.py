"""Calibration: sums per bucket and bin, errors of calibration, and what of them is noise.

Functions of ``labels`` and ``probabilities`` take what a network says. Those of ``confidence`` and
``correct`` take, of each example, the largest probability and whether its class is the true one:
NumPy arrays of one length, from which float64 is computed and Python's floats are returned. A
confidence that is NaN makes a figure NaN.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_autolabel.batch import (
    asserted,
    check_numbers,
    check_whole,
    known_classes,
    refused_in_one_line,
    untranslated,
)

NO_PROBABILITIES = (
    "Rows of probabilities must be in [0, 1] and sum to 1: apply tf.nn.softmax to logits, or pass "
    "from_logits=True to the metric. Received (smallest, largest, worst sum):"
)


@untranslated
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
    segment = bins_of(confidence, num_bins)
    if bucket is not None:
        segment += tf.cast(bucket, tf.int32) * num_bins
    # One by one in float32, a million rows would put the ECE off by 0.001. Columns of their own are
    # added up in a third of the time of rows of three.
    columns = [tf.cast(x, tf.float64) for x in (weight, weight * confidence, weight * correct)]
    sums = [tf.math.unsorted_segment_sum(x, segment, num_buckets * num_bins) for x in columns]
    sums = tf.stack(sums, axis=-1)
    return tf.cast(tf.reshape(sums, [num_buckets, num_bins, 3]), tf.float32)


def check_predictions(labels: tf.Tensor, probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels and probabilities as int32 [B] and float32 [B, K], if they are such.

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
    return labels, asserted(probabilities, ~wrong, NO_PROBABILITIES, low, high, off)


def bins_of(confidence: tf.Tensor, num_bins: int) -> tf.Tensor:
    """int32, the bin that each float32 confidence lies in; see ``calibration_sums``."""
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


def noise_floor_of(sums: tf.Tensor) -> tf.Tensor:
    """The noise floor of the ECE of ``calibration_of``; see ``noise_floor``.

    The confidences of a bin, ``1/num_bins`` wide, count as their mean; weights are 1 or 0.

    Example:
        >>> sums = calibration_sums([0] * 1000, [[0.65, 0.35]] * 1000)
        >>> round(float(noise_floor_of(sums)[0]), 4)
        0.012
    """
    count, confidence, _ = tf.unstack(sums, axis=-1)
    variance = tf.maximum(confidence - tf.math.divide_no_nan(confidence**2, count), 0.0)
    noise = tf.reduce_sum(tf.sqrt(variance * 2.0 / np.pi), axis=-1)
    return noise / tf.reduce_sum(count, axis=-1)


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
        ValueError, tf.errors.InvalidArgumentError: If rows are no probabilities (logits, say),
            labels no classes of theirs, or ``num_bins`` is below 1.

    Example:
        >>> float(expected_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]]))
        0.25
    """
    check_whole(1, num_bins=num_bins)
    labels, probabilities = check_predictions(labels, probabilities)
    ece, _, _ = calibration_of(calibration_sums(labels, probabilities, num_bins=num_bins))
    return ece[0]


def check_pairs(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, each with whether its prediction is right, both as float64 [M].

    Raises:
        ValueError: If the shapes differ, are not [M] with M at least 1, a confidence lies outside
            [0, 1], or ``correct`` holds other numbers than 0 and 1.

    Example:
        >>> check_pairs([0.5, 1.0], [True])
        Traceback (most recent call last):
        ...
        ValueError: confidence and correct must be [M], M at least 1. Received: (2,), (1,)
    """
    confidence, correct = (np.asarray(x, np.float64) for x in (confidence, correct))
    if confidence.ndim != 1 or not len(confidence) or confidence.shape != correct.shape:
        raise ValueError(
            "confidence and correct must be [M], M at least 1. "
            f"Received: {confidence.shape}, {correct.shape}"
        )
    # As far beyond as a softmax of half precision may round.
    outside = (confidence < -1e-3) | (confidence > 1.0 + 1e-3)
    if outside.any():
        raise ValueError(f"confidence must be in [0, 1]. Received: {confidence[outside][0]:g}")
    other = (correct != 0.0) & (correct != 1.0)
    if other.any():
        raise ValueError(f"correct must be 0 or 1. Received: {correct[other][0]:g}")
    return np.clip(confidence, 0.0, 1.0), correct


def numpy_bins(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """The bins of ``calibration_sums``, to the last digit of float32."""
    edges = np.arange(1, num_bins, dtype=np.float32) / np.float32(num_bins)
    return np.searchsorted(edges, confidence.astype(np.float32), side="right")


def sums_of_predictions(confidence: np.ndarray, correct: np.ndarray, num_bins: int) -> np.ndarray:
    """``calibration_sums`` of one bucket from confidences and what is right, float64 [R, 3]."""
    bins = numpy_bins(confidence, num_bins)
    columns = (np.ones(len(bins)), confidence, correct)
    return np.stack([np.bincount(bins, x, num_bins) for x in columns], axis=-1)


def binned_ece(confidence: np.ndarray, correct: np.ndarray, *, num_bins: int = 15) -> float:
    """``expected_calibration_error``, from confidences and what is right.

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.
        num_bins: Number of equal-width bins R over [0, 1].

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: As in ``check_pairs``.

    Example:
        >>> binned_ece([0.75, 0.75], [1, 0])
        0.25
    """
    confidence, correct = check_pairs(confidence, correct)
    gaps = np.bincount(numpy_bins(confidence, num_bins), correct - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def noise_floor(confidence: np.ndarray, *, num_bins: int = 15) -> float:
    """The ECE that a perfectly calibrated classifier shows with these confidences, on average.

    Were each prediction right with the probability that its confidence says, the sum of
    ``correct − confidence`` in a bin would have the mean 0 and the variance ``Σ c·(1 − c)``; of a
    normal distribution, ``|x|`` has the mean ``σ·√(2/π)``. From 1,000 examples on, this is within
    2 % of the mean over drawn labels, as is the mean of 200 draws; for 100 examples within 7 %.

    Args:
        confidence: float [M].
        num_bins: Number of equal-width bins R over [0, 1].

    Returns:
        A float in [0, 1], about ``1/√M`` times a number that depends on the confidences.

    Raises:
        ValueError: As in ``check_pairs``.

    Example:
        >>> round(noise_floor(np.full(1000, 0.65)), 4), round(noise_floor(np.full(10**5, 0.65)), 4)
        (0.012, 0.0012)
        >>> round(noise_floor(np.linspace(0.3, 1.0, 1000)), 4)
        0.0351
    """
    confidence, _ = check_pairs(confidence, np.zeros(np.shape(confidence)))
    spread = confidence * (1.0 - confidence)
    variance = np.bincount(numpy_bins(confidence, num_bins), spread)
    return float(np.sqrt(variance * 2.0 / np.pi).sum() / len(confidence))


def debiased_ece(confidence: np.ndarray, correct: np.ndarray, *, num_bins: int = 15) -> float:
    """The ECE without its noise floor, ``√max(ECE² − floor², 0)``.

    If the true gaps of the bins are normal, with a spread in proportion to that of their noise,
    then ``ECE² = truth² + floor²`` on average. Chosen by a simulation of known truth: two
    distributions of confidences, calibrated or off by 1, 3 and 10 points (by a shift, a
    temperature, a wave), 400 draws each. Bias in points, mean of its size and (the largest):

    ======  ===========  ===========  =================  =============
    M       ECE          this         Kumar et al. 2019  ECE − floor
    ======  ===========  ===========  =================  =============
    500     2.69 (5.38)  0.55 (1.63)  1.24 (3.25)        1.76 (4.81)
    1,000   1.69 (3.82)  0.34 (1.13)  0.72 (2.27)        1.50 (3.65)
    10,000  0.32 (1.20)  0.10 (0.35)  0.12 (0.70)        0.72 (1.22)
    ======  ===========  ===========  =================  =============

    The estimate of Kumar, Liang & Ma keeps ``2 − √2`` of the floor where the truth is 0; here a
    third is left, from the cut at 0. The spread of one draw is 2.0, 1.4 and 0.4 points in both.

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.
        num_bins: Number of equal-width bins R over [0, 1].

    Returns:
        A float in [0, 1], not above the ECE.

    Raises:
        ValueError: As in ``check_pairs``.

    Example:
        >>> confidence, correct = np.full(1000, 0.65), np.arange(1000) < 636
        >>> round(binned_ece(confidence, correct), 4)
        0.014
        >>> round(debiased_ece(confidence, correct), 4)
        0.0072
    """
    ece = binned_ece(confidence, correct, num_bins=num_bins)
    floor = noise_floor(confidence, num_bins=num_bins)
    return float(np.sqrt(np.maximum(ece**2 - floor**2, 0.0)))


def confidence_gap(confidence: np.ndarray, correct: np.ndarray) -> float:
    """``Conf − Acc``: above 0 where a classifier is surer than it is right.

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.

    Returns:
        A float in [−1, 1].

    Raises:
        ValueError: As in ``check_pairs``.

    Example:
        >>> confidence_gap([0.75, 0.75], [1, 0])
        0.25
    """
    confidence, correct = check_pairs(confidence, correct)
    return float(np.mean(confidence - correct))


def adaptive_ece(confidence: np.ndarray, correct: np.ndarray, *, num_bins: int = 15) -> float:
    """ECE over bins of equal mass (Nguyen & O'Connor, 2015).

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.
        num_bins: Number of bins R. Bins have M/R examples, one more or less; equal confidences stay
            together.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: As in ``check_pairs``.

    Example:
        >>> adaptive_ece([0.5, 0.75, 0.75, 1.0], [1, 0, 1, 1], num_bins=2)
        0.25
    """
    confidence, correct = check_pairs(confidence, correct)
    parts = np.array_split(np.sort(confidence), num_bins)
    edges = [part[0] for part in parts[1:] if len(part)]
    gaps = np.bincount(np.searchsorted(edges, confidence, side="right"), correct - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def classwise_ece(labels: tf.Tensor, probabilities: tf.Tensor, *, num_bins: int = 15) -> float:
    """Mean over classes of the ECE of each class's probability (Kull et al., 2019).

    Args:
        labels: int [M], the true classes.
        probabilities: float [M, K], rows that sum to 1.
        num_bins: Number of equal-width bins R over [0, 1].

    Returns:
        A float in [0, 1].

    Raises:
        ValueError, tf.errors.InvalidArgumentError: As in ``expected_calibration_error``.

    Example:
        >>> classwise_ece([0, 0], [[0.75, 0.25], [0.5, 0.5]])
        0.375
    """
    labels, probabilities = (x.numpy() for x in check_predictions(labels, probabilities))
    classes = enumerate(probabilities.T)
    return float(np.mean([binned_ece(p, labels == k, num_bins=num_bins) for k, p in classes]))


def smooth_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The ECE without bins of Błasiok & Nakkiran (2023), who call it smECE.

    Residuals ``correct − confidence`` are smoothed over [0, 1] by a Gaussian kernel that is
    reflected at 0 and 1; the integral of their absolute value is the error at the kernel's width
    σ. It falls as σ grows: smECE is where both are equal.

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: As in ``check_pairs``.

    Example:
        >>> round(smooth_ece(np.full(100, 0.75), np.arange(100) < 50), 4)
        0.25
    """
    confidence, correct = check_pairs(confidence, correct)
    if np.isnan(confidence).any():
        return float("nan")
    steps = 4096
    left = np.minimum((confidence * steps).astype(int), steps - 1)
    share = confidence * steps - left
    residual = (correct - confidence) / len(confidence)
    mass = np.bincount(left, (1.0 - share) * residual, steps + 1)
    mass += np.bincount(left + 1, share * residual, steps + 1)
    # Smoothing with reflection scales each cos(πkt) by exp(−(πkσ)²/2).
    cosines = np.fft.rfft(mass, 2 * steps).real
    frequency = np.pi * np.arange(steps + 1)
    low, high = 0.0, 1.0
    for _ in range(30):
        sigma = (low + high) / 2.0
        damped = cosines * np.exp(-0.5 * (frequency * sigma) ** 2)
        height = np.abs(2 * steps * np.fft.irfft(damped)[: steps + 1])
        error = (height.sum() - (height[0] + height[-1]) / 2.0) / steps
        low, high = (sigma, high) if error > sigma else (low, sigma)
    return high


def brier_decomposition(
    confidence: np.ndarray, correct: np.ndarray, *, num_bins: int = 15
) -> tuple[float, float, float]:
    """Murphy's (1973) parts of the Brier score of the confidence, after it is binned.

    With the mean confidence f and accuracy o of a bin, and weights n/M: reliability ``Σ (f − o)²``,
    what calibration could win; resolution ``Σ (o − Acc)²``, how well confidence tells right from
    wrong; uncertainty ``Acc·(1 − Acc)``. ``reliability − resolution + uncertainty`` is the mean of
    ``(f − correct)²``.

    Args:
        confidence: float [M], the largest probability of each example.
        correct: bool or int [M], whether its class is the true one.
        num_bins: Number of equal-width bins R over [0, 1].

    Returns:
        ``(reliability, resolution, uncertainty)``, floats in [0, 1]; the first is better low, the
        second high.

    Raises:
        ValueError: As in ``check_pairs``.

    Example:
        >>> brier_decomposition([0.25, 0.25, 1.0, 1.0], [0, 0, 1, 1], num_bins=2)
        (0.03125, 0.25, 0.25)
    """
    confidence, correct = check_pairs(confidence, correct)
    sums = sums_of_predictions(confidence, correct, num_bins)
    count, forecast, observed = sums[sums[:, 0] > 0].T
    weight, forecast, observed = count / len(correct), forecast / count, observed / count
    accuracy = correct.mean()
    return (
        float(weight @ (forecast - observed) ** 2),
        float(weight @ (observed - accuracy) ** 2),
        float(accuracy * (1.0 - accuracy)),
    )


def bootstrap_interval(
    statistic: Callable[..., float],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray] | None = None,
    *,
    level: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap over examples, of one model or of the difference of two.

    For calibration pass ``debiased_ece``: the ECE of a resample carries the noise floor twice, and
    of 100 intervals of the plain ECE none held a truth of 0 to 1 points at 1,000 examples; of the
    debiased one 80 did, and 89 held a truth of 10.

    Args:
        statistic: A function of the arrays in ``first``, such as ``debiased_ece`` of a confidence
            and what is correct.
        first: Arrays whose first axis is the examples, [M, ...].
        second: The same arrays of another model on the same examples; the interval then is of
            ``statistic(*first) − statistic(*second)``, each draw taking the same examples of both.
        level: How often the interval shall hold the truth.
        num_draws: How often M examples are drawn with replacement.
        seed: Seed of the draws.

    Returns:
        ``(low, high)``, floats.

    Raises:
        ValueError: If the arrays are not of one length, there is no example, ``level`` is not
            inside (0, 1), or ``num_draws`` is below 1.

    Example:
        >>> correct, better = np.arange(400) % 4 > 0, np.arange(400) % 5 > 0
        >>> low, high = bootstrap_interval(np.mean, [correct])
        >>> round(low, 2), round(high, 2)
        (0.71, 0.79)
        >>> low, high = bootstrap_interval(np.mean, [better], [correct])
        >>> low < 0.05 < high
        True
    """
    models = [[np.asarray(x) for x in arrays] for arrays in (first, second) if arrays is not None]
    lengths = {len(x) for arrays in models for x in arrays}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"Arrays must be of one length, 1 at least. Received: {sorted(lengths)}")
    check_numbers(level=level)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be inside (0, 1). Received: level={level!r}")
    check_whole(1, num_draws=num_draws)
    (examples,) = lengths
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(num_draws):
        rows = rng.integers(examples, size=examples)
        values = [statistic(*(x[rows] for x in arrays)) for arrays in models]
        drawn.append(values[0] - values[1] if second is not None else values[0])
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


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
