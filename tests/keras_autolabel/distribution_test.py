import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import (
    PGD,
    Augmentation,
    AugMix,
    AutoLabel,
    AutoLabelModel,
    CutMix,
    ExpectedCalibrationError,
    HalfAdversarial,
    LabelTable,
    Mixup,
    RandAugment,
    SoftCrop,
)
from keras_autolabel.distribution import (
    functions_of_rows,
    replica_seed,
    uniform_rows,
    variables_apart,
)
from tests.conftest import Dimming, linear_network, numpy_softmax

SHAPE, NUM_CLASSES = (4, 4, 1), 3
# Draws and images are those of a single device, but for partners, and the halves of CCAT.
DRAWN = {
    "AugMix": AugMix(num_buckets=2, max_depth=2, operations=("rotate", "solarize")),
    "RandAugment": RandAugment(num_buckets=3, operations=("posterize", "shear_x")),
    "SoftCrop": SoftCrop(num_buckets=3),
    "PGD": PGD(num_buckets=2, epsilon=0.2, num_steps=2),
}
PAIRED = {"Mixup": Mixup(num_buckets=3), "CutMix": CutMix(num_buckets=3)}


class Noise(Augmentation):
    """Noise on grey; with a seed alone, as an augmentation of one's own would be written."""

    def apply(self, images, labels, drawn, network=None):
        noise = tf.random.stateless_uniform(tf.shape(images), drawn.seed, -0.1, 0.1)
        return self.moved(0.5 + noise, labels, drawn)


def _data(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    images = rng.integers(256, size=[size, *SHAPE]).astype(np.uint8)
    return images, rng.integers(NUM_CLASSES, size=size)


def _train(strategy, augmentation, callback, *, weights=None, norms=(), **options) -> dict:
    """Two epochs of three batches; what they leave behind."""
    with strategy.scope():
        layer = keras.layers.Dense(NUM_CLASSES, kernel_regularizer=keras.regularizers.L2(0.01))
        norms = [norm() for norm in norms]
        network = keras.Sequential([keras.Input(SHAPE), *norms, keras.layers.Flatten(), layer])
        layer.set_weights(linear_network(SHAPE, NUM_CLASSES).get_weights())
        policy = LabelTable(augmentation.bucket_shape, initial=0.7)
        model = AutoLabelModel(network, augmentation, num_classes=NUM_CLASSES, label_policy=policy)
        model.compile(
            keras.optimizers.SGD(0.5, momentum=0.9, **options),
            metrics=["accuracy", ExpectedCalibrationError(from_logits=True)],
        )
    parts = _data(24) if weights is None else (*_data(24), weights)
    data = tf.data.Dataset.from_tensor_slices(parts).batch(8, drop_remainder=True)
    history = model.fit(data, epochs=2, callbacks=[callback], verbose=0).history
    logs = {} if weights is None else model.evaluate(data, verbose=0, return_dict=True)
    return {
        "history": {name: [float(x) for x in values] for name, values in history.items()},
        "evaluate": {name: float(value) for name, value in logs.items()},
        "weights": [w.tolist() for w in network.get_weights()],
        "table": tf.convert_to_tensor(policy.confidence).numpy().tolist(),
    }


def _callback(**options) -> AutoLabel:
    # 100 images in two or four buckets: their rows fill neither one batch of 256 nor one of 512.
    return AutoLabel(_data(100), step_size=0.5, **options)


def _synchronized_norm() -> keras.layers.Layer:
    return keras.layers.BatchNormalization(momentum=0.5, synchronized=True)


def _runs(strategy) -> dict:
    weights = np.linspace(0, 2, 24, dtype=np.float32)
    averaged = {"use_ema": True, "ema_momentum": 0.5, "norms": [_synchronized_norm]}
    # The table of one has two axes, one needs the network. Without an augmentation: ``_uneven``.
    augmix = AugMix(num_buckets=2, max_depth=2, operations=("solarize",))
    return {
        "AugMix": _train(strategy, augmix, _callback(debias=True), weights=weights, **averaged),
        "PGD": _train(strategy, DRAWN["PGD"], _callback()),
    }


def _augmented(strategy, augmentation) -> dict:
    """A batch of eight images, as each replica gets its part, put together again."""
    images, labels = _data(8)
    several = strategy.num_replicas_in_sync
    parts = zip(np.split(images, several), np.split(labels, several), strict=True)
    parts = [tuple(map(tf.constant, part)) for part in parts]

    def values(index):
        return strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group][index]
        )

    network = linear_network(SHAPE, NUM_CLASSES)

    @tf.function
    def on_replica(images, labels):
        return augmentation(images, labels, seed=tf.constant([5, 6]), network=network)

    batch = strategy.run(on_replica, args=(values(0), values(1)))
    local = [strategy.experimental_local_results(x) for x in batch]
    fields = [np.concatenate([x.numpy() for x in field]).tolist() for field in local]
    return dict(zip(batch._fields, fields, strict=True))


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


