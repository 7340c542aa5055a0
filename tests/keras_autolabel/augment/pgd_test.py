import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow import keras

from keras_autolabel import PGD, AutoLabel, AutoLabelModel, ConfidenceCalibrated, HalfAdversarial
from keras_autolabel.augment.attack import random_start
from keras_autolabel.augment.augmentation import Draw
from tests.conftest import linear_network, numpy_softmax

DRAWS = 100_000
SEED = tf.constant([2, 3])
SHAPE = (2, 2, 1)
PIXELS = np.array([[0.5, 0.02, 0.99, 0.3]])


def _assert_uniform(index: np.ndarray, cells: int) -> None:
    counts = np.bincount(np.ravel(index), minlength=cells)
    assert len(counts) == cells
    assert stats.chisquare(counts).pvalue > 1e-3, counts


def _assert_same(first, second) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def _as_images(pixels) -> tf.Tensor:
    return tf.constant(np.reshape(pixels, [-1, *SHAPE]), tf.float32)


def _two_class_network():
    """Loss of class 0 grows with z_1 - z_0 = 2·x_0 - 3·x_1 + x_2 + 0·x_3 + 0.5."""
    network = linear_network(SHAPE, 2)
    weights = [[-1.0, 1.0], [1.0, -2.0], [0.5, 1.5], [0.0, 0.0]]
    network.set_weights([np.array(weights), np.array([0.0, 0.5])])
    return network


def _attack(attack: PGD, network, pixels, labels, epsilon) -> np.ndarray:
    """The attack at a given ε per image: float32 [B, 4]."""
    distance = tf.constant(epsilon, tf.float32) / attack.epsilon
    drawn = Draw(distance, tf.zeros(tf.shape(distance), tf.int32), SEED)
    batch = attack.apply(_as_images(pixels), tf.constant(labels), drawn, network)
    return batch.images.numpy().reshape(len(labels), -1)


# --- draw -----------------------------------------------------------------------------------------


def test_epsilon_is_uniform_and_its_bucket_is_that_of_the_distance():
    drawn = PGD(epsilon=8 / 255, num_buckets=7).draw(tf.zeros([DRAWS], tf.int32), SEED)
    distance = drawn.distance.numpy().astype(np.float64)
    assert 0.0 <= distance.min() and distance.max() <= 1.0
    _assert_uniform(np.minimum((20 * distance).astype(int), 19), 20)
    n = drawn.bucket.numpy()
    assert np.all((n - 1e-5 < 7 * distance) & (7 * distance < n + 1 + 1e-5))
    _assert_uniform(n, 7)


@pytest.mark.parametrize("num_buckets", [1, 4])
def test_a_given_bucket_is_filled_uniformly(num_buckets):
    bucket = tf.range(20_000) % num_buckets
    attack = PGD(epsilon=0.1, num_buckets=num_buckets)
    drawn = attack.draw(tf.zeros_like(bucket), SEED, bucket)
    np.testing.assert_array_equal(drawn.bucket, bucket)
    position = drawn.distance.numpy() * num_buckets - bucket.numpy()
    assert -1e-5 < position.min() <= position.max() < 1 + 1e-5
    _assert_uniform(np.clip(20 * position, 0, 19).astype(int), 20)
    whole = attack.draw(tf.zeros([5], tf.int32), SEED, num_buckets - 1)
    np.testing.assert_array_equal(whole.bucket, [num_buckets - 1] * 5)


