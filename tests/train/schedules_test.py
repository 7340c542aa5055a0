import numpy as np
import pytest
from tensorflow import keras

from train.schedules import LinearWarmup, cifar_schedule, imagenet_schedule

# 50,000 images in batches of 512: 97 steps an epoch, 0.1 * 512 / 128 = 0.4.
CIFAR = cifar_schedule(batch_size=512, steps_per_epoch=97)
CIFAR_TABLE = {
    0: 0.0,
    1: 0.4 / 97,
    96: 0.4 * 96 / 97,
    97: 0.4,
    5819: 0.4,
    5820: 0.08,  # epoch 60
    11639: 0.08,
    11640: 0.016,  # epoch 120
    15519: 0.016,
    15520: 0.0032,  # epoch 160
    19399: 0.0032,  # the last of 200 epochs
}
# 1,281,167 images in batches of 4,096: 312 steps an epoch, 0.1 * 4096 / 256 = 1.6.
IMAGENET = imagenet_schedule(batch_size=4096, steps_per_epoch=312)
IMAGENET_TABLE = {
    0: 0.0,
    1: 1.6 / 1560,
    1559: 1.6 * 1559 / 1560,
    1560: 1.6,  # epoch 5
    9359: 1.6,
    9360: 0.16,  # epoch 30
    18719: 0.16,
    18720: 0.016,  # epoch 60
    24959: 0.016,
    24960: 0.0016,  # epoch 80
    28079: 0.0016,  # the last of 90 epochs
}


@pytest.mark.parametrize(("schedule", "table"), [(CIFAR, CIFAR_TABLE), (IMAGENET, IMAGENET_TABLE)])
def test_published_rates(schedule, table):
    rates = [float(schedule(step)) for step in table]
    np.testing.assert_allclose(rates, list(table.values()), rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "epochs", "milestones", "warmup"),
    [
        # 60, 120 and 160 of 200 epochs are 6, 12 and 16 of 20.
        (cifar_schedule, 20, (6, 12, 16), 1),
        # 30, 60 and 80 of 90 are 10, 20 and 26 (26.7) of 30.
        (imagenet_schedule, 30, (10, 20, 26), 5),
    ],
)
def test_milestones_move_with_the_length_of_training(schedule, epochs, milestones, warmup):
    rates = schedule(batch_size=256, steps_per_epoch=10, epochs=epochs)
    values = np.array([rates(step) for step in range(10 * warmup, 10 * epochs)])
    falls = np.flatnonzero(np.diff(values)) + 1 + 10 * warmup
    assert falls.tolist() == [10 * epoch for epoch in milestones]


@pytest.mark.parametrize("schedule", [cifar_schedule, imagenet_schedule])
def test_too_short_a_training_is_refused(schedule):
    with pytest.raises(ValueError, match=r"epochs \d, \d, \d on, after a warm-up of \d"):
        schedule(batch_size=128, steps_per_epoch=10, epochs=3)


def test_sgd_moves_by_the_rate_of_each_step():
    # The gradient of w is 1, so w is minus the sum of 0, 0.5, 1, 0.5 and 0.25.
    steps = keras.optimizers.schedules.PiecewiseConstantDecay([2, 3], [1.0, 0.5, 0.25])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.zeros((1, 1))])
    model.compile(keras.optimizers.SGD(LinearWarmup(steps, 2)), loss=lambda target, output: output)
    model.fit(np.ones((5, 1)), np.zeros((5, 1)), batch_size=1, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], [[-2.25]])


def test_saved_model_keeps_its_schedule(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(CIFAR), loss="mse")
    model.save(tmp_path / "model.keras")
    config = keras.models.load_model(tmp_path / "model.keras").optimizer.get_config()
    copy = keras.optimizers.schedules.deserialize(config["learning_rate"])
    assert [float(copy(step)) for step in CIFAR_TABLE] == [float(CIFAR(x)) for x in CIFAR_TABLE]
