import sys

import numpy as np
import pytest
from tensorflow import keras

from train.schedules import LinearWarmup, cifar_schedule, imagenet_schedule

# 50,000 images in batches of 512: 97 steps an epoch, 0.1 * 512 / 128 = 0.4.
CIFAR_TABLE = [
    (0, 0.0),
    (1, 0.004123711),  # 0.4 / 97
    (96, 0.395876289),  # 0.4 * 96 / 97
    (97, 0.4),
    (98, 0.4),
    (5819, 0.4),
    (5820, 0.08),  # epoch 60
    (5821, 0.08),
    (11639, 0.08),
    (11640, 0.016),  # epoch 120
    (11641, 0.016),
    (15519, 0.016),
    (15520, 0.0032),  # epoch 160
    (15521, 0.0032),
    (19399, 0.0032),  # the last of 200 epochs
]

# 1,281,167 images in batches of 4,096: 312 steps an epoch, 0.1 * 4096 / 256 = 1.6.
IMAGENET_TABLE = [
    (0, 0.0),
    (1, 0.001025641),  # 1.6 / 1560
    (1559, 1.598974359),  # 1.6 * 1559 / 1560
    (1560, 1.6),  # epoch 5
    (1561, 1.6),
    (9359, 1.6),
    (9360, 0.16),  # epoch 30
    (9361, 0.16),
    (18719, 0.16),
    (18720, 0.016),  # epoch 60
    (18721, 0.016),
    (24959, 0.016),
    (24960, 0.0016),  # epoch 80
    (24961, 0.0016),
    (28079, 0.0016),  # the last of 90 epochs
]

CIFAR = cifar_schedule(batch_size=512, steps_per_epoch=97)
IMAGENET = imagenet_schedule(batch_size=4096, steps_per_epoch=312)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [(CIFAR, *row) for row in CIFAR_TABLE] + [(IMAGENET, *row) for row in IMAGENET_TABLE],
)
def test_published_recipes(schedule, step, expected):
    assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)


def test_milestones_move_with_the_length_of_training():
    # 60, 120 and 160 of 200 epochs are 6, 12 and 16 of 20; ten steps an epoch.
    rates = cifar_schedule(batch_size=128, steps_per_epoch=10, epochs=20)
    steps = [59, 60, 119, 120, 159, 160]
    np.testing.assert_allclose(
        [rates(step) for step in steps], [0.1, 0.02, 0.02, 0.004, 0.004, 0.0008], rtol=1e-6
    )
    # 30, 60 and 80 of 90 are 10, 20 and 26 (26.7) of 30.
    rates = imagenet_schedule(batch_size=256, steps_per_epoch=10, epochs=30)
    steps = [50, 99, 100, 199, 200, 259, 260]
    np.testing.assert_allclose(
        [rates(step) for step in steps], [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4], rtol=1e-6
    )


def test_sgd_moves_by_the_rate_of_each_step():
    # The gradient of w is 1, so w is minus the sum of 0, 0.5, 1, 0.5 and 0.25.
    steps = keras.optimizers.schedules.PiecewiseConstantDecay([2, 3], [1.0, 0.5, 0.25])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.zeros((1, 1))])
    model.compile(keras.optimizers.SGD(LinearWarmup(steps, 2)), loss=lambda target, output: output)
    model.fit(np.ones((5, 1)), np.zeros((5, 1)), batch_size=1, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], [[-2.25]])


def test_config_round_trip():
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(CIFAR))
    assert isinstance(copy, LinearWarmup)
    for step, expected in CIFAR_TABLE:
        assert float(copy(step)) == pytest.approx(expected, rel=1e-6)


def test_compiled_model_keeps_its_schedule(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(CIFAR), loss="mse")
    model.save(tmp_path / "model.keras")
    optimizer = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert optimizer.get_config()["learning_rate"] == model.optimizer.get_config()["learning_rate"]


def test_too_short_a_training_is_refused():
    with pytest.raises(ValueError, match="epochs 0, 1, 2 on, after a warm-up of 1"):
        cifar_schedule(batch_size=128, steps_per_epoch=10, epochs=3)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