def test_random_start_is_uniform_in_the_ball_of_each_image():
    epsilon = tf.reshape(tf.constant([0.1, 0.02]), [2, 1, 1, 1])
    clean = tf.fill([2, 100, 100, 5], 0.5)
    moved = (random_start(clean, epsilon, SEED) - clean) / epsilon
    for image in moved.numpy().astype(np.float64):
        assert np.abs(image).max() <= 1.0 + 1e-5
        _assert_uniform(np.clip(10 * (image + 1.0), 0, 19).astype(int), 20)
    # The two images, and the neighbours in each, are drawn apart.
    first, second = moved.numpy().reshape(2, -1)
    for one, other in ((first, second), (first[:-1], first[1:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(one))


def test_random_start_is_cut_to_the_range_of_pixels():
    clean = tf.concat([tf.zeros([1, 100, 100, 1]), tf.ones([1, 100, 100, 1])], 0)
    start = random_start(clean, tf.fill([2, 1, 1, 1], 0.1), SEED).numpy().astype(np.float64)
    depth = np.stack([start[0], 1.0 - start[1]])
    assert 0.0 <= depth.min() and depth.max() <= 0.1 + 1e-6
    # One half is cut off, the other one stays uniform.
    assert abs(np.mean(depth == 0.0) - 0.5) < 5 * 0.5 / np.sqrt(depth.size)
    _assert_uniform(np.minimum((200 * depth[depth > 0.0]).astype(int), 19), 20)


def test_the_augmentation_begins_at_a_random_start():
    images = tf.fill([1000, *SHAPE], 0.4)
    attack = PGD(epsilon=0.1, num_steps=1, relative_step_size=1e-7)
    drawn = Draw(tf.ones([1000]), tf.zeros([1000], tf.int32), SEED)
    batch = attack.apply(images, tf.zeros([1000], tf.int32), drawn, _two_class_network())
    position = (batch.images.numpy().astype(np.float64) - 0.4) / 0.1
    _assert_uniform(np.clip(10 * (position + 1.0), 0, 19).astype(int), 20)
    still = PGD(epsilon=0.1, num_steps=1, relative_step_size=1e-7, random_start=False)
    batch = still.apply(images, tf.zeros([1000], tf.int32), drawn, _two_class_network())
    np.testing.assert_allclose(batch.images, images, atol=1e-6)


# --- steps, by hand -------------------------------------------------------------------------------


def test_steps_on_a_linear_network_by_hand():
    # With two classes dCE/dx = p_1·(w_1 - w_0) for class 0: the signs are +, -, +, 0 throughout.
    network, attack = _two_class_network(), PGD(epsilon=0.1, num_steps=3, random_start=False)
    actual = _attack(attack, network, PIXELS, [0], [0.1])
    # Three steps of 0.1/4; 0.02 - 0.075 and 0.99 + 0.075 are cut to the range of pixels.
    np.testing.assert_allclose(actual, [[0.575, 0.0, 1.0, 0.3]], atol=1e-6)
    # Class 1: the other way.
    actual = _attack(attack, network, PIXELS, [1], [0.1])
    np.testing.assert_allclose(actual, [[0.425, 0.095, 0.915, 0.3]], atol=1e-6)


def test_five_steps_are_cut_to_the_ball():
    network = _two_class_network()
    attack = PGD(epsilon=0.1, num_steps=5, random_start=False)
    actual = _attack(attack, network, PIXELS, [0], [0.1])
    # 5·0.025 = 0.125 > ε.
    np.testing.assert_allclose(actual, [[0.6, 0.0, 1.0, 0.3]], atol=1e-6)
    long = PGD(epsilon=0.1, num_steps=1, relative_step_size=3.0, random_start=False)
    np.testing.assert_allclose(_attack(long, network, PIXELS, [0], [0.1]), actual, atol=1e-6)


def test_every_image_has_an_epsilon_of_its_own():
    attack = PGD(epsilon=0.1, num_steps=2, random_start=False)
    epsilon = [0.1, 0.04, 0.0, 0.1]
    actual = _attack(attack, _two_class_network(), np.tile(PIXELS, [4, 1]), [0, 0, 0, 1], epsilon)
    # Two steps of a quarter are ε/2: 0.05, 0.02, 0 and -0.05.
    expected = [
        [0.55, 0.0, 1.0, 0.3],
        [0.52, 0.0, 1.0, 0.3],
        [0.5, 0.02, 0.99, 0.3],
        [0.45, 0.07, 0.94, 0.3],
    ]
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_from_any_start_eight_steps_reach_the_corner():
    # The start is at most 2ε away from the corner, a step is ε/4.
    attack = PGD(epsilon=0.1, num_steps=8)
    actual = _attack(attack, _two_class_network(), np.tile(PIXELS, [50, 1]), [0] * 50, [0.1] * 50)
    np.testing.assert_allclose(actual[:, :3], [[0.6, 0.0, 1.0]] * 50, atol=1e-6)
    # The pixel without a gradient stays where it started.
    assert actual[:, 3].min() < 0.22 and actual[:, 3].max() > 0.38


def test_six_classes_follow_the_crossentropy_of_the_truth():
    # dCE/dx = W (softmax(z) - onehot(y)): the directions change on the way.
    network = linear_network(SHAPE, 6, seed=3, scale=3.0)
    weights, bias = (w.astype(np.float64) for w in network.get_weights())
    rng = np.random.default_rng(1)
    pixels = rng.uniform(size=[20, 4])
    labels = rng.integers(6, size=20)
    expected = pixels.copy()
    directions = []
    for _ in range(7):
        gradient = (numpy_softmax(expected @ weights + bias) - np.eye(6)[labels]) @ weights.T
        directions.append(np.sign(gradient))
        expected = np.clip(expected + 0.5 / 4 * directions[-1], pixels - 0.5, pixels + 0.5)
        expected = np.clip(expected, 0.0, 1.0)
    attack = PGD(epsilon=0.5, num_steps=7, random_start=False)
    np.testing.assert_allclose(
        _attack(attack, network, pixels, labels, [0.5] * 20), expected, atol=1e-6
    )
    assert np.any(directions[0] != directions[-1])


def test_images_stay_in_the_ball_and_in_the_range(digits):
    images, labels = digits
    network = linear_network((8, 8, 1), 10, scale=3.0)
    clean = images / np.float32(255)
    for seed in range(3):
        batch = PGD(epsilon=0.2)(images, labels, seed=tf.constant([seed, 1]), network=network)
        epsilon = 0.2 * batch.distance.numpy()
        gap = np.abs(batch.images - clean).max(axis=(1, 2, 3))
        # Three roundings of numbers up to 1.
        assert np.all(gap <= epsilon + 2e-7)
        # Far more pixels than one have a gradient: some reach the edge of the ball.
        np.testing.assert_allclose(gap, epsilon, atol=1e-6)
        assert batch.images.numpy().min() >= 0.0 and batch.images.numpy().max() <= 1.0
        np.testing.assert_array_equal(batch.labels, labels)
        np.testing.assert_array_equal(batch.partners, labels)
        np.testing.assert_array_equal(batch.mix, np.zeros(len(labels)))


# --- the network is left alone --------------------------------------------------------------------


def _network_with_state():
    """BatchNorm and Dropout in front of the logits, with weights and statistics of its own."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(3, 2, padding="same", name="convolution"),
            layers.BatchNormalization(name="normalisation"),
            layers.ReLU(),
            layers.Dropout(0.9),
            layers.Flatten(),
            layers.Dense(3, name="logits"),
        ]
    )
    rng = np.random.default_rng(0)
    network.set_weights([rng.uniform(0.3, 2.0, size=w.shape) for w in network.get_weights()])
    network.get_layer("logits").kernel.assign(rng.normal(size=[12, 3]))
    network.get_layer("convolution").trainable = False
    return network


def test_weights_statistics_and_trainable_flags_do_not_change():
    network = _network_with_state()
    before, flags = network.get_weights(), [layer.trainable for layer in network.layers]
    PGD(epsilon=0.1)(_as_images(PIXELS), [0], seed=SEED, network=network)
    for one, other in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [layer.trainable for layer in network.layers] == flags


def test_the_network_is_attacked_in_inference_mode():
    network = _network_with_state()
    rng = np.random.default_rng(2)
    clean, labels = _as_images(rng.uniform(size=[6, 4])), tf.constant([0, 1, 2] * 2)
    expected = clean
    for _ in range(4):
        with tf.GradientTape() as tape:
            tape.watch(expected)
            logits = network(expected, training=False)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        expected += 0.025 * tf.sign(tape.gradient(losses, expected))
        expected = tf.clip_by_value(tf.clip_by_value(expected, clean - 0.1, clean + 0.1), 0.0, 1.0)
    attack = PGD(epsilon=0.1, num_steps=4, random_start=False)
    actual = _attack(attack, network, clean, [0, 1, 2] * 2, [0.1] * 6)
    np.testing.assert_allclose(actual, tf.reshape(expected, [6, 4]), atol=1e-6)


def test_no_gradient_reaches_the_weights():
    network = linear_network(SHAPE, 3)
    weights = network.trainable_variables
    labels, attack = tf.constant([0, 1, 2]), PGD(epsilon=0.1, num_steps=2)

    def gradients(adversarial=None):
        with tf.GradientTape(persistent=True) as tape:
            images = _as_images(np.tile(PIXELS, [3, 1]))
            tape.watch(images)
            if adversarial is None:
                adversarial = attack(images, labels, seed=SEED, network=network).images
            moved = tf.reduce_sum(adversarial)
            loss = tf.reduce_sum(network(adversarial)[:, 0])
        return adversarial, tape.gradient(moved, [images, *weights]), tape.gradient(loss, weights)

    adversarial, through_the_attack, through_the_network = gradients()
    assert through_the_attack == [None] * 3
    # What reaches them through the network is what a constant image gives.
    _, _, expected = gradients(tf.constant(adversarial.numpy()))
    for actual, given in zip(through_the_network, expected, strict=True):
        np.testing.assert_array_equal(actual, given)


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


# --- seeds and graphs -----------------------------------------------------------------------------


@pytest.mark.parametrize("bucket", [None, 3])
def test_eager_equals_graph(digits, bucket):
    images, labels = (part[:20] for part in digits)
    network, attack = linear_network((8, 8, 1), 10), PGD(epsilon=0.2, num_buckets=5)

    def augment(images, labels):
        return attack(images, labels, seed=SEED, bucket=bucket, network=network)

    signature = [
        tf.TensorSpec([None, None, None, None], tf.uint8),
        tf.TensorSpec([None], tf.int32),
    ]
    _assert_same(tf.function(augment)(images, labels), augment(images, labels))
    signature[0] = tf.TensorSpec([None, 8, 8, 1], tf.uint8)
    graph = tf.function(augment, input_signature=signature)
    _assert_same(graph(images, labels), augment(images, labels))


# --- training -------------------------------------------------------------------------------------


def test_one_step_of_training_normalises_by_the_attacked_batch():
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.BatchNormalization(momentum=0.75, name="normalisation"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=[6, *SHAPE]).astype(np.float32), np.array([0, 1, 2] * 2)
    model = AutoLabelModel(network, PGD(epsilon=0.3), num_classes=3)
    model.compile(keras.optimizers.SGD(0.0))
    attacked = model.augment(tf.constant(images), tf.constant(labels)).images.numpy()
    assert np.abs(attacked - images).mean() > 0.05
    model.fit(images, labels, batch_size=6, shuffle=False, verbose=0)
    # The statistics began at 0 and 1, and have seen one batch: the attacked one.
    layer = network.get_layer("normalisation")
    np.testing.assert_allclose(layer.moving_mean, [0.25 * attacked.mean()], rtol=1e-5)
    variances = [0.75 + 0.25 * attacked.var(ddof=ddof) for ddof in (0, 1)]
    assert np.min(np.abs(layer.moving_variance - np.array(variances))) < 1e-5


def test_trains_with_autolabel(digits):
    images, labels = digits
    # The logit of a class falls with the distance from its mean, -5·|x - μ|² + 5·|x|².
    means = np.stack([images[labels == k].mean(axis=0).ravel() / 255 for k in range(10)], axis=1)
    network = linear_network((8, 8, 1), 10)
    start = [10.0 * means, -5.0 * (means**2).sum(axis=0)]
    network.set_weights(start)
    attack = PGD(epsilon=0.1, num_buckets=3, num_steps=4)
    model = AutoLabelModel(network, attack, num_classes=10)
    model.compile(keras.optimizers.SGD(0.05))
    np.testing.assert_array_equal(model.label_policy.confidence, [1.0] * 3)
    batch = model.augment(tf.constant(images[:64]), tf.constant(labels[:64]))
    callback = AutoLabel((images[200:], labels[200:]), step_size=0.5)
    history = model.fit(
        images[:64],
        labels[:64],
        batch_size=64,
        epochs=2,
        shuffle=False,
        callbacks=[callback],
        verbose=0,
    ).history
    # The first batch, by hand: all labels are 1.
    logits = batch.images.numpy().reshape(64, -1).astype(np.float64) @ start[0] + start[1]
    losses = -np.log(numpy_softmax(logits)[np.arange(64), labels[:64]])
    np.testing.assert_allclose(history["loss"][0], losses.mean(), rtol=1e-4)
    table = np.ones(3)
    for epoch in range(2):
        ece, conf, acc = (
            np.array([history[f"holdout_{name}_{n}"][epoch] for n in range(3)])
            for name in ("ece", "confidence", "accuracy")
        )
        # The farther an image may be moved, the better is the attack.
        assert np.all(np.diff(acc) < 0) and acc[0] > 0.8
        table = np.clip(table - 0.5 * ece * np.sign(conf - acc), np.maximum(acc, 0.1), 1.0)
        learned = [history[f"label_confidence_{n}"][epoch] for n in range(3)]
        np.testing.assert_allclose(learned, table, atol=1e-6)
    assert np.ptp(table) > 0.01


# --- half clean, half attacked --------------------------------------------------------------------


def test_halves_and_measured_distances_by_hand():
    # Image 3 has nowhere to go: its pixels are at the end of the range already.
    pixels = np.array([[0.5] * 4, [0.2] * 4, PIXELS[0], [1.0, 0.0, 1.0, 0.5]])
    attack = PGD(epsilon=0.1, num_buckets=5, num_steps=2, random_start=False)
    batch = HalfAdversarial(attack)(
        _as_images(pixels), [0, 0, 0, 0], seed=SEED, network=_two_class_network()
    )
    # Two steps of ε/4 are half of ε_max: bucket 2 holds (0.4, 0.6].
    expected = np.array([*pixels[:2], [0.55, 0.0, 1.0, 0.3], pixels[3]])
    np.testing.assert_allclose(batch.images, _as_images(expected), atol=1e-6)
    np.testing.assert_allclose(batch.distance, [0.0, 0.0, 0.5, 0.0], atol=1e-6)
    np.testing.assert_array_equal(batch.bucket, [0, 0, 2, 0])


@pytest.mark.parametrize(("size", "clean"), [(8, 4), (7, 3), (2, 1), (1, 0)])
def test_the_first_half_is_clean_and_the_second_one_attacked(digits, size, clean):
    images, labels = (part[:size] for part in digits)
    network = linear_network((8, 8, 1), 10)
    augment = HalfAdversarial(PGD(epsilon=0.2))
    batch = augment(images, labels, seed=SEED, network=network)
    exact = images / np.float32(255)
    np.testing.assert_array_equal(batch.images[:clean], exact[:clean])
    gap = np.abs(batch.images - exact).max(axis=(1, 2, 3))
    np.testing.assert_allclose(batch.distance, gap / 0.2, atol=1e-6)
    np.testing.assert_allclose(batch.distance, [0.0] * clean + [1.0] * (size - clean), atol=1e-5)
    np.testing.assert_array_equal(batch.labels, labels)
    assert np.all(batch.distance <= 1.0)
    graph = tf.function(
        lambda images, labels: augment(images, labels, seed=SEED, network=network),
        input_signature=[
            tf.TensorSpec([None, 8, 8, 1], tf.uint8),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    _assert_same(graph(images, labels), batch)


def test_in_a_bucket_the_whole_batch_is_attacked_as_by_the_attack_alone(digits):
    images, labels = (part[:8] for part in digits)
    network, attack = linear_network((8, 8, 1), 10), PGD(epsilon=0.2, num_buckets=4)
    alone = attack(images, labels, seed=SEED, bucket=1, network=network)
    batch = HalfAdversarial(attack)(images, labels, seed=SEED, bucket=1, network=network)
    _assert_same(batch, alone)
    gap = np.abs(batch.images - images / np.float32(255)).max(axis=(1, 2, 3))
    # Bucket 1 of 4: ε in (0.05, 0.1], and signed steps end at ε.
    assert np.all((gap > 0.05) & (gap <= 0.1 + 1e-6))


def test_half_adversarial_trains_by_hand():
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=[5, *SHAPE]).astype(np.float32), np.array([0, 1, 2, 0, 1])
    attack = PGD(epsilon=0.2, num_steps=2, random_start=False)
    model = AutoLabelModel(
        linear_network(SHAPE, 3),
        HalfAdversarial(attack),
        num_classes=3,
        label_policy=ConfidenceCalibrated(num_classes=3, rho=2.0),
    )
    model.compile(keras.optimizers.SGD(0.5))
    weights, bias = model.network.get_weights()
    batch = model.augment(tf.constant(images), tf.constant(labels))
    history = model.fit(images, labels, batch_size=5, shuffle=False, verbose=0).history
    # Two steps of ε/4: ‖δ‖∞/ε = 0.5, g = 0.25, and the label is 0.25·onehot + 0.75/3.
    g = np.array([1.0, 1.0, 0.25, 0.25, 0.25])[:, np.newaxis]
    targets = g * np.eye(3)[labels] + (1.0 - g) / 3.0
    inputs = batch.images.numpy().reshape(5, 4).astype(np.float64)
    probabilities = numpy_softmax(inputs @ weights + bias)
    losses = -(targets * np.log(probabilities)).sum(axis=-1)
    np.testing.assert_allclose(history["loss"], [losses.mean()], rtol=1e-5)
    gradient = (probabilities - targets) / 5
    after = model.network.get_weights()
    np.testing.assert_allclose(after[0], weights - 0.5 * inputs.T @ gradient, atol=1e-6)
    np.testing.assert_allclose(after[1], bias - 0.5 * gradient.sum(axis=0), atol=1e-6)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0, 0.0, -0.1, 8, 8.0, 1.001, float("nan")])
def test_an_epsilon_out_of_range_is_refused(epsilon):
    with pytest.raises(ValueError, match=rf"8/255. Received: epsilon={epsilon}"):
        PGD(epsilon=epsilon)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps=0"),
        ({"relative_step_size": 0.0}, "above 0. Received: relative_step_size=0.0"),
        ({"relative_step_size": float("nan")}, "Received: relative_step_size=nan"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        PGD(epsilon=0.1, **arguments)


@pytest.mark.parametrize("compiled", [False, True])
def test_weights_that_are_not_finite_are_named(compiled):
    network = _network_with_state()
    network.get_layer("logits").bias.assign([0.0, np.nan, 0.0])
    attack = PGD(epsilon=0.1, num_steps=2)

    def augment(images):
        return attack(images, [0], seed=SEED, network=network).images

    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite") as raised:
        (tf.function(augment) if compiled else augment)(_as_images(PIXELS))
    assert "logits/bias" in str(raised.value)
    assert "convolution/kernel" not in str(raised.value)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
