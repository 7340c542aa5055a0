import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import PGD, HalfAdversarial
from keras_autolabel.augment.attack import random_start
from keras_autolabel.augment.pgd import PGDDraw
from tests.conftest import linear_network
from tests.keras_autolabel.augment.conftest import (
    PIXELS,
    SHAPE,
    as_images,
    assert_uniform,
    cells_of,
    two_class_network,
)

SEED = tf.constant([2, 3])


def _attack(attack: PGD, network, pixels, labels, distance) -> np.ndarray:
    """The attack at a given distance per image: float32 [B, 4]."""
    drawn = PGDDraw(tf.constant(distance, tf.float32), tf.zeros([len(labels)], tf.int32), SEED)
    batch = attack.apply(as_images(pixels), tf.constant(labels), drawn, network)
    np.testing.assert_array_equal(batch.distance, drawn.distance)
    return batch.images.numpy().reshape(len(labels), -1)


# --- where it starts ------------------------------------------------------------------------------


def test_random_start_is_uniform_in_the_ball_of_each_image():
    epsilon = tf.reshape(tf.constant([0.1, 0.02]), [2, 1, 1, 1])
    clean = tf.fill([2, 100, 100, 5], 0.5)
    moved = np.reshape((random_start(clean, epsilon, SEED) - clean) / epsilon, [2, -1])
    for image in moved:
        assert_uniform(cells_of(image, -1, 1), 20)
    # The two images, and the neighbours in each, are drawn apart.
    for one, other in (moved, (moved[0, :-1], moved[0, 1:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(one))


def test_random_start_is_cut_to_the_range_of_pixels():
    clean = tf.concat([tf.zeros([1, 100, 100, 1]), tf.ones([1, 100, 100, 1])], 0)
    start = random_start(clean, tf.fill([2, 1, 1, 1], 0.1), SEED).numpy()
    depth = np.stack([start[0], 1.0 - start[1]])
    # One half is cut off, the other one stays uniform.
    assert abs(np.mean(depth == 0.0) - 0.5) < 5 * 0.5 / np.sqrt(depth.size)
    assert_uniform(cells_of(depth[depth > 0.0], 0, 0.1), 20)


def test_the_augmentation_begins_at_a_random_start():
    arguments = {"epsilon": 0.1, "num_steps": 1, "relative_step_size": 1e-7}
    given = (two_class_network(), np.full([1000, 4], 0.4), [0] * 1000, [1.0] * 1000)
    actual = _attack(PGD(**arguments), *given)
    assert_uniform(cells_of(actual, 0.3, 0.5), 20)
    # The numbers of the seed from its first row on.
    start = 0.3 + 0.2 * tf.random.stateless_uniform([1000, 4], SEED)
    np.testing.assert_allclose(actual, start, atol=1e-6)
    actual = _attack(PGD(**arguments, random_start=False), *given)
    np.testing.assert_allclose(actual, given[1], atol=1e-6)


# --- steps, by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "share", "distances", "expected"),
    [
        # Class 0: the signs of the gradient are +, −, +, 0 throughout. Three steps of 0.1/4;
        # 0.02 − 0.075 and 0.99 + 0.075 are cut to the range of pixels. Class 1: the other way.
        (3, 0.25, (1.0, 1.0), [[0.575, 0.0, 1.0, 0.3], [0.425, 0.095, 0.915, 0.3]]),
        # 5·0.025 and 3·0.1 are more than ε.
        (5, 0.25, (1.0, 1.0), [[0.6, 0.0, 1.0, 0.3], [0.4, 0.12, 0.89, 0.3]]),
        (1, 3.0, (1.0, 1.0), [[0.6, 0.0, 1.0, 0.3], [0.4, 0.12, 0.89, 0.3]]),
        # Each with an ε of its own: two quarters of 0.04 and of 0.
        (2, 0.25, (0.4, 0.0), [[0.52, 0.0, 1.0, 0.3], [0.5, 0.02, 0.99, 0.3]]),
    ],
)
def test_steps_on_a_linear_network_by_hand(steps, share, distances, expected):
    attack = PGD(epsilon=0.1, num_steps=steps, relative_step_size=share, random_start=False)
    actual = _attack(attack, two_class_network(), np.tile(PIXELS, [2, 1]), [0, 1], distances)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


# --- the network is left alone --------------------------------------------------------------------


def _network_with_state():
    """BatchNorm and Dropout in front of the logits, with weights and statistics of its own."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(3, 2, padding="same", name="convolution"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.9),
            layers.Flatten(),
            layers.Dense(3, name="logits"),
        ]
    )
    rng = np.random.default_rng(0)
    network.set_weights([rng.uniform(0.3, 2.0, size=w.shape) for w in network.get_weights()])
    network.get_layer("logits").kernel.assign(rng.normal(size=[12, 3]))
    return network


def test_the_network_is_attacked_in_inference_mode_and_stays_as_it_is():
    network = _network_with_state()
    before = network.get_weights()
    clean = as_images(np.random.default_rng(2).uniform(size=[6, 4]))
    labels = np.array([0, 1, 2] * 2)
    expected = clean
    for _ in range(4):
        with tf.GradientTape() as tape:
            tape.watch(expected)
            logits = network(expected, training=False)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        expected += 0.025 * tf.sign(tape.gradient(losses, expected))
        expected = tf.clip_by_value(tf.clip_by_value(expected, clean - 0.1, clean + 0.1), 0.0, 1.0)
    attack = PGD(epsilon=0.1, num_steps=4, random_start=False)
    actual = _attack(attack, network, clean, labels, [1.0] * 6)
    np.testing.assert_allclose(actual, tf.reshape(expected, [6, 4]), atol=1e-6)
    for one, other in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_gradient_passes_through_the_attack():
    network, images = linear_network(SHAPE, 3), as_images(PIXELS)
    with tf.GradientTape() as tape:
        tape.watch(images)
        moved = PGD(epsilon=0.1)(images, [0], seed=SEED, network=network).images
        total = tf.reduce_sum(moved)
    assert tape.gradient(total, [images, *network.trainable_variables]) == [None] * 3


def test_the_graph_does_not_grow_with_the_number_of_steps():
    network = linear_network(SHAPE, 3)

    def nodes(num_steps: int) -> int:
        attack = PGD(epsilon=0.1, num_steps=num_steps)
        function = tf.function(
            lambda images: attack(images, [0, 1], seed=SEED, network=network).images
        )
        graph = function.get_concrete_function(tf.TensorSpec([2, *SHAPE])).graph.as_graph_def()
        return len(graph.node) + sum(len(f.node_def) for f in graph.library.function)

    assert nodes(2) == nodes(50) > 100


@pytest.mark.parametrize("compiled", [False, True])
def test_weights_that_are_not_finite_are_named(compiled):
    network = _network_with_state()
    network.get_layer("logits").bias.assign([0.0, np.nan, 0.0])
    attack = PGD(epsilon=0.1, num_steps=2)

    def augment(images):
        return attack(images, [0], seed=SEED, network=network).images

    with pytest.raises(tf.errors.InvalidArgumentError, match="keras_autolabel: .*not") as raised:
        (tf.function(augment) if compiled else augment)(as_images(PIXELS))
    assert "logits/bias" in str(raised.value)
    assert "convolution/kernel" not in str(raised.value)


# --- half clean, half attacked --------------------------------------------------------------------


def test_halves_and_measured_distances_by_hand():
    # Image 3 has nowhere to go: its pixels are at the end of the range already.
    pixels = np.array([[0.5] * 4, [0.2] * 4, PIXELS[0], [1.0, 0.0, 1.0, 0.5]])
    attack = PGD(epsilon=0.1, num_buckets=5, num_steps=2, random_start=False)
    batch = HalfAdversarial(attack)(
        as_images(pixels), [0, 0, 0, 0], seed=SEED, network=two_class_network()
    )
    # Two steps of ε/4 are half of ε_max: bucket 2 holds (0.4, 0.6].
    expected = np.array([*pixels[:2], [0.55, 0.0, 1.0, 0.3], pixels[3]])
    np.testing.assert_allclose(batch.images, as_images(expected), atol=1e-6)
    np.testing.assert_allclose(batch.distance, [0.0, 0.0, 0.5, 0.0], atol=1e-6)
    np.testing.assert_array_equal(batch.bucket, [0, 0, 2, 0])


@pytest.mark.parametrize(("size", "clean"), [(8, 4), (7, 3), (2, 1), (1, 0), (0, 0)])
def test_the_first_half_is_clean_and_the_second_one_attacked(digits, size, clean):
    images, labels = (part[:size] for part in digits)
    augment, network = HalfAdversarial(PGD(epsilon=0.2)), linear_network((8, 8, 1), 10)
    batch = augment(images, labels, seed=SEED, network=network)
    exact = images / np.float32(255)
    np.testing.assert_array_equal(batch.images[:clean], exact[:clean])
    gap = np.abs(batch.images - exact).max(axis=(1, 2, 3))
    np.testing.assert_allclose(batch.distance, gap / 0.2, atol=1e-6)
    # Ten steps of a quarter take the others to the edge of the ball, at least at one pixel.
    np.testing.assert_allclose(batch.distance, [0.0] * clean + [1.0] * (size - clean), atol=1e-5)
    assert np.all(batch.distance <= 1.0)


@pytest.mark.parametrize("bucket", [0, 3])
def test_in_a_bucket_the_whole_batch_is_attacked_as_by_the_attack_alone(digits, bucket):
    images, labels = (part[:8] for part in digits)
    network, attack = linear_network((8, 8, 1), 10), PGD(epsilon=0.2, num_buckets=4)
    alone = attack(images, labels, seed=SEED, bucket=bucket, network=network)
    batch = HalfAdversarial(attack)(images, labels, seed=SEED, bucket=bucket, network=network)
    for one, other in zip(batch, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    # Bucket n of 4: ε in (n/20, (n+1)/20], and signed steps end at ε.
    gap = np.abs(batch.images - images / np.float32(255)).max(axis=(1, 2, 3))
    assert np.all((gap > bucket / 20) & (gap <= (bucket + 1) / 20 + 1e-6))
    np.testing.assert_allclose(batch.distance, gap / 0.2, atol=1e-5)
