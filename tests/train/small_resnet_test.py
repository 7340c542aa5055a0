import sys

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow import keras

from train.small_resnet import small_resnet


def test_parameters_are_those_of_wrn_10_1():
    # First kernel 9*16. Blocks with a batch norm (4 a channel) before each 3x3 kernel:
    # 16 -> 16: 64 + 9*16*16 + 64 + 9*16*16 = 4736
    # 16 -> 32: 64 + 9*16*32 + 128 + 9*32*32, shortcut 16*32 = 14528
    # 32 -> 64: 128 + 9*32*64 + 256 + 9*64*64, shortcut 32*64 = 57728
    # Last batch norm 256, dense 64*10 + 10.
    expected = 144 + 4736 + 14528 + 57728 + 256 + 650
    assert small_resnet((28, 28, 1), 10).count_params() == expected == 78042


def test_image_is_halved_three_times():
    sums = [
        tuple(layer.output.shape[1:])
        for layer in small_resnet((28, 28, 1), 10).layers
        if isinstance(layer, keras.layers.Add)
    ]
    assert sums == [(14, 14, 16), (7, 7, 32), (4, 4, 64)]


def test_penalty_lies_on_every_trainable_weight():
    network = small_resnet((8, 8, 1), 3, l2=0.5)
    network.set_weights([np.full(weight.shape, 0.1) for weight in network.get_weights()])
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert float(tf.add_n(network.losses)) == pytest.approx(0.5 * 0.01 * trainable, rel=1e-5)


def test_bytes_and_floats_give_the_same_logits():
    network = small_resnet((20, 24, 3), 4)
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3)).astype("uint8")
    np.testing.assert_allclose(network(images), network(np.float32(images / 255)), atol=1e-6)
    assert np.ptp(network(images), axis=0).min() > 1e-3


def test_gradient_points_where_the_loss_grows():
    keras.utils.set_random_seed(0)
    network = small_resnet((8, 8, 1), 4)
    images = tf.random.stateless_uniform([2, 8, 8, 1], seed=[0, 0])
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(network(images)[:, 0])
    gradient = tape.gradient(total, images)
    step = 1e-3
    change = (tf.reduce_sum(network(images + step * gradient)[:, 0]) - total) / step
    assert float(change) == pytest.approx(float(tf.reduce_sum(gradient**2)), rel=0.05)


def test_it_reads_handwritten_digits():
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype("uint8")[..., np.newaxis]
    network = small_resnet((8, 8, 1), 10)
    network.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    network.fit(images[:1200], digits.target[:1200], batch_size=64, epochs=5, verbose=0)
    _, accuracy = network.evaluate(images[1200:], digits.target[1200:], verbose=0)
    assert accuracy > 0.85


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
