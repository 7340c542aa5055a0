import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import AutoLabel, AutoLabelModel, ExpectedCalibrationError, LabelTable
from keras_autolabel.distribution import replica_seed
from tests.conftest import Dimming, linear_network, numpy_softmax

SHAPE, NUM_CLASSES = (4, 4, 1), 3


def _data(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    images = rng.integers(256, size=[size, *SHAPE]).astype(np.uint8)
    return images, rng.integers(NUM_CLASSES, size=size)


def _train(strategy, augmentation, *callbacks, weights=None, **options) -> dict:
    """Two epochs of three batches; what they leave behind."""
    with strategy.scope():
        layer = keras.layers.Dense(NUM_CLASSES, kernel_regularizer=keras.regularizers.L2(0.01))
        network = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), layer])
        network.set_weights(linear_network(SHAPE, NUM_CLASSES).get_weights())
        policy = LabelTable((3,) if augmentation else (1,), initial=0.7)
        model = AutoLabelModel(network, augmentation, num_classes=NUM_CLASSES, label_policy=policy)
        model.compile(
            keras.optimizers.SGD(0.5, momentum=0.9, **options),
            metrics=["accuracy", ExpectedCalibrationError(from_logits=True)],
        )
    parts = _data(24) if weights is None else (*_data(24), weights)
    data = tf.data.Dataset.from_tensor_slices(parts).batch(8, drop_remainder=True)
    history = model.fit(data, epochs=2, callbacks=list(callbacks), verbose=0).history
    logs = {} if callbacks else model.evaluate(data, verbose=0, return_dict=True)
    return {
        "history": {name: [float(x) for x in values] for name, values in history.items()},
        "evaluate": {name: float(value) for name, value in logs.items()},
        "weights": [w.tolist() for w in network.get_weights()],
        "table": tf.convert_to_tensor(policy.confidence).numpy().tolist(),
    }


def _callback(**options) -> AutoLabel:
    # 100 images in three buckets: 300 rows fill neither one batch of 256 nor one of 512.
    return AutoLabel(_data(100), step_size=0.5, **options)


def _runs(strategy) -> dict:
    weights = np.linspace(0, 2, 24, dtype=np.float32)
    return {
        "weighted": _train(strategy, None, weights=weights),
        "autolabel": _train(strategy, Dimming(), _callback()),
        "averaged": _train(
            strategy, Dimming(), _callback(debias=True), use_ema=True, ema_momentum=0.5
        ),
    }


def _uneven(strategy) -> dict:
    """What a batch of eight images and one of seven, which are four and three, leave behind."""
    with strategy.scope():
        network = linear_network(SHAPE, NUM_CLASSES)
        model = AutoLabelModel(network, num_classes=NUM_CLASSES)
        model.compile(keras.optimizers.SGD(0.5))
    # Keras 3 cannot build itself on a first batch that is uneven.
    data = tf.data.Dataset.from_tensor_slices(_data(15)).batch(8)
    loss = float(model.fit(data, verbose=0).history["loss"][0])
    return {"loss": loss, "weights": [w.tolist() for w in network.get_weights()]}


def print_results_of_two_replicas() -> None:
    """Runs in a process of its own: logical devices must be set before TensorFlow starts."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    results = _runs(strategy)

    @tf.function
    def on_replica():
        return replica_seed(tf.constant([1, 2]))

    seed = strategy.run(on_replica)
    results["seed"] = [x.numpy().tolist() for x in strategy.experimental_local_results(seed)]
    results["uneven"] = _uneven(strategy)
    print(json.dumps(results))


@pytest.fixture(scope="module")
def two_replicas() -> dict:
    module = "tests.keras_autolabel.distribution_test"
    command = f"from {module} import print_results_of_two_replicas as run; run()"
    result = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one_device() -> dict:
    return _runs(tf.distribute.get_strategy())


@pytest.mark.parametrize("run", ["weighted", "autolabel", "averaged"])
def test_two_replicas_equal_one_device(two_replicas, one_device, run):
    actual, expected = two_replicas[run], one_device[run]
    for part in ("history", "evaluate"):
        assert actual[part].keys() == expected[part].keys()
        for name, values in expected[part].items():
            np.testing.assert_allclose(actual[part][name], values, atol=1e-6, err_msg=name)
    for one, other in zip(actual["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(actual["table"], expected["table"], atol=1e-6)


def test_the_table_was_learned(two_replicas):
    assert np.all(np.abs(np.subtract(two_replicas["autolabel"]["table"], 0.7)) > 1e-3)
    np.testing.assert_allclose(two_replicas["weighted"]["table"], [0.7])


def test_replicas_with_rows_to_different_numbers_count_alike(two_replicas):
    # As in Keras: the mean of the replicas' means, not that of all seven images.
    images, labels = _data(15)
    kernel, bias = linear_network(SHAPE, NUM_CLASSES).get_weights()
    losses = []
    for rows, weight in (
        (slice(0, 8), np.full(8, 1 / 8)),
        (slice(8, 15), np.repeat([1 / 8, 1 / 6], [4, 3])),
    ):
        inputs, truth = images[rows].reshape(len(weight), -1) / 255.0, labels[rows]
        p = numpy_softmax(inputs @ kernel + bias)
        losses.extend(-np.log(p[np.arange(len(truth)), truth]))
        slope = (p - np.eye(NUM_CLASSES)[truth]) * weight[:, np.newaxis]
        kernel, bias = kernel - 0.5 * inputs.T @ slope, bias - 0.5 * slope.sum(axis=0)
    for actual, expected in zip(two_replicas["uneven"]["weights"], (kernel, bias), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    # What is reported is the mean of all images.
    np.testing.assert_allclose(two_replicas["uneven"]["loss"], np.mean(losses), rtol=1e-5)


def test_replicas_draw_apart(two_replicas):
    first, second = two_replicas["seed"]
    assert first != second
    # The first replica draws what a single device draws.
    assert first == replica_seed(tf.constant([1, 2])).numpy().tolist()
