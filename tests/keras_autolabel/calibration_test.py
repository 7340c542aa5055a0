import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import trapezoid
from scipy.optimize import brentq
from scipy.stats import bootstrap
from sklearn.metrics import brier_score_loss

from keras_autolabel import ExpectedCalibrationError, expected_calibration_error
from keras_autolabel.calibration import (
    adaptive_ece,
    binned_ece,
    bootstrap_interval,
    brier_decomposition,
    calibration_of,
    calibration_sums,
    classwise_ece,
    confidence_gap,
    debiased_ece,
    noise_floor,
    noise_floor_of,
    smooth_ece,
)
from tests.conftest import numpy_calibration, numpy_softmax


@pytest.fixture(scope="module")
def predictions():
    """10,000 labels and rows of probabilities in 10 classes, 200 of them certain."""
    rng = np.random.default_rng(0)
    sharpness = rng.uniform(0.1, 6.0, [10_000, 1])
    probabilities = numpy_softmax(sharpness * rng.normal(size=[10_000, 10])).astype(np.float32)
    labels = np.array(
        [rng.choice(10, p=np.float64(p) / np.float64(p).sum()) for p in probabilities]
    )
    probabilities[:200] = np.eye(10, dtype=np.float32)[rng.integers(10, size=200)]
    return labels, probabilities


def _binary(labels, confidence):
    """Confidence in one class: the only column is the prediction, class 0 is a hit."""
    return 1 - labels, confidence[:, np.newaxis]


def test_ece_conf_and_acc_equal_numpy(predictions):
    labels, probabilities = predictions
    for num_bins in (1, 10, 15, 100):
        sums = calibration_sums(labels, probabilities, num_bins=num_bins)
        actual = [float(x[0]) for x in calibration_of(sums)]
        # A float32 that lies on no edge is in the same bin in double precision.
        expected = numpy_calibration(labels, probabilities, num_bins)
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.fixture(name="metrics")
def fixture_metrics(monkeypatch):
    """netcal 1.0, the last one without PyTorch; it still calls float by NumPy's old name."""
    monkeypatch.setattr(np, "float", float, raising=False)
    return pytest.importorskip("netcal.metrics")


def test_ece_equals_netcal(metrics, predictions):
    labels, probabilities = predictions
    expected = metrics.ECE(15).measure(probabilities.astype(np.float64), labels)
    actual = expected_calibration_error(labels, probabilities)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    # With confidences of exactly 0 and 1.
    rng = np.random.default_rng(1)
    confidence = rng.uniform(size=10_000).astype(np.float32)
    confidence[:500], confidence[500:1000] = 0.0, 1.0
    labels = (rng.uniform(size=10_000) < confidence**2).astype(int)
    expected = metrics.ECE(15).measure(confidence.astype(np.float64), labels)
    ece, _, _ = calibration_of(calibration_sums(*_binary(labels, confidence)))
    np.testing.assert_allclose(ece, [expected], atol=1e-6)


def test_an_edge_belongs_to_the_bin_above_and_1_to_the_last():
    confidence = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32)
    sums = calibration_sums(*_binary(np.ones(5, int), confidence), num_bins=4)
    np.testing.assert_array_equal(sums[0, :, 0], [1, 1, 1, 2])
    np.testing.assert_array_equal(sums[0, :, 1], [0, 0.25, 0.5, 1.75])
    fifteenths = (np.arange(15) / 15).astype(np.float32)
    sums = calibration_sums(*_binary(np.ones(15, int), fifteenths))
    np.testing.assert_array_equal(sums[0, :, 0], np.ones(15))


def test_sums_per_bucket_are_those_of_each_bucket_alone(predictions):
    labels, probabilities = predictions
    bucket = np.random.default_rng(2).integers(5, size=len(labels))
    bucket[bucket == 3] = 2
    sums = calibration_sums(labels, probabilities, bucket=bucket, num_buckets=5)
    ece, conf, acc = (x.numpy() for x in calibration_of(sums))
    for n in (0, 1, 2, 4):
        here = bucket == n
        expected = numpy_calibration(labels[here], probabilities[here])
        np.testing.assert_allclose([ece[n], conf[n], acc[n]], expected, atol=1e-6)
    assert np.isnan([ece[3], conf[3], acc[3]]).all()


