import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow import keras

from keras_autolabel import projected_gradient_descent
from keras_autolabel.augment.attack import (
    check_epsilon,
    crossentropy_of_truth,
    gradient_step,
    into_ball,
    margin,
    of_logits,
)
from tests.conftest import linear_network
from tests.keras_autolabel.augment.conftest import PIXELS, SHAPE, as_images, two_class_network

SEED = tf.constant([4, 2])
# With this bias class 0 is right all over the ball: 2·0.6 − 3·0 + 1 − 6 < 0. From any start eight
# steps of ε/4 go to the corner +, −, +, cut to the range of pixels; pixel 3 has no gradient.
BIAS = -6.0
CORNER = [0.6, 0.0, 1.0]


def _attack(network, images, labels, *, epsilon=0.1, seed=SEED, **arguments) -> np.ndarray:
    """Eight steps of ε/4, unless it is told otherwise."""
    if "step_size" not in arguments:
        arguments["step_size"] = epsilon / 4
    arguments = {"num_steps": 8, **arguments}
    return projected_gradient_descent(
        network, images, labels, epsilon=epsilon, seed=seed, **arguments
    ).numpy()


def _corner(network, **arguments) -> np.ndarray:
    return _attack(network, as_images(PIXELS), [0], **arguments).reshape(1, 4)[:, :3]


