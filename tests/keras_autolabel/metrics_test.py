import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AutoLabelModel, ExpectedCalibrationError
from keras_autolabel.calibration import classwise_ece, confidence_gap
from keras_autolabel.metrics import ClasswiseECE, ConfidenceGap
from tests.conftest import linear_network, numpy_calibration, numpy_softmax


def _numpy_gap(labels, probabilities):
    return confidence_gap(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


# A metric, and what it is of all at once; the functions have tests of their own.
METRICS = {
    "ece": (ExpectedCalibrationError, {}, lambda *x: numpy_calibration(*x)[0]),
    "gap": (ConfidenceGap, {}, _numpy_gap),
    "classwise_ece": (ClasswiseECE, {"num_classes": 10}, classwise_ece),
}


@pytest.fixture(params=METRICS)
def case(request):
    """A function that makes a metric, and one that gives its figure."""
    kind, options, expected = METRICS[request.param]
    return lambda **more: kind(**options, **more), expected


@pytest.fixture(scope="module")
def predictions():
    """10,000 labels and rows of probabilities in 10 classes, 200 of them certain, too sure."""
    rng = np.random.default_rng(0)
    logits = rng.uniform(0.1, 6.0, [10_000, 1]) * rng.normal(size=[10_000, 10])
    probabilities = numpy_softmax(logits).astype(np.float32)
    probabilities[:200] = np.eye(10, dtype=np.float32)[rng.integers(10, size=200)]
    labels = np.array([rng.choice(10, p=p) for p in numpy_softmax(0.7 * logits)])
    return labels, probabilities


def test_metric_in_batches_equals_one_shot(case, predictions):
    make, figure = case
    labels, probabilities = predictions
    metric = make()

    @tf.function
    def update(labels, probabilities):
        metric.update_state(labels, probabilities)

    for start in range(0, 10_000, 999):
        update(labels[start : start + 999], probabilities[start : start + 999])
    np.testing.assert_allclose(metric.result(), figure(labels, probabilities), atol=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0.0
    metric.update_state(labels[:100], probabilities[:100])
    expected = figure(labels[:100], probabilities[:100])
    assert abs(expected) > 0.01
    np.testing.assert_allclose(metric.result(), expected, atol=1e-6)


def test_metric_with_sample_weight_equals_repeated_rows(case, predictions):
    make, figure = case
    labels, probabilities = (part[:1000] for part in predictions)
    weight = np.random.default_rng(4).integers(4, size=1000)
    metric = make()
    for rows in (slice(0, 300), slice(300, 1000)):
        metric.update_state(labels[rows], probabilities[rows], sample_weight=weight[rows])
    repeated = np.repeat(labels, weight), np.repeat(probabilities, weight, axis=0)
    np.testing.assert_allclose(metric.result(), figure(*repeated), atol=1e-6)


@pytest.mark.parametrize("from_logits", [True, False, None])
def test_metrics_under_fit_and_evaluate(digits, from_logits):
    images, labels = digits
    network = linear_network((8, 8, 1), 10, scale=0.2)
    inputs = images / np.float32(255)
    weights, bias = network.get_weights()
    probabilities = numpy_softmax(inputs.reshape(len(inputs), -1) @ weights + bias)
    metrics, expected = [], {}
    for kind, options, figure in METRICS.values():
        metrics.append(kind(from_logits=from_logits, **options))
        expected[metrics[-1].name] = figure(labels, probabilities)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits is True)
    if from_logits is None:
        # Compiled into the model, a metric learns that it is given logits.
        model, loss = AutoLabelModel(network, num_classes=10), None
    else:
        softmax = [] if from_logits else [keras.layers.Softmax()]
        model = keras.Sequential([network, *softmax])
    # The learning rate is 0, so that both epochs end with the same network.
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=metrics)
    history = model.fit(inputs, labels, batch_size=64, epochs=2, verbose=0).history
    found = model.evaluate(inputs, labels, batch_size=50, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(history[name], [value, value], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_metric_config_round_trip():
    for metric, attributes in (
        (ExpectedCalibrationError(10, from_logits=True, name="calibration"), {"num_bins": 10}),
        (ConfidenceGap(from_logits=True, name="calibration"), {}),
        (
            ClasswiseECE(3, 10, from_logits=True, name="calibration"),
            {"num_classes": 3, "num_bins": 10},
        ),
    ):
        copy = keras.utils.deserialize_keras_object(keras.utils.serialize_keras_object(metric))
        assert type(copy) is type(metric)
        expected = {"from_logits": True, "name": "calibration", **attributes}
        assert {name: getattr(copy, name) for name in expected} == expected
    assert ExpectedCalibrationError().get_config()["from_logits"] is None


def test_a_nan_is_told_of_by_a_nan(case):
    make, _ = case
    metric = make()
    metric.update_state([0], np.full([1, 10], np.nan))
    assert np.isnan(metric.result())


@pytest.mark.parametrize("number", [0, 1.5])
def test_metric_refuses(number):
    with pytest.raises(ValueError, match=f"num_bins={number}"):
        ExpectedCalibrationError(number)
    with pytest.raises(ValueError, match=f"num_classes={number}"):
        ClasswiseECE(number)
    assert ExpectedCalibrationError(1).num_bins == ClasswiseECE(1).num_classes == 1