def test_a_million_rows_at_once():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.95, 1.0, 1_000_000).astype(np.float32)
    labels = (rng.uniform(size=1_000_000) > confidence).astype(int)
    probabilities = np.stack([confidence, 1.0 - confidence], axis=-1)
    expected = numpy_calibration(labels, probabilities)[0]
    for ece in (expected_calibration_error, tf.function(expected_calibration_error)):
        np.testing.assert_allclose(ece(labels, probabilities), expected, atol=1e-6)


def test_half_precision_probabilities_are_summed_in_float32(predictions):
    labels, probabilities = predictions
    for dtype in (tf.bfloat16, tf.float16, tf.float64):
        given = tf.cast(probabilities, dtype)
        expected = numpy_calibration(labels, tf.cast(given, tf.float32).numpy())[0]
        np.testing.assert_allclose(expected_calibration_error(labels, given), expected, atol=1e-6)


def test_labels_are_one_hot_too(predictions):
    labels, probabilities = predictions
    expected = numpy_calibration(labels, probabilities)[0]
    for given in (np.eye(10)[labels], labels[:, np.newaxis], labels.astype(np.float32)):
        np.testing.assert_allclose(
            expected_calibration_error(given, probabilities), expected, atol=1e-6
        )


def test_a_nan_and_no_example_are_told_of_by_a_nan():
    assert np.isnan(expected_calibration_error([0, 1], [[np.nan, np.nan], [0.5, 0.5]]))
    assert np.isnan(expected_calibration_error(np.zeros(0, int), np.zeros([0, 3])))
    metric = ExpectedCalibrationError()
    metric.update_state([0, 1], [[np.nan, np.nan], [0.5, 0.5]])
    assert np.isnan(metric.result())


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "predictions", "values"),
    [
        ([0, 1], [[2.0, -1.0], [0.5, 0.5]], "-1.*2"),
        ([0, 1], [[0.6, 0.6, -0.2], [0.5, 0.5, 0.0]], "-0.2"),
        ([0, 1], [[1.25, 0.0], [0.5, 0.5]], "0.25"),
        ([0, 1], [[0.25, 0.25], [0.5, 0.5]], "0.5"),
        ([0, 1], [[0.0, 0.0], [0.5, 0.5]], "1"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "1"),
        ([-1, 1], [[0.5, 0.5], [0.5, 0.5]], "-1"),
        ([[0.5, 0.5], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]], "1"),
    ],
)
def test_what_is_no_probability_or_no_class_is_refused(labels, predictions, values):
    labels, predictions = tf.constant(labels), tf.constant(predictions)
    metric = ExpectedCalibrationError()
    unknown = [tf.TensorSpec([None] * x.shape.rank, x.dtype) for x in (labels, predictions)]
    in_graph = tf.function(expected_calibration_error, input_signature=unknown)
    for measure in (expected_calibration_error, in_graph, metric.update_state):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s)keras_autolabel.*{values}"):
            measure(labels, predictions)
    assert float(metric.result()) == 0.0


def test_predictions_of_one_example_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\)"):
        expected_calibration_error([1], [0.5, 0.5])


@pytest.mark.parametrize(
    ("dtype", "passes", "refused"),
    [("float32", 0.0009, 0.0011), ("float16", 0.004, 0.006), ("bfloat16", 0.015, 0.025)],
)
def test_rows_sum_to_1_as_well_as_their_precision_allows(dtype, passes, refused):
    for off in (passes, -passes):
        expected_calibration_error([0, 0], tf.cast([[1.0 + off, 0.0], [0.5 + off, 0.5]], dtype))
        expected_calibration_error([0, 0], tf.cast([[1.0 + off, -off], [0.0, 1.0]], dtype))
    for row in ([1.0 + refused, 0.0], [1.0 - refused, 0.0], [1.0 + refused, -refused]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="sum to 1"):
            expected_calibration_error([0, 0], tf.cast([row, [0.5, 0.5]], dtype))


