"""Several workers, each a process, as on several machines: ``MultiWorkerMirroredStrategy``."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import PGD, AugMix, AutoLabel, AutoLabelModel, RandAugment
from tests.conftest import linear_network

SHAPE, NUM_CLASSES = (4, 4, 1), 3
KERAS_3 = hasattr(keras, "ops")
AUGMENTATIONS = {
    "AugMix": AugMix(num_buckets=2, max_depth=2),
    "RandAugment": RandAugment(num_buckets=3),
    "PGD": PGD(num_buckets=2, epsilon=0.2, num_steps=2),
}


class Labels(keras.metrics.Metric):
    """A metric that has two figures: the mean of the labels, and twice that."""

    def __init__(self):
        super().__init__("labels")
        self.total, self.count = (
            self.add_weight(name=name, initializer="zeros") for name in ("total", "count")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(tf.reduce_sum(tf.cast(y_true, tf.float32)))
        self.count.assign_add(tf.cast(tf.size(y_true), tf.float32))

    def result(self):
        mean = self.total / self.count
        return {"mean_label": mean, "twice": 2.0 * mean}


class Inside(keras.metrics.Metric):
    """A metric that is made of another one."""

    def __init__(self):
        super().__init__("inside")
        self.labels = Labels()

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.labels.update_state(y_true, y_pred)

    def result(self):
        return self.labels.result()

    def reset_state(self):
        self.labels.reset_state()


def _data(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    images = rng.integers(256, size=[size, *SHAPE]).astype(np.uint8)
    return images, rng.integers(NUM_CLASSES, size=size)


def _train(strategy, augmentation) -> dict:
    """Three epochs of three batches; 100 hold-out images fill no batch of the hold-out."""
    with strategy.scope():
        network = linear_network(SHAPE, NUM_CLASSES)
        model = AutoLabelModel(network, augmentation, num_classes=NUM_CLASSES)
        metrics = ["accuracy", Inside() if isinstance(augmentation, PGD) else Labels()]
        model.compile(keras.optimizers.SGD(0.5, momentum=0.9), metrics=metrics)
    data = tf.data.Dataset.from_tensor_slices(_data(24)).batch(8, drop_remainder=True)
    callback = AutoLabel(_data(100), step_size=0.5)
    names = ("loss", "accuracy", "mean_label", "twice")
    batches: dict[str, list[float]] = {name: [] for name in names}

    def keep(batch, logs):
        for name, figures in batches.items():
            figures.append(float(logs[name]))

    callbacks = [callback, keras.callbacks.LambdaCallback(on_batch_end=keep)]
    history = model.fit(data, epochs=3, callbacks=callbacks, verbose=0).history
    return {
        **{name: [float(x) for x in history[name]] for name in batches},
        **{f"{name} of batches": figures for name, figures in batches.items()},
        "weights": [w.tolist() for w in network.get_weights()],
        "table": tf.convert_to_tensor(model.label_policy.confidence).numpy().tolist(),
    }


def print_results_of_a_worker() -> None:
    """Runs in a process of its own; ``TF_CONFIG`` tells the strategy who the others are."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == 2
    print(json.dumps({name: _train(strategy, made) for name, made in AUGMENTATIONS.items()}))


@pytest.fixture(scope="module")
def two_workers() -> list[dict]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for each in sockets:
        each.close()
    module = "tests.keras_autolabel.workers_test"
    command = f"from {module} import print_results_of_a_worker as run; run()"
    workers = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", command],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
            )
        )
    try:
        printed = [worker.communicate(timeout=300)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in printed]


@pytest.mark.skipif(KERAS_3, reason="Keras 3 does not train under that strategy")
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_two_workers_equal_one_device(two_workers, name):
    expected = _train(tf.distribute.get_strategy(), AUGMENTATIONS[name])
    for worker in two_workers:
        for part in expected.keys() - {"weights"}:
            np.testing.assert_allclose(worker[name][part], expected[part], atol=1e-5, err_msg=part)
        for one, other in zip(worker[name]["weights"], expected["weights"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 trains under that strategy")
def test_keras_3_is_refused_before_it_fails():
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope(), pytest.raises(ValueError, match="TF_USE_LEGACY_KERAS=1") as caught:
        AutoLabelModel(linear_network(SHAPE, NUM_CLASSES), num_classes=NUM_CLASSES)
    assert "\n" not in str(caught.value)
