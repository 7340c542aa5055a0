import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize, special

from keras_autolabel import TemperatureScaling

# Scale of the logits against the temperature at which the labels were drawn: sure of itself by
# far too much, by too much, about right, too little, by far too little.
SHARPNESS = [50.0, 4.0, 1.0, 0.3, 0.02]


def _problem(seed: int, sharpness: float, *, num_classes: int = 5, examples: int = 400) -> tuple:
    """Labels drawn from softmax(z), and the logits sharpness·z: the best temperature is near it."""
    rng = np.random.default_rng(seed)
    z = rng.normal(scale=1.5, size=[examples, num_classes])
    probabilities = special.softmax(z, axis=-1)
    labels = (probabilities.cumsum(axis=-1) < rng.uniform(size=[examples, 1])).sum(axis=-1)
    return labels.clip(max=num_classes - 1), sharpness * z


def _loss(temperature: float, labels, logits) -> float:
    log_probabilities = special.log_softmax(logits / temperature, axis=-1)
    return -log_probabilities[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("sharpness", SHARPNESS)
@pytest.mark.parametrize("num_classes", [2, 5, 100])
def test_equals_a_minimum_found_by_scipy(sharpness, num_classes):
    for seed in range(3):
        labels, logits = _problem(seed, sharpness, num_classes=num_classes)
        best = optimize.minimize_scalar(
            lambda log_t, *problem: _loss(np.exp(log_t), *problem),
            args=(labels, logits),
            bounds=np.log([1e-3, 1e3]),
            method="bounded",
            options={"xatol": 1e-10, "maxiter": 1000},
        )
        temperature = TemperatureScaling().fit(labels, logits).temperature
        # dNLL/d(1/T) = mean(Σ_k p_k·z_k - z_y), and it is 0 where the loss is lowest.
        p = special.softmax(logits / temperature, axis=-1)
        slope = ((p * logits).sum(axis=-1) - logits[np.arange(len(labels)), labels]).mean()
        assert abs(slope) < 1e-8 * np.abs(logits).mean()
        # A minimum can be seen to the root of the precision only: 1e-8.
        np.testing.assert_allclose(temperature, np.exp(best.x), rtol=1e-6)
        assert 0.5 * sharpness < temperature < 2.0 * sharpness
        assert _loss(temperature, labels, logits) <= best.fun + 1e-15


def test_by_hand():
    # Three of four are right: σ(4/T) = 3/4, that is, T = 4/ln 3.
    logits = np.tile([4.0, 0.0], [4, 1])
    scaling = TemperatureScaling()
    assert scaling.temperature == 1.0
    assert scaling.fit([0, 1, 0, 0], logits) is scaling
    np.testing.assert_allclose(scaling.temperature, 4.0 / np.log(3.0), rtol=1e-9)
    np.testing.assert_allclose(
        scaling(np.array([[2.0, 1.0]]))[0], np.log(3.0) * np.array([0.5, 0.25])
    )


def test_scaled_logits_scale_the_temperature():
    labels, logits = _problem(0, 2.0)
    temperature = TemperatureScaling().fit(labels, logits).temperature
    # By 500, softmax would overflow.
    for factor in (0.1, 3.0, 500.0):
        scaled = TemperatureScaling().fit(labels, factor * logits).temperature
        np.testing.assert_allclose(scaled, factor * temperature, rtol=1e-7)
    # A shift of all logits of an example changes nothing.
    shift = np.random.default_rng(0).normal(scale=30.0, size=[len(labels), 1])
    shifted = TemperatureScaling().fit(labels, logits + shift).temperature
    np.testing.assert_allclose(shifted, temperature, rtol=1e-7)


def test_predictions_do_not_change():
    labels, logits = _problem(1, 4.0)
    logits = logits.astype(np.float32)
    scaling = TemperatureScaling().fit(labels, logits)
    assert abs(scaling.temperature - 1.0) > 1.0
    for given in (tf.constant(logits), tf.cast(logits, tf.float64), logits):
        scaled = scaling(given)
        assert scaled.dtype == given.dtype
        np.testing.assert_allclose(scaled, logits / scaling.temperature, rtol=1e-6)
        np.testing.assert_array_equal(np.argmax(scaled, axis=-1), logits.argmax(axis=-1))
    graph = tf.function(lambda x: scaling(x))
    np.testing.assert_allclose(graph(tf.constant(logits)), scaling(logits), rtol=1e-6)


def test_labels_of_every_form_and_half_precision():
    labels, logits = _problem(2, 2.0)
    expected = TemperatureScaling().fit(labels, logits.astype(np.float32)).temperature
    for given in (labels[:, np.newaxis], labels.astype(np.float32), np.eye(5)[labels]):
        fitted = TemperatureScaling().fit(tf.constant(given), tf.constant(logits, tf.float32))
        np.testing.assert_allclose(fitted.temperature, expected, rtol=1e-9)
    half = TemperatureScaling().fit(labels, tf.cast(logits, tf.bfloat16))
    np.testing.assert_allclose(half.temperature, expected, rtol=0.01)


@pytest.mark.parametrize("gap", [1e-3, 2.0, 20.0, 1e4])
def test_a_separable_holdout_ends_without_nan_and_without_loss(gap):
    labels = np.arange(12) % 3
    logits = gap * np.eye(3)[labels]
    temperature = TemperatureScaling().fit(labels, logits).temperature
    # The colder the better, down to the bound or to where nothing is left to win; never warmer.
    assert 1e-3 * (1 - 1e-6) <= temperature <= 1.0
    if gap < 0.01:
        np.testing.assert_allclose(temperature, 1e-3, rtol=1e-6)
    bound = _loss(1e-3, labels, logits)
    np.testing.assert_allclose(_loss(temperature, labels, logits), bound, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("gap", [1e-3, 2.0, 1e4])
def test_a_holdout_that_is_always_wrong_ends_at_the_upper_bound(gap):
    labels = np.arange(12) % 3
    logits = gap * np.eye(3)[(labels + 1) % 3]
    temperature = TemperatureScaling().fit(labels, logits).temperature
    np.testing.assert_allclose(temperature, 1e3, rtol=1e-6)


def test_logits_that_say_nothing_leave_the_temperature_at_1():
    assert TemperatureScaling().fit([0, 1, 2], np.ones([3, 3])).temperature == 1.0


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([], np.zeros([0, 3]), r"Received: labels \(0,\), logits \(0, 3\)"),
        ([0, 1], np.zeros([3, 3]), r"Received: labels \(2,\), logits \(3, 3\)"),
        ([0, 1], np.zeros([2]), r"logits \(2,\)"),
        ([0, 1], [[0.0, 1.0], [0.0, np.nan]], "finite"),
        ([0, 1], [[0.0, 1.0], [0.0, np.inf]], "finite"),
        ([0, 3], np.ones([2, 3]), ": 0, 3"),
        ([-1, 1], np.ones([2, 3]), ": -1, 1"),
        ([0.0, 1.5], np.ones([2, 3]), ": 1"),
        ([[0.5, 0.5, 0.0]], np.ones([1, 3]), ": 1"),
        ([0, 1], [[0.5, 0.5], [0.2, 0.8]], "probabilities"),
        ([0, 1], [[1.0, 0.0], [0.0, 1.0009]], "probabilities"),
    ],
)
def test_what_are_no_logits_and_no_classes_is_refused(labels, logits, message):
    scaling = TemperatureScaling()
    with pytest.raises(ValueError, match=message) as refused:
        scaling.fit(np.asarray(labels), logits)
    assert "\n" not in str(refused.value)
    assert scaling.temperature == 1.0


def test_logits_that_sum_to_1_are_no_probabilities():
    # One of them is below 0, or only one row sums to 1.
    for logits in ([[1.5, -0.5], [0.5, 0.5]], [[0.5, 0.5], [0.2, 0.9]]):
        assert TemperatureScaling().fit([0, 1], logits).temperature != 1.0
