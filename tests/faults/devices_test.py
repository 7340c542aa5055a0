"""Two logical devices train as one does: learned labels, three epochs, all that is drawn alike."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.distribution import is_chief
from tests.conftest import ROOT, environment
from train import builders, training
from train.run_folder import read_history
from train.settings import Settings

pytestmark = pytest.mark.faults
AUGMENTATIONS = ("augmix", "randaugment", "pgd")


def train_on(strategy: tf.distribute.Strategy, folder: Path, *, by: str) -> None:
    """Trains under a strategy, then on one device; folders are named ``AUGMENTATION on BY``."""
    builders.build_network = _without_batch_norm
    for name in AUGMENTATIONS:
        settings = Settings(
            dataset="digits",
            augmentation=name,
            train_examples=160,
            # Of 202 or 606 augmented images the last batch is not full; 101 have no equal parts.
            holdout_examples=101,
            examples_per_bucket=0,
            num_buckets=2,
            attack_steps=2,
            epsilon=0.1,
            step_size=0.5,
            epochs=3,
            batch_size=40,
        )
        splits = builders.load_data(settings)
        for place, scope in ((by, strategy), ("device", tf.distribute.get_strategy())):
            if place == "device" and not is_chief(strategy):
                continue
            here = folder / f"{name} on {place}"
            here.mkdir(parents=True, exist_ok=True)
            model = builders.build_model(settings, splits, scope)
            training.train(model, settings, splits, str(here))
            if is_chief(strategy):
                np.savez(
                    here / "weights", builders.label_table(model), *model.network.get_weights()
                )


def _without_batch_norm(settings, split, num_classes: int) -> keras.Model:
    """A layer of 16, with weights from NumPy."""
    network = keras.Sequential(
        [
            keras.Input(split.image_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(num_classes),
        ]
    )
    rng = np.random.default_rng(0)
    network.set_weights([0.3 * rng.normal(size=w.shape) for w in network.get_weights()])
    return network


def check_equal(folder: Path, name: str, *, by: str) -> None:
    """Losses and all else of the history, labels and weights, of what ``train_on`` has left."""
    there, on_device = (folder / f"{name} on {place}" for place in (by, "device"))
    actual, expected = (read_history(str(path)) for path in (there, on_device))
    assert len(actual) == 3 and expected[2]["loss"] < expected[0]["loss"]
    for row, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(list(row.values()), list(other.values()), atol=1e-5)
    table, *weights = np.load(there / "weights.npz").values()
    expected_table, *expected_weights = np.load(on_device / "weights.npz").values()
    np.testing.assert_allclose(table, expected_table, atol=1e-5)
    # Learned, from 1.
    assert np.all(expected_table < 0.99)
    for one, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def train_on_two_devices(folder: str) -> None:
    """Runs in a process of its own: logical devices must be set before TensorFlow starts."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    train_on(strategy, Path(folder), by="two devices")


@pytest.fixture(scope="module")
def on_both(tmp_path_factory) -> Path:
    """The folders of runs on two devices and on one."""
    folder = tmp_path_factory.mktemp("both")
    command = f"from {__name__} import train_on_two_devices as run; run({str(folder)!r})"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_two_devices_equal_one(on_both, name):
    check_equal(on_both, name, by="two devices")