# --- functions of confidences and of what is right ------------------------------------------------


def _waves(examples=2000):
    """Confidences in [0.3, 1] without a tie, now too sure and now too unsure by up to 0.18."""
    number = np.arange(examples)
    confidence = 0.3 + 0.7 * ((number * (np.sqrt(5) - 1) / 2) % 1)
    share = confidence + 0.15 * np.sin(12 * confidence) - 0.03
    return confidence, (number * np.sqrt(2)) % 1 < share


def test_errors_equal_those_of_uncertainty_calibration():
    """Version 0.1.4, whose authors are Kumar, Liang & Ma: get_ece, get_ece_em, the marginal l1."""
    confidence, correct = _waves()
    assert binned_ece(confidence, correct) == pytest.approx(0.10607584375715383, rel=1e-12)
    assert adaptive_ece(confidence, correct) == pytest.approx(0.11065050979998093, rel=1e-12)
    ten = adaptive_ece(confidence, correct, num_bins=10)
    assert ten == pytest.approx(0.10548723048136091, rel=1e-12)
    number = np.arange(2000)
    logits = 2.5 * np.sin(np.outer(number + 1, np.sqrt([1, 2, 3, 5])))
    truth = np.cumsum(numpy_softmax(0.7 * logits), axis=1)
    labels = ((number * np.sqrt(7) % 1)[:, np.newaxis] > truth).sum(axis=1)
    probabilities = numpy_softmax(logits)
    # In float32, of which check_predictions makes the probabilities.
    expected = pytest.approx(0.058637456812289886, abs=1e-7)
    assert classwise_ece(labels, probabilities) == expected
    assert classwise_ece(np.eye(4)[labels], probabilities) == expected


def test_equal_confidences_share_a_bin_of_equal_mass():
    # Halves at 0.5 would tear the sevens apart: |0.6 - 1| + |3 * 0.7 - 1| = 1.5.
    for order in (slice(None), slice(None, None, -1)):
        confidence = np.array([0.6, 0.7, 0.7, 0.7])[order]
        correct = np.array([1, 1, 0, 0])[order]
        error = adaptive_ece(confidence, correct, num_bins=2)
        assert error == pytest.approx(1.5 / 4)
    assert adaptive_ece([0.25, 1.0], [0, 1], num_bins=15) == 0.125


def test_binned_ece_and_gap_equal_the_paper(predictions):
    labels, probabilities = predictions
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    for num_bins in (1, 10, 15):
        ece, conf, acc = numpy_calibration(labels, probabilities, num_bins)
        # The same bins as the sums, for confidences on an edge too.
        assert binned_ece(confidence, correct, num_bins=num_bins) == pytest.approx(ece, abs=1e-12)
    assert confidence_gap(confidence, correct) == pytest.approx(conf - acc, abs=1e-12)
    edges = (np.arange(16) / 15).astype(np.float32)
    correct = np.arange(16) % 2
    sums = calibration_sums(*_binary(1 - correct, edges))
    on_edges = calibration_of(sums)[0][0]
    assert binned_ece(edges, 1 - correct) == pytest.approx(float(on_edges), abs=1e-6)


@pytest.mark.parametrize(("examples", "tolerance"), [(100, 0.08), (1000, 0.03), (10_000, 0.03)])
def test_noise_floor_is_the_mean_ece_of_drawn_labels(examples, tolerance):
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=[examples, 10])
    for sharpness in (1.0, 3.0, 10.0):
        confidence = numpy_softmax(sharpness * logits).max(axis=1)
        eces = [binned_ece(confidence, rng.random(examples) < confidence) for _ in range(1000)]
        # A mean over this many draws is known to 1 %.
        assert noise_floor(confidence) == pytest.approx(np.mean(eces), rel=tolerance)