class BrokenForClass2(Dimming):
    """``Dimming`` that makes images of class 2 no numbers."""

    def apply(self, images, labels, drawn, network=None):
        batch = super().apply(images, labels, drawn, network)
        nan = tf.where(labels == 2, np.float32(np.nan), 0.0)
        return batch._replace(images=batch.images + nan[:, tf.newaxis, tf.newaxis, tf.newaxis])


def _broken(strategy) -> dict:
    """Three steps of which the second has a NaN in the rows of the second replica."""
    images, labels = _data(24)
    labels = np.where(np.arange(24) == 14, 2, labels % 2)
    with strategy.scope():
        network = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()])
        network.add(keras.layers.Dense(NUM_CLASSES))
        model = AutoLabelModel(network, BrokenForClass2(), num_classes=NUM_CLASSES)
        model.compile(keras.optimizers.SGD(0.5))
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8, drop_remainder=True)
    callbacks = [keras.callbacks.TerminateOnNaN(), _callback()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = model.fit(data, epochs=3, verbose=0, callbacks=callbacks).history["loss"]
    table = tf.convert_to_tensor(model.label_policy.confidence).numpy().tolist()
    told = [str(w.message) for w in caught if "diverged" in str(w.message)]
    return {"told": told, "epochs": len(losses), "table": table}


def _kept_apart(strategy) -> dict:
    """A statistic of which each replica has its own, gathered, lost and given back."""
    on_read, mean = tf.VariableSynchronization.ON_READ, tf.VariableAggregation.MEAN
    with strategy.scope():
        own = tf.Variable([0.0, 0.0], synchronization=on_read, aggregation=mean, trainable=False)
        shared = tf.Variable([5.0])

    @tf.function
    def on_replica():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        own.assign(tf.cast([replica, 10 * replica + 1], tf.float32))

    strategy.run(on_replica)
    gather, give_back = functions_of_rows(strategy, variables_apart(strategy, [shared, own]))
    rows = gather()
    own.assign([7.0, 7.0])
    lost = gather()
    give_back(rows)
    return {
        "gathered": rows.numpy().tolist(),
        "lost": lost.numpy().tolist(),
        "given_back": gather().numpy().tolist(),
        "mean": own.read_value().numpy().tolist(),
    }


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
    results["apart"] = _kept_apart(strategy)
    results["uneven"] = _uneven(strategy)
    results["broken"] = _broken(strategy)
    half = HalfAdversarial(PGD(epsilon=0.2, num_steps=1))
    made = {**DRAWN, **PAIRED, "HalfAdversarial": half, "Noise": Noise()}
    results["augmented"] = {name: _augmented(strategy, each) for name, each in made.items()}
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


@pytest.mark.parametrize("run", ["AugMix", "PGD"])
def test_two_replicas_equal_one_device(two_replicas, one_device, run):
    actual, expected = two_replicas[run], one_device[run]
    for part in ("history", "evaluate"):
        assert actual[part].keys() == expected[part].keys()
        for name, values in expected[part].items():
            np.testing.assert_allclose(actual[part][name], values, atol=1e-5, err_msg=name)
    for one, other in zip(actual["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(actual["table"], expected["table"], atol=1e-5)


def test_the_table_was_learned(two_replicas):
    assert np.all(np.abs(np.subtract(two_replicas["PGD"]["table"], 0.7)) > 1e-3)


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


def test_a_nan_on_one_replica_ends_training_and_is_told_of(two_replicas):
    broken = two_replicas["broken"]
    (told,) = broken["told"]
    assert "epoch 1, after 2 steps in all, the loss is not finite on replica 1 of 2," in told
    assert "2 weights are not finite" in told
    assert broken["epochs"] == 1
    np.testing.assert_array_equal(np.float32(broken["table"]), np.float32([0.7, 0.7, 0.7]))


def test_what_replicas_keep_apart_is_gathered_and_given_back(two_replicas):
    assert two_replicas["apart"] == {
        "gathered": [[0.0, 1.0], [1.0, 11.0]],
        "lost": [[7.0, 7.0]] * 2,
        "given_back": [[0.0, 1.0], [1.0, 11.0]],
        "mean": [0.5, 6.0],
    }


def test_replicas_draw_apart(two_replicas):
    first, second = two_replicas["seed"]
    assert first != second
    assert replica_seed(tf.constant([1, 2])).numpy().tolist() == [1, 2]


@pytest.mark.parametrize("name", DRAWN)
def test_a_batch_is_that_of_one_device(two_replicas, name):
    expected = _augmented(tf.distribute.get_strategy(), DRAWN[name])
    assert np.unique(expected["distance"]).size > 4
    for field, values in expected.items():
        actual = two_replicas["augmented"][name][field]
        np.testing.assert_allclose(actual, values, atol=1e-6, err_msg=field)


@pytest.mark.parametrize("name", PAIRED)
def test_partners_alone_are_those_of_the_replica(two_replicas, name):
    batch = two_replicas["augmented"][name]
    expected = _augmented(tf.distribute.get_strategy(), PAIRED[name])
    for field in ("labels", "mix", "distance", "bucket"):
        np.testing.assert_allclose(batch[field], expected[field], atol=1e-6, err_msg=field)
    classes = np.array(batch["labels"])
    for rows in (slice(0, 4), slice(4, 8)):
        # A permutation of the replica's own.
        assert sorted(batch["partners"][rows]) == sorted(classes[rows])
    assert batch["partners"] != expected["partners"]


def test_what_else_is_random_differs_between_replicas(two_replicas):
    noise = np.array(two_replicas["augmented"]["Noise"]["images"]) - 0.5
    assert np.all(np.abs(noise[:4] - noise[4:]).max(axis=(1, 2, 3)) > 0.01)


def test_half_of_each_replica_is_attacked(two_replicas):
    batch = two_replicas["augmented"]["HalfAdversarial"]
    assert (np.array(batch["distance"]) > 0).tolist() == [False, False, True, True] * 2


@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (4, 3, 3, 1), (1, 1)])
@pytest.mark.parametrize("first_row", [0, 1, 3])
def test_rows_of_a_uniform_draw(shape, first_row):
    seed, whole_shape = tf.constant([7, -8]), [first_row + shape[0], *shape[1:]]
    # Compiled, TensorFlow draws other numbers than it does otherwise.
    for compiled in (False, True) if (shape, first_row) == ((3, 5), 3) else (False,):
        plain, rows = (
            tf.function(draw, jit_compile=True) if compiled else draw
            for draw in (tf.random.stateless_uniform, uniform_rows)
        )
        whole = plain(whole_shape, seed)
        np.testing.assert_array_equal(rows(shape, seed, first_row), whole[first_row:])