@pytest.fixture(scope="module")
def trained() -> tuple[keras.Model, tf.Tensor, tf.Tensor]:
    """A small network, trained on digits, and 200 of them that it has not seen."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-2), loss)
    network.fit(images[:1597], labels[:1597], batch_size=128, epochs=10, verbose=0)
    return network, tf.constant(images[1597:]), tf.constant(labels[1597:])


def _wrong(network, images, labels) -> np.ndarray:
    return np.argmax(network(images, training=False), axis=-1) != labels.numpy()


def _start(images, epsilon, number) -> tf.Tensor:
    """Where restart ``number`` begins."""
    seed = tf.random.experimental.stateless_fold_in(SEED, number)
    noise = tf.random.stateless_uniform(tf.shape(images), seed, minval=-1.0, maxval=1.0)
    return tf.clip_by_value(images + epsilon * noise, 0.0, 1.0)


def _naive_attack(network, images, labels, number, *, epsilon, num_steps, step_size):
    """One restart, all images to the end: all that it sees, and the losses.

    Arrays of shape [num_steps + 2, B, ...]: the clean images, the start, and where each step leads.
    """
    path, losses, x = [], [], images
    for step in range(num_steps + 2):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = network(x, training=False)
            loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        path.append(x.numpy())
        losses.append(loss.numpy())
        if step == 0:
            x = _start(images, epsilon, number)
        else:
            x += step_size * tf.sign(tape.gradient(loss, x))
            x = tf.clip_by_value(tf.clip_by_value(x, images - epsilon, images + epsilon), 0.0, 1.0)
    return np.stack(path), np.stack(losses)


# --- the pieces, by hand --------------------------------------------------------------------------


def test_into_ball_by_hand():
    clean, images, epsilon = (
        tf.reshape(tf.constant(x), [4, 1, 1, 1])
        for x in ([0.5, 0.05, 0.95, 0.5], [0.7, -0.3, 1.3, 0.45], [0.1, 0.1, 0.1, 0.02])
    )
    actual = into_ball(images, clean, epsilon)
    np.testing.assert_allclose(tf.reshape(actual, [4]), [0.6, 0.0, 1.0, 0.48], atol=1e-6)


def test_margin_and_its_gradient_by_hand():
    logits = tf.constant([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-9.0, -9.0, -9.0]])
    labels, expected = tf.constant([0, 1, 2, 0]), [-1.0, 2.0, 1.0, 0.0]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        actual = margin(labels, logits)
    np.testing.assert_array_equal(actual, expected)
    gradient = tape.gradient(actual, logits)
    np.testing.assert_array_equal(gradient[:3], [[-1, 0, 1], [1, -1, 0], [1, 0, -1]])
    half = margin(labels, tf.cast(logits, tf.bfloat16))
    assert half.dtype == tf.float32
    np.testing.assert_array_equal(half, expected)


def test_crossentropy_of_truth_by_hand():
    logits = tf.constant([[0.0, 0.0], [0.0, np.log(3.0)]])
    actual = crossentropy_of_truth(tf.constant([0, 0]), logits)
    np.testing.assert_allclose(actual, np.log([2.0, 4.0]), rtol=1e-6)


# --- the attack, by hand --------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [crossentropy_of_truth, margin])
def test_a_network_that_cannot_be_broken_ends_in_the_corner(loss):
    # With two classes both losses rise along w_1 − w_0.
    images = as_images(np.tile(PIXELS, [30, 1]))
    actual = _attack(two_class_network(BIAS), images, [0] * 30, loss=loss).reshape(30, 4)
    np.testing.assert_allclose(actual[:, :3], [CORNER] * 30, atol=1e-6)
    # The pixel without a gradient stays where it started.
    assert actual[:, 3].min() < 0.22 and actual[:, 3].max() > 0.37


def test_every_image_has_an_epsilon_and_a_step_of_its_own():
    epsilon = tf.constant([0.1, 0.04, 0.0])
    images = as_images(np.tile(PIXELS, [3, 1]))
    for given in (epsilon, epsilon.numpy().astype(np.float64)):
        network = two_class_network(BIAS)
        actual = _attack(network, images, [0] * 3, epsilon=given, num_restarts=2).reshape(3, 4)
        np.testing.assert_allclose(actual[:2, :3], [CORNER, [0.54, 0.0, 1.0]], atol=1e-6)
        np.testing.assert_array_equal(actual[2], np.float32(PIXELS[0]))
        assert np.all(np.abs(actual - PIXELS).max(axis=1) <= [0.1 + 1e-6, 0.04 + 1e-6, 1e-7])


def test_bytes_are_attacked_on_the_scale_of_0_to_1(digits):
    images, labels = (part[:50] for part in digits)
    adversarial = _attack(linear_network((8, 8, 1), 10), images, labels, epsilon=0.0)
    np.testing.assert_allclose(adversarial, images / 255, atol=1e-7)


# --- against a naive loop -------------------------------------------------------------------------


def test_an_image_leaves_at_its_first_wrong_prediction(trained):
    network, images, labels = trained
    arguments = {"epsilon": 0.08, "num_steps": 12, "step_size": 0.02}
    actual = _attack(network, images, labels, **arguments)
    # What is wrong without an attack is left as it is, and the others are attacked.
    lost = _wrong(network, images, labels)
    assert lost.sum() > 10
    np.testing.assert_array_equal(actual[lost], images[lost])
    actual, images, labels = actual[~lost], images[~lost], labels[~lost]
    path, losses = _naive_attack(network, images, labels, 0, **arguments)
    wrong = np.stack([_wrong(network, x, labels) for x in path])
    broken = wrong.any(axis=0)
    # The test is about images that break early, late and never.
    first = np.where(broken, wrong.argmax(axis=0), losses.argmax(axis=0))
    assert 20 < broken.sum() < 150 and len(set(first[broken])) > 4
    np.testing.assert_array_equal(_wrong(network, actual, labels), broken)
    expected = path[first, np.arange(len(labels))]
    # A gradient of almost 0 may be rounded to the other side in a batch of another size.
    assert np.isclose(actual, expected, atol=1e-6).mean() > 0.999
    assert np.all(np.abs(actual - images) <= 0.08 + 2e-7)


def test_the_highest_loss_of_all_steps_and_restarts_is_kept(trained):
    network, images, labels = trained
    # Images that a far stronger attack does not break: all of them stay in all restarts.
    strong = _attack(network, images, labels, epsilon=0.05, num_steps=10, num_restarts=3)
    robust = np.flatnonzero(~_wrong(network, strong, labels))
    images, labels = tf.gather(images, robust), tf.gather(labels, robust)
    assert len(robust) > 50
    # Long steps jump to and fro: the last one is not always the best.
    arguments = {"epsilon": 0.05, "num_steps": 4, "step_size": 0.08}
    runs = [_naive_attack(network, images, labels, number, **arguments) for number in range(3)]
    seen_in_one = len(runs[0][1])
    for num_restarts in (1, 3):
        losses = np.concatenate([losses for _, losses in runs[:num_restarts]])
        best = losses.argmax(axis=0)
        assert {n // seen_in_one for n in best} == set(range(num_restarts))
        assert np.mean(best % seen_in_one < seen_in_one - 1) > 0.3
        actual = _attack(network, images, labels, num_restarts=num_restarts, **arguments)
        seen = np.concatenate([path for path, _ in runs[:num_restarts]])
        expected = seen[best, np.arange(len(robust))]
        assert np.isclose(actual, expected, atol=1e-6).mean() > 0.999


def test_a_later_restart_attacks_what_is_left_and_a_wrong_prediction_beats_every_loss(trained):
    network, images, labels = trained

    def nothing_to_gain(labels, logits):
        return 0.0 * tf.reduce_sum(logits, axis=-1)

    # Without a slope nothing but the random starts is tried, and all losses are the same.
    broken, counts = _wrong(network, images, labels), []
    for number in range(4):
        rows = np.flatnonzero(~broken)
        clean, truth = tf.gather(images, rows), tf.gather(labels, rows)
        broken[rows] = _wrong(network, _start(clean, 0.4, number), truth)
        counts.append(broken.sum())
        arguments = {"num_steps": 1, "num_restarts": number + 1, "loss": nothing_to_gain}
        actual = _attack(network, images, labels, epsilon=0.4, **arguments)
        np.testing.assert_array_equal(_wrong(network, actual, labels), broken)
    assert counts[-1] > counts[0]


def test_what_is_done_with_leaves_the_batch(trained):
    network, images, labels = trained
    calls = []

    def watched(images, training):
        calls.append((len(images), training))
        return network(images, training=training)

    adversarial = _attack(watched, images, labels, epsilon=0.08, num_steps=10)
    # The first look is at the clean images, of which some are wrong already; each of the others is
    # a step, the last one the end.
    sizes = [size for size, _ in calls]
    right = 200 - _wrong(network, images, labels).sum()
    assert len(calls) == 12 and sizes[:2] == [200, right] and right < 200
    assert np.all(np.diff(sizes) <= 0) and sizes[-1] < 150
    assert _wrong(network, adversarial, labels).sum() >= 200 - sizes[-1]
    assert not any(training for _, training in calls)


@pytest.mark.parametrize("right", [0, 1])
def test_nothing_is_computed_once_all_are_wrong(right):
    calls = []

    def right_at_first(images, training):
        calls.append(len(images))
        logits = [2.0, 0.0] if len(calls) <= right else [0.0, 2.0]
        return tf.tile([logits], [len(images), 1]) + 0.0 * tf.reduce_sum(images)

    images = as_images(np.tile(PIXELS, [5, 1]))
    adversarial = _attack(right_at_first, images, [0] * 5, num_restarts=5)
    # The clean images, and, where those are right, the first look of the first restart.
    assert calls == [5] * (1 + right)
    gap = np.abs(adversarial - images).max()
    assert (0.05 < gap <= 0.1 + 1e-6) if right else gap == 0.0


def test_the_margin_sees_through_logits_that_are_too_large(trained):
    network, images, labels = trained
    images, labels = (part[~_wrong(network, images, labels)] for part in (images, labels))

    def steep(images, training):
        return 1e4 * network(images, training=training)

    def robust(network, loss):
        adversarial = _attack(network, images, labels, epsilon=0.2, num_steps=10, loss=loss)
        return ~_wrong(steep, adversarial, labels)

    # exp(−1e4·margin) is 0 in single precision, and so is the gradient of the cross-entropy:
    # the images stay at the random start.
    at_the_start = ~_wrong(network, _start(images, 0.2, 0), labels)
    by_crossentropy = robust(steep, crossentropy_of_truth)
    assert np.mean(by_crossentropy == at_the_start) >= 0.99 and by_crossentropy.mean() > 0.75
    # The margin is 1e4 times that of the network itself: its signs are the same.
    by_margin = robust(steep, margin)
    np.testing.assert_array_equal(by_margin, robust(network, margin))
    assert by_margin.mean() < 0.1


# --- precision, graphs, seeds ---------------------------------------------------------------------


def test_mixed_precision_ends_in_the_same_corner(mixed_precision):
    # With a bias of −20 the gradient at the logits is 1e-9, which is 0 in float16.
    network, images = two_class_network(-20.0), as_images(PIXELS)
    assert network(images).dtype == mixed_precision.removeprefix("mixed_")
    epsilon, step = tf.fill([2, 1, 1, 1], 0.1), tf.fill([2, 1, 1, 1], 0.025)
    # Beside an image whose label is wrong, and its gradient 1.
    pair, labels = tf.repeat(images, 2, axis=0), tf.constant([0, 1])
    moved, losses, _ = gradient_step(network, pair, pair, labels, epsilon, step)
    assert moved.dtype == losses.dtype == tf.float32
    expected = as_images([[0.525, 0.0, 1.0, 0.3], [0.475, 0.045, 0.965, 0.3]])
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    np.testing.assert_allclose(_corner(network), [CORNER], atol=1e-6)

    # A loss of one's own gets float32, of the clean images too.
    def difference(labels, logits):
        assert logits.dtype == tf.float32
        return logits[:, 1] - logits[:, 0]

    np.testing.assert_allclose(_corner(network, loss=difference), [CORNER], atol=1e-6)


def test_eager_equals_graph_of_unknown_size(trained):
    network, images, labels = trained
    graph = tf.function(
        lambda images, labels, epsilon: projected_gradient_descent(
            network,
            images,
            labels,
            epsilon=epsilon,
            num_steps=6,
            step_size=epsilon / 4,
            seed=SEED,
            num_restarts=2,
        ),
        input_signature=[
            tf.TensorSpec([None, 8, 8, 1], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.float32),
        ],
    )
    eager = _attack(network, images, labels, epsilon=0.08, num_steps=6, num_restarts=2)
    np.testing.assert_allclose(graph(images, labels, 0.08), eager, atol=1e-6)
    assert graph(images[:0], labels[:0], 0.03).shape == (0, 8, 8, 1)


def test_same_seed_same_images_other_seed_other_images(trained):
    arguments = {"epsilon": 0.05, "num_steps": 1, "step_size": 0.01}
    first, again, *others = (
        _attack(*trained, seed=tf.constant(seed), **arguments)
        for seed in ([1, 2], [1, 2], [2, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    # Only pixels that are cut to the range may agree.
    assert all(np.mean(first == other) < 0.5 for other in others)


def test_no_gradient_reaches_the_weights_or_the_images():
    network, images = two_class_network(BIAS), as_images(PIXELS)
    arguments = {"epsilon": 0.1, "num_steps": 2, "step_size": 0.05, "seed": SEED}
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(projected_gradient_descent(network, images, [0], **arguments))
    assert tape.gradient(total, [images, *network.trainable_variables]) == [None] * 3


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "off", "compiled"),
    [("float32", 0.0015, False), ("bfloat16", 0.025, False), ("float16", 0.006, True)],
)
def test_a_network_that_returns_probabilities_is_refused(dtype, off, compiled):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(10)]
    network = keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Softmax(dtype=dtype)])
    images, labels = tf.random.stateless_uniform([32, *SHAPE], SEED), tf.zeros([32], tf.int32)
    arguments = {"epsilon": 0.1, "num_steps": 2, "step_size": 0.05, "seed": SEED}

    def attack(images):
        return projected_gradient_descent(network, images, labels, **arguments)

    with pytest.raises(tf.errors.InvalidArgumentError, match="probabilities"):
        (tf.function(attack) if compiled else attack)(images)
    # A sum that no rounding explains, one below 0, none at all.
    for logits in ([[0.5, 0.5], [0.5, 0.5 + off]], [[0.5, 0.5], [1.5, -0.5]], tf.zeros([0, 2])):
        of_logits(logits, tf.cast(logits, dtype))


def test_a_gradient_that_is_not_finite_is_explained_by_the_weights_that_are_not_either():
    network = two_class_network(BIAS)
    network.layers[-1].kernel.assign(np.full([4, 2], np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite") as raised:
        _attack(network, as_images(PIXELS), [0])
    assert "kernel" in str(raised.value) and "bias" not in str(raised.value)

    def square_root_of_nothing(images, training):
        return tf.sqrt(0.0 * tf.reshape(images, [-1, 4])[:, :2]) - [[0.0, 1.0]]

    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite either:.*\n.*none"):
        _attack(square_root_of_nothing, as_images(PIXELS), [0])


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"epsilon": 8.0}, r"8/255.*epsilon=8\.0"),
        ({"epsilon": -0.1}, r"epsilon=-0\.1"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"epsilon": np.array([0.1, 2.0])}, r"epsilon=array\(\[0\.1, 2\. \]\)"),
        ({"epsilon": tf.constant(8.0)}, r"epsilon=.*8\.0"),
        ({"step_size": tf.constant(-1.0)}, r"step_size=.*-1\.0"),
        ({"step_size": -0.01}, r"step_size=-0\.01"),
        ({"step_size": float("nan")}, "step_size=nan"),
        ({"epsilon": "0.1"}, "epsilon='0.1'"),
        ({"step_size": "0.1"}, "step_size='0.1'"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"num_steps": 2.5}, "num_steps=2.5"),
        ({"num_restarts": 0}, "num_restarts=0"),
    ],
)
def test_arguments_are_checked(arguments, received):
    with pytest.raises(ValueError, match=received):
        _corner(two_class_network(BIAS), **{"step_size": 0.05, **arguments})


def test_an_epsilon_of_0_is_refused_where_it_must_be_above():
    check_epsilon(0.0, smallest=0.0)
    check_epsilon(1.0)
    with pytest.raises(ValueError, match="epsilon=0.0"):
        check_epsilon(0.0)


def test_batches_are_checked():
    network, images = two_class_network(BIAS), as_images(PIXELS)
    for wrong, labels, value in ((images, [[0.7, 0.3]], "one-hot"), (255 * images, [0], "255")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=value):
            _attack(network, wrong, labels)