def test_noise_floor_of_sums_is_that_of_their_examples():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([0.1 + 0.9 * rng.random(1000), np.full(300, 0.65)])
    bucket = np.repeat([0, 2], [1000, 300])
    sums = calibration_sums(*_binary(np.ones(1300, int), confidence), bucket=bucket, num_buckets=3)
    floors = noise_floor_of(sums).numpy()
    # Inside a bin, confidences differ by 1/15 at most.
    assert floors[0] == pytest.approx(noise_floor(confidence[:1000]), rel=0.01)
    # One bin of 300: √(2/π · 300 · 0.65 · 0.35)/300.
    assert floors[2] == pytest.approx(0.021972, rel=1e-4)
    assert np.isnan(floors[1])


def test_debiased_ece_is_nearer_to_a_known_truth():
    """Its docstring's figures, in small: all confidences are the same shift too high."""
    rng = np.random.default_rng(0)
    for shift, bias_before, bias_after in ((0.0, 0.02, 0.01), (0.03, 0.01, 0.005)):
        before, after = [], []
        for _ in range(200):
            confidence = 0.4 + 0.6 * rng.random(1000)
            correct = rng.random(1000) < confidence - shift
            before.append(binned_ece(confidence, correct) - shift)
            after.append(debiased_ece(confidence, correct) - shift)
            floor = noise_floor(confidence)
            squares = max((before[-1] + shift) ** 2 - floor**2, 0.0)
            assert after[-1] + shift == pytest.approx(np.sqrt(squares), abs=1e-12)
        assert np.mean(before) > bias_before
        assert abs(np.mean(after)) < bias_after


def _dense_smooth_ece(confidence, correct):
    """smECE by the sum of the kernels themselves and SciPy's root."""
    grid = np.linspace(0.0, 1.0, 1001)

    def error(sigma):
        # Images of each residual by the mirrors at 0 and 1; of further ones a kernel as narrow as
        # that of the root sees nothing.
        images = [sign * confidence + 2 * n for n in range(-1, 2) for sign in (1, -1)]
        kernels = sum(
            np.exp(-0.5 * ((grid[:, np.newaxis] - image) / sigma) ** 2) for image in images
        )
        height = kernels @ (correct - confidence) / (len(correct) * sigma * np.sqrt(2 * np.pi))
        return trapezoid(np.abs(height), grid)

    return brentq(lambda sigma: error(sigma) - sigma, 1e-3, 1.0, xtol=1e-9)


def test_smooth_ece_equals_relplot_and_its_formula():
    confidence, correct = _waves()
    # relplot 1.0.3, smECE: on a mesh of 200, 2,000 and 20,000 points 0.08281, 0.08259, 0.08256; it
    # looks for the width in steps of 2^-10.
    error = smooth_ece(confidence, correct)
    assert error == pytest.approx(0.0826, abs=2e-4)
    confidence, correct = confidence[:500], correct[:500]
    expected = _dense_smooth_ece(confidence, correct)
    assert smooth_ece(confidence, correct) == pytest.approx(expected, abs=1e-5)
    confidence, correct = confidence[:60] ** 0.1, correct[:60]
    expected = _dense_smooth_ece(confidence, correct)
    assert expected > 0.1 and smooth_ece(confidence, correct) == pytest.approx(expected, abs=1e-5)
    assert smooth_ece([1.0, 0.0], [1, 0]) < 1e-6


