import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AutoLabelModel, ExpectedCalibrationError, expected_calibration_error
from keras_autolabel.calibration import calibration_of, calibration_sums
from tests.conftest import linear_network, numpy_calibration, numpy_softmax


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


# --- the metric -----------------------------------------------------------------------------------


def test_metric_in_batches_equals_one_shot(predictions):
    labels, probabilities = predictions
    metric = ExpectedCalibrationError()

    @tf.function
    def update(labels, probabilities):
        metric.update_state(labels, probabilities)

    for start in range(0, 10_000, 999):
        update(labels[start : start + 999], probabilities[start : start + 999])
    expected = numpy_calibration(labels, probabilities)[0]
    np.testing.assert_allclose(metric.result(), expected, atol=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0.0
    metric.update_state(labels[:100], probabilities[:100])
    expected = numpy_calibration(labels[:100], probabilities[:100])[0]
    np.testing.assert_allclose(metric.result(), expected, atol=1e-6)


def test_metric_with_sample_weight_equals_repeated_rows(predictions):
    labels, probabilities = (part[:1000] for part in predictions)
    weight = np.random.default_rng(4).integers(4, size=1000)
    metric = ExpectedCalibrationError()
    for rows in (slice(0, 300), slice(300, 1000)):
        metric.update_state(labels[rows], probabilities[rows], sample_weight=weight[rows])
    repeated = np.repeat(labels, weight), np.repeat(probabilities, weight, axis=0)
    np.testing.assert_allclose(metric.result(), numpy_calibration(*repeated)[0], atol=1e-6)


@pytest.mark.parametrize("from_logits", [True, False, None])
def test_metric_under_fit_and_evaluate(digits, from_logits):
    images, labels = digits
    network = linear_network((8, 8, 1), 10, scale=0.2)
    inputs = images / np.float32(255)
    weights, bias = network.get_weights()
    probabilities = numpy_softmax(inputs.reshape(len(inputs), -1) @ weights + bias)
    expected = numpy_calibration(labels, probabilities)[0]
    metrics = [ExpectedCalibrationError(from_logits=from_logits)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits is True)
    if from_logits is None:
        # Compiled into the model, the metric learns that it is given logits.
        model, loss = AutoLabelModel(network, num_classes=10), None
    else:
        softmax = [] if from_logits else [keras.layers.Softmax()]
        model = keras.Sequential([network, *softmax])
    # The learning rate is 0, so that both epochs end with the same network.
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=metrics)
    history = model.fit(inputs, labels, batch_size=64, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["ece"], [expected, expected], atol=1e-5)
    ece = model.evaluate(inputs, labels, batch_size=50, verbose=0, return_dict=True)["ece"]
    np.testing.assert_allclose(ece, expected, atol=1e-5)


def test_metric_config_round_trip():
    metric = ExpectedCalibrationError(10, from_logits=True, name="calibration")
    copy = keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(metric))
    assert (copy.num_bins, copy.from_logits, copy.name) == (10, True, "calibration")
    assert ExpectedCalibrationError().get_config()["from_logits"] is None


@pytest.mark.parametrize("num_bins", [0, 1.5])
def test_metric_refuses(num_bins):
    with pytest.raises(ValueError, match=f"num_bins={num_bins}"):
        ExpectedCalibrationError(num_bins)
    assert ExpectedCalibrationError(1).num_bins == 1


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