def test_brier_decomposition_adds_up_to_scikit_learns_score_of_the_bins(predictions):
    labels, probabilities = predictions
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    for num_bins in (1, 7, 15):
        bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
        means = {r: confidence[bins == r].mean() for r in set(bins)}
        binned = np.array([means[r] for r in bins])
        parts = brier_decomposition(confidence, correct, num_bins=num_bins)
        reliability, resolution, uncertainty = parts
        score = brier_score_loss(correct, binned)
        assert reliability - resolution + uncertainty == pytest.approx(score, rel=1e-9)
        assert uncertainty == pytest.approx(correct.var(), rel=1e-12)
        rates = {r: correct[bins == r].mean() for r in set(bins)}
        best = np.array([rates[r] for r in bins])
        assert resolution == pytest.approx(best.var(), abs=1e-12)
    # Two bins: (0.625, 0.5, weight 2/3) and (0.25, 0, 1/3); Acc 1/3.
    parts = brier_decomposition([0.5, 0.75, 0.25], [1, 0, 0], num_bins=2)
    assert parts == pytest.approx((2 / 3 / 64 + 1 / 3 / 16, 2 / 3 / 36 + 1 / 3 / 9, 2 / 9))


def test_bootstrap_interval_equals_scipys():
    confidence, correct = _waves(500)
    _, better = _waves(700)
    better = better[200:]
    for statistic, first, second in (
        (np.mean, [correct], None),
        (confidence_gap, [confidence, correct], None),
        (debiased_ece, [confidence, correct], None),
        (confidence_gap, [confidence, correct], [np.sqrt(confidence), better]),
    ):
        if second is None:
            arrays, whole = first, statistic
        else:
            arrays = first + second

            def whole(a, b, c, d, statistic=statistic):
                return statistic(a, b) - statistic(c, d)

        scipys = bootstrap(
            arrays,
            whole,
            vectorized=False,
            paired=True,
            method="percentile",
            n_resamples=1000,
            confidence_level=0.9,
            random_state=np.random.default_rng(1),
        )
        expected = scipys.confidence_interval
        width = expected.high - expected.low
        found = bootstrap_interval(statistic, first, second, level=0.9, num_draws=1000)
        np.testing.assert_allclose(found, expected, atol=0.1 * width)
        # The number of draws is the default.
        assert found == bootstrap_interval(statistic, first, second, level=0.9)
        assert found != bootstrap_interval(statistic, first, second, level=0.9, seed=1)


def test_bootstrap_takes_whole_rows_of_examples():
    # Each row is the same number: a mean over columns is it again.
    rows = np.repeat(np.arange(10.0)[:, np.newaxis], 3, axis=1)
    found = bootstrap_interval(lambda x: x[:, 2].mean() - x[:, 0].mean(), [rows], num_draws=20)
    assert found == (0.0, 0.0)
    # What two models have in common cancels.
    assert bootstrap_interval(np.mean, [rows[:, 0] + 2.0], [rows[:, 0]], num_draws=20) == (
        pytest.approx((2.0, 2.0))
    )


ERRORS = (binned_ece, debiased_ece, confidence_gap, adaptive_ece, smooth_ece, brier_decomposition)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_errors_of_pairs(error):
    assert np.isnan(error([np.nan, 0.5], [1, 0])).any()
    # What a softmax of half precision may round to.
    assert np.isfinite(error([1.0005, -0.0005], [1, 0])).all()
    for confidence, correct, value in (
        ([1.0015, 0.5], [1, 0], "1.0015"),
        ([-0.0015, 0.5], [1, 0], "-0.0015"),
        ([0.5, 0.5], [3, 1], "3"),
        ([0.5, 0.5], [1], r"\(2,\), \(1,\)"),
        ([[0.5, 0.5]], [[1, 0]], r"\(1, 2\)"),
        ([], [], r"\(0,\)"),
    ):
        with pytest.raises(ValueError, match=value):
            error(confidence, correct)


@pytest.mark.parametrize(
    ("arrays", "options", "value"),
    [
        (([1.0], [1.0, 0.0]), {}, r"\[1, 2\]"),
        (([],), {}, r"\[0\]"),
        (([1.0],), {"level": 95}, "level=95"),
        (([1.0],), {"num_draws": 0}, "num_draws=0"),
    ],
)
def test_bootstrap_refuses(arrays, options, value):
    with pytest.raises(ValueError, match=value):
        bootstrap_interval(np.mean, arrays, **options)
