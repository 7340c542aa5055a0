import sys

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow import keras

from keras_autolabel import PGD, projected_gradient_descent
from keras_autolabel.augment.attack import (
    check_epsilon,
    crossentropy_of_truth,
    gradient_step,
    into_ball,
    margin,
)
from keras_autolabel.augment.augmentation import Draw
from tests.conftest import linear_network

SEED = tf.constant([4, 2])
SHAPE = (2, 2, 1)
PIXELS = np.array([[0.5, 0.02, 0.99, 0.3]])


def _as_images(pixels) -> tf.Tensor:
    return tf.constant(np.reshape(pixels, [-1, *SHAPE]), tf.float32)


def _two_class_network(bias: float = -6.0):
    """Margin of class 1 over class 0: 2·x_0 - 3·x_1 + x_2 + bias; pixel 3 does not count."""
    network = linear_network(SHAPE, 2)
    weights = [[-1.0, 1.0], [1.0, -2.0], [0.5, 1.5], [0.0, 0.0]]
    network.set_weights([np.array(weights), np.array([0.0, bias])])
    return network


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


def _naive_attack(network, images, labels, *, epsilon, num_steps, step_size, seed):
    """PGD from one random start, all images to the end: all that it sees, and the losses.

    Arrays of shape [num_steps + 2, B, ...]: the clean images, the start, and where each step leads.
    """
    noise = tf.random.stateless_uniform(tf.shape(images), seed, minval=-1.0, maxval=1.0)
    x = tf.clip_by_value(images + epsilon * noise, 0.0, 1.0)
    logits = network(images, training=False)
    path = [images.numpy()]
    losses = [keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)]
    for _ in range(num_steps + 1):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = network(x, training=False)
            loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        path.append(x.numpy())
        losses.append(loss.numpy())
        x += step_size * tf.sign(tape.gradient(loss, x))
        x = tf.clip_by_value(tf.clip_by_value(x, images - epsilon, images + epsilon), 0.0, 1.0)
    return np.stack(path), np.stack(losses)


def _restart_seed(number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(SEED, number)


# --- the pieces, by hand --------------------------------------------------------------------------


def test_into_ball_by_hand():
    clean = tf.reshape(tf.constant([0.5, 0.05, 0.95, 0.5]), [4, 1, 1, 1])
    images = tf.reshape(tf.constant([0.7, -0.3, 1.3, 0.45]), [4, 1, 1, 1])
    epsilon = tf.reshape(tf.constant([0.1, 0.1, 0.1, 0.02]), [4, 1, 1, 1])
    actual = into_ball(images, clean, epsilon)
    np.testing.assert_allclose(tf.reshape(actual, [4]), [0.6, 0.0, 1.0, 0.48], atol=1e-6)


def test_margin_by_hand():
    logits = tf.constant([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-9.0, -9.0, -9.0]])
    actual = margin(tf.constant([0, 1, 2, 0]), logits)
    np.testing.assert_array_equal(actual, [-1.0, 2.0, 1.0, 0.0])
    half = margin(tf.constant([0, 1, 2, 0]), tf.cast(logits, tf.bfloat16))
    assert half.dtype == tf.float32
    np.testing.assert_array_equal(half, actual)


def test_gradient_of_the_margin_is_that_of_two_logits():
    logits = tf.constant([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = margin(tf.constant([0, 1]), logits)
    np.testing.assert_array_equal(tape.gradient(value, logits), [[-1, 0, 1], [1, -1, 0]])


def test_crossentropy_of_truth_by_hand():
    logits = tf.constant([[0.0, 0.0], [0.0, np.log(3.0)]])
    actual = crossentropy_of_truth(tf.constant([0, 0]), logits)
    np.testing.assert_allclose(actual, np.log([2.0, 4.0]), rtol=1e-6)


def test_a_step_does_not_depend_on_the_images_beside_it(trained):
    network, images, labels = trained
    epsilon, step = tf.fill([200, 1, 1, 1], 0.1), tf.fill([200, 1, 1, 1], 0.025)
    together, losses, logits = gradient_step(network, images, images, labels, epsilon, step)
    alone, loss, one = gradient_step(
        network, images[3:4], images[3:4], labels[3:4], epsilon[:1], step[:1]
    )
    np.testing.assert_allclose(together[3:4], alone, atol=1e-6)
    np.testing.assert_allclose(losses[3:4], loss, rtol=1e-4)
    np.testing.assert_allclose(logits[3:4], one, atol=1e-4)


# --- the attack, by hand --------------------------------------------------------------------------


def test_a_network_that_cannot_be_broken_ends_in_the_corner():
    # 2·0.6 - 3·0 + 1 - 6 < 0: class 0 is right all over the ball. From any start eight steps of
    # ε/4 go to the corner +, -, +, cut to the range of pixels.
    adversarial = projected_gradient_descent(
        _two_class_network(),
        _as_images(np.tile(PIXELS, [30, 1])),
        [0] * 30,
        epsilon=0.1,
        num_steps=8,
        step_size=0.025,
        seed=SEED,
    )
    actual = adversarial.numpy().reshape(30, 4)
    np.testing.assert_allclose(actual[:, :3], [[0.6, 0.0, 1.0]] * 30, atol=1e-6)
    assert actual[:, 3].min() < 0.22 and actual[:, 3].max() > 0.37


def test_every_image_has_an_epsilon_and_a_step_of_its_own():
    epsilon = tf.constant([0.1, 0.04, 0.0])
    for given in (epsilon, epsilon.numpy(), epsilon.numpy().astype(np.float64)):
        adversarial = projected_gradient_descent(
            _two_class_network(),
            _as_images(np.tile(PIXELS, [3, 1])),
            [0, 0, 0],
            epsilon=given,
            num_steps=8,
            step_size=given / 4,
            seed=SEED,
            num_restarts=2,
        )
        actual = adversarial.numpy().reshape(3, 4)
        expected = [[0.6, 0.0, 1.0], [0.54, 0.0, 1.0], [0.5, 0.02, 0.99]]
        np.testing.assert_allclose(actual[:, :3], expected, atol=1e-6)
        assert np.all(np.abs(actual - PIXELS).max(axis=1) <= [0.1 + 1e-6, 0.04 + 1e-6, 1e-7])


def test_an_epsilon_of_0_returns_the_images(digits):
    images, labels = (part[:50] for part in digits)
    network = linear_network((8, 8, 1), 10)
    arguments = {"num_steps": 3, "step_size": 0.01, "seed": SEED, "num_restarts": 2}
    adversarial = projected_gradient_descent(network, images, labels, epsilon=0.0, **arguments)
    np.testing.assert_allclose(adversarial, images / 255, atol=1e-7)
    floats = (images / 255).astype(np.float32)
    adversarial = projected_gradient_descent(network, floats, labels, epsilon=0.0, **arguments)
    np.testing.assert_array_equal(adversarial, floats)


def test_margin_as_the_loss_moves_the_same_way():
    # With two classes both losses rise along w_1 - w_0.
    adversarial = projected_gradient_descent(
        _two_class_network(),
        _as_images(PIXELS),
        [0],
        epsilon=0.1,
        num_steps=8,
        step_size=0.025,
        seed=SEED,
        loss=margin,
    )
    np.testing.assert_allclose(
        adversarial.numpy().reshape(1, 4)[:, :3], [[0.6, 0.0, 1.0]], atol=1e-6
    )


def test_images_stay_in_the_ball_and_in_the_range(trained):
    network, images, labels = trained
    epsilon = np.linspace(0.0, 0.3, 200).astype(np.float32)
    adversarial = projected_gradient_descent(
        network, images, labels, epsilon=epsilon, num_steps=5, step_size=epsilon / 2, seed=SEED
    ).numpy()
    assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0
    gap = np.abs(adversarial - images).max(axis=(1, 2, 3))
    assert np.all(gap <= epsilon + 2e-7)
    # Five steps of ε/2 take the others to the edge of the ball, at least at one pixel.
    robust = ~_wrong(network, adversarial, labels)
    np.testing.assert_allclose(gap[robust], epsilon[robust], atol=1e-6)
    assert robust.sum() > 30


# --- against a naive loop -------------------------------------------------------------------------


def test_an_image_leaves_at_its_first_wrong_prediction(trained):
    network, images, labels = trained
    arguments = {"epsilon": 0.08, "num_steps": 12, "step_size": 0.02}
    actual = projected_gradient_descent(network, images, labels, seed=SEED, **arguments).numpy()
    # What is wrong without an attack is left as it is, and the others are attacked.
    lost = _wrong(network, images, labels)
    assert lost.sum() > 10
    np.testing.assert_array_equal(actual[lost], images[lost])
    actual, images, labels = actual[~lost], images[~lost], labels[~lost]
    path, losses = _naive_attack(network, images, labels, seed=_restart_seed(0), **arguments)
    wrong = np.stack([_wrong(network, x, labels) for x in path])
    broken = wrong.any(axis=0)
    # The test is about images that break early, late and never.
    first = np.where(broken, wrong.argmax(axis=0), losses.argmax(axis=0))
    assert 20 < broken.sum() < 150 and len(set(first[broken])) > 4
    np.testing.assert_array_equal(_wrong(network, actual, labels), broken)
    expected = path[first, np.arange(len(labels))]
    # A gradient of almost 0 may be rounded to the other side in a batch of another size.
    same = np.isclose(actual, expected, atol=1e-6)
    assert same.mean() > 0.999
    # Some that leave would be right again at the end of the path: leaving never does worse.
    assert np.all(broken >= wrong[-1])


def test_the_highest_loss_of_all_steps_and_restarts_is_kept(trained):
    network, images, labels = trained
    # Long steps jump to and fro: the last one is not always the best.
    arguments = {"epsilon": 0.05, "num_steps": 4, "step_size": 0.08}
    # Images that a far stronger attack does not break: all of them stay in all restarts.
    strong = projected_gradient_descent(
        network,
        images,
        labels,
        epsilon=0.05,
        num_steps=20,
        step_size=0.0125,
        seed=SEED,
        num_restarts=5,
    )
    robust = np.flatnonzero(~_wrong(network, strong, labels))
    images, labels = tf.gather(images, robust), tf.gather(labels, robust)
    assert len(robust) > 50
    runs = [
        _naive_attack(network, images, labels, seed=_restart_seed(number), **arguments)
        for number in range(4)
    ]
    seen_in_one = len(runs[0][1])
    for num_restarts in (1, 2, 4):
        losses = np.concatenate([losses for _, losses in runs[:num_restarts]])
        best = losses.argmax(axis=0)
        assert {n // seen_in_one for n in best} == set(range(num_restarts))
        assert np.mean(best % seen_in_one < seen_in_one - 1) > 0.3
        actual = projected_gradient_descent(
            network, images, labels, seed=SEED, num_restarts=num_restarts, **arguments
        )
        found = crossentropy_of_truth(labels, network(actual))
        np.testing.assert_allclose(found, losses.max(axis=0), rtol=1e-3)
        seen = np.concatenate([path for path, _ in runs[:num_restarts]])
        same = np.isclose(actual, seen[best, np.arange(len(robust))], atol=1e-6)
        assert same.mean() > 0.999


def test_a_later_restart_attacks_what_is_left(trained):
    network, images, labels = trained
    arguments = {"epsilon": 0.15, "num_steps": 1, "step_size": 0.02}
    broken, counts = _wrong(network, images, labels), []
    for number in range(4):
        rows = np.flatnonzero(~broken)
        left = tf.gather(images, rows), tf.gather(labels, rows)
        path, _ = _naive_attack(network, *left, seed=_restart_seed(number), **arguments)
        broken[rows] = np.any([_wrong(network, x, left[1]) for x in path], axis=0)
        counts.append(broken.sum())
        actual = projected_gradient_descent(
            network, images, labels, seed=SEED, num_restarts=number + 1, **arguments
        )
        np.testing.assert_array_equal(_wrong(network, actual, labels), broken)
    assert counts[-1] > counts[0]


def test_a_wrong_prediction_beats_every_loss(trained):
    network, images, labels = trained
    arguments = {"epsilon": 0.4, "num_steps": 1, "step_size": 0.1}

    def nothing_to_gain(labels, logits):
        return 0.0 * tf.reduce_sum(tf.cast(logits, tf.float32), axis=-1)

    # Without a slope nothing but the random starts is tried, and all losses are the same.
    broken, counts = _wrong(network, images, labels), []
    for number in range(4):
        rows = np.flatnonzero(~broken)
        clean, truth = tf.gather(images, rows), tf.gather(labels, rows)
        noise = tf.random.stateless_uniform(clean.shape, _restart_seed(number), -1.0, 1.0)
        start = tf.clip_by_value(clean + 0.4 * noise, 0.0, 1.0)
        broken[rows] = _wrong(network, start, truth)
        counts.append(broken.sum())
    assert counts[-1] > counts[0]
    actual = projected_gradient_descent(
        network,
        images,
        labels,
        seed=SEED,
        num_restarts=4,
        loss=nothing_to_gain,
        **arguments,
    )
    np.testing.assert_array_equal(_wrong(network, actual, labels), broken)


def test_what_is_done_with_leaves_the_batch(trained):
    network, images, labels = trained
    calls = []

    def watched(images, training):
        calls.append((len(images), training))
        return network(images, training=training)

    adversarial = projected_gradient_descent(
        watched, images, labels, epsilon=0.08, num_steps=10, step_size=0.02, seed=SEED
    )
    # The first look is at the clean images, of which some are wrong already; each of the others is
    # a step, the last one the end.
    sizes = [size for size, _ in calls]
    right = 200 - _wrong(network, images, labels).sum()
    assert len(calls) == 12 and sizes[:2] == [200, right] and right < 200
    assert np.all(np.diff(sizes) <= 0)
    broken = _wrong(network, adversarial, labels).sum()
    assert sizes[-1] <= 200 - broken + np.sum(np.diff(sizes) < 0) and sizes[-1] < 150
    assert not any(training for _, training in calls)


@pytest.mark.parametrize("right", [0, 1])
def test_nothing_is_computed_once_all_are_wrong(right):
    calls = []

    def right_at_first(images, training):
        calls.append(len(images))
        logits = [2.0, 0.0] if len(calls) <= right else [0.0, 2.0]
        return tf.tile([logits], [len(images), 1]) + 0.0 * tf.reduce_sum(images)

    images = _as_images(np.tile(PIXELS, [5, 1]))
    adversarial = projected_gradient_descent(
        right_at_first,
        images,
        [0] * 5,
        epsilon=0.1,
        num_steps=10,
        step_size=0.025,
        seed=SEED,
        num_restarts=5,
    )
    # The clean images, and, where those are right, the first look of the first restart.
    assert calls == [5] * (1 + right)
    gap = np.abs(adversarial - images).max()
    assert (0.05 < gap <= 0.1 + 1e-6) if right else gap == 0.0


# --- is the attack strong? ------------------------------------------------------------------------


def test_more_steps_never_do_worse(trained):
    network, images, labels = trained
    broken = [
        _wrong(
            network,
            projected_gradient_descent(
                network,
                images,
                labels,
                epsilon=0.08,
                num_steps=num_steps,
                step_size=0.01,
                seed=SEED,
            ),
            labels,
        )
        for num_steps in (1, 3, 10, 40)
    ]
    # The same start and the same way: who is broken stays so.
    for fewer, more in zip(broken, broken[1:], strict=False):
        assert np.all(fewer <= more)
    assert broken[0].sum() < broken[1].sum() < broken[2].sum()


def test_the_loss_rises_with_epsilon_and_1_breaks_everything(trained):
    network, images, labels = trained
    epsilons = (0.01, 0.03, 0.1, 0.3, 1.0)
    losses, accuracies = [], []
    for epsilon in epsilons:
        drawn = Draw(tf.fill([200], epsilon), tf.zeros([200], tf.int32), SEED)
        batch = PGD(epsilon=1.0, num_steps=20).apply(images, labels, drawn, network)
        losses.append(np.mean(crossentropy_of_truth(labels, network(batch.images))))
        adversarial = projected_gradient_descent(
            network,
            images,
            labels,
            epsilon=epsilon,
            num_steps=20,
            step_size=epsilon / 4,
            seed=SEED,
        )
        accuracies.append(1.0 - _wrong(network, adversarial, labels).mean())
    clean = np.mean(crossentropy_of_truth(labels, network(images)))
    assert np.all(np.diff([clean, *losses]) > 0)
    accuracy = 1.0 - _wrong(network, images, labels).mean()
    assert np.all(np.diff([accuracy, *accuracies]) <= 0)
    assert accuracy > 0.85 and accuracies[0] > 0.75 and accuracies[-1] == 0.0


def test_the_margin_sees_through_logits_that_are_too_large(trained):
    network, images, labels = trained
    arguments = {"epsilon": 0.2, "num_steps": 20, "step_size": 0.05, "seed": SEED}

    def steep(images, training):
        return 1e4 * network(images, training=training)

    def robust(network, loss):
        adversarial = projected_gradient_descent(network, images, labels, loss=loss, **arguments)
        return ~_wrong(steep, adversarial, labels)

    # exp(-1e4·margin) is 0 in single precision, and so is the gradient of the cross-entropy:
    # the images stay at the random start.
    images, labels = (part[~_wrong(network, images, labels)] for part in (images, labels))
    noise = tf.random.stateless_uniform(images.shape, _restart_seed(0), -1.0, 1.0)
    start = tf.clip_by_value(images + 0.2 * noise, 0.0, 1.0)
    at_the_start = ~_wrong(network, start, labels)
    by_crossentropy = robust(steep, crossentropy_of_truth)
    assert np.mean(by_crossentropy == at_the_start) >= 0.99 and by_crossentropy.mean() > 0.75
    # The margin is 1e4 times that of the network itself: its signs are the same.
    by_margin = robust(steep, margin)
    np.testing.assert_array_equal(by_margin, robust(network, margin))
    assert by_margin.mean() < 0.1


# --- precision, graphs, seeds ---------------------------------------------------------------------


@pytest.mark.parametrize("bias", [-6.0, -20.0])
def test_mixed_precision_ends_in_the_same_corner(mixed_precision, bias):
    # With a bias of -20 the gradient at the logits is 1e-9, which is 0 in float16.
    network = _two_class_network(bias)
    assert network(_as_images(PIXELS)).dtype == mixed_precision.removeprefix("mixed_")
    epsilon, step = tf.fill([1, 1, 1, 1], 0.1), tf.fill([1, 1, 1, 1], 0.025)
    images = _as_images(PIXELS)
    moved, losses, _ = gradient_step(network, images, images, tf.constant([0]), epsilon, step)
    assert moved.dtype == losses.dtype == tf.float32
    np.testing.assert_allclose(moved, _as_images([[0.525, 0.0, 1.0, 0.3]]), atol=1e-6)
    adversarial = projected_gradient_descent(
        network, images, [0], epsilon=0.1, num_steps=8, step_size=0.025, seed=SEED
    )
    actual = adversarial.numpy().reshape(1, 4)
    np.testing.assert_allclose(actual[:, :3], [[0.6, 0.0, 1.0]], atol=1e-6)


def test_a_loss_of_ones_own_gets_float32(mixed_precision):
    adversarial = projected_gradient_descent(
        _two_class_network(),
        _as_images(PIXELS),
        [0],
        epsilon=0.1,
        num_steps=8,
        step_size=0.025,
        seed=SEED,
        loss=lambda labels, logits: logits[:, 1] - logits[:, 0],
    )
    actual = adversarial.numpy().reshape(1, 4)
    np.testing.assert_allclose(actual[:, :3], [[0.6, 0.0, 1.0]], atol=1e-6)


def test_eager_equals_graph_of_unknown_size(trained):
    network, images, labels = trained

    def attack(images, labels, epsilon):
        return projected_gradient_descent(
            network,
            images,
            labels,
            epsilon=epsilon,
            num_steps=6,
            step_size=epsilon / 4,
            seed=SEED,
            num_restarts=2,
        )

    graph = tf.function(
        attack,
        input_signature=[
            tf.TensorSpec([None, 8, 8, 1], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.float32),
        ],
    )
    for epsilon in (0.03, 0.08):
        eager = attack(images, labels, tf.constant(epsilon))
        np.testing.assert_allclose(graph(images, labels, epsilon), eager, atol=1e-6)
    assert graph(images[:0], labels[:0], 0.03).shape == (0, 8, 8, 1)


def test_same_seed_same_images_other_seed_other_images(trained):
    network, images, labels = trained
    arguments = {"epsilon": 0.05, "num_steps": 1, "step_size": 0.01}
    attacks = [
        projected_gradient_descent(network, images, labels, seed=tf.constant(seed), **arguments)
        for seed in ([1, 2], [1, 2], [2, 2], [1, 3])
    ]
    np.testing.assert_array_equal(attacks[0], attacks[1])
    for other in attacks[2:]:
        # Only pixels that are cut to the range may agree.
        assert np.mean(attacks[0] == other) < 0.5


def test_no_gradient_reaches_the_weights_or_the_images():
    network = _two_class_network()
    images = _as_images(PIXELS)
    with tf.GradientTape() as tape:
        tape.watch(images)
        adversarial = projected_gradient_descent(
            network, images, [0], epsilon=0.1, num_steps=2, step_size=0.05, seed=SEED
        )
        total = tf.reduce_sum(adversarial)
    assert tape.gradient(total, [images, *network.trainable_variables]) == [None] * 3


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("augmentation", [False, True])
def test_a_network_that_returns_probabilities_is_refused(compiled, dtype, augmentation):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(10)]
    network = keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Softmax(dtype=dtype)])
    images, labels = tf.random.stateless_uniform([32, *SHAPE], SEED), tf.zeros([32], tf.int32)

    def attack(images):
        if augmentation:
            return PGD(epsilon=0.1)(images, labels, seed=SEED, network=network).images
        return projected_gradient_descent(
            network, images, labels, epsilon=0.1, num_steps=2, step_size=0.05, seed=SEED
        )

    with pytest.raises(tf.errors.InvalidArgumentError, match="probabilities; attack its logits"):
        (tf.function(attack) if compiled else attack)(images)


def test_weights_that_are_not_finite_are_named():
    network = _two_class_network()
    network.layers[-1].kernel.assign(np.full([4, 2], np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite") as raised:
        projected_gradient_descent(
            network,
            _as_images(PIXELS),
            [0],
            epsilon=0.1,
            num_steps=2,
            step_size=0.05,
            seed=SEED,
        )
    assert "kernel" in str(raised.value) and "bias" not in str(raised.value)


def test_a_gradient_that_no_weight_explains_says_so():
    def square_root_of_nothing(images, training):
        return tf.sqrt(0.0 * tf.reshape(images, [-1, 4])[:, :2]) - [[0.0, 1.0]]

    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite either:.*\n.*none"):
        projected_gradient_descent(
            square_root_of_nothing,
            _as_images(PIXELS),
            [0],
            epsilon=0.1,
            num_steps=2,
            step_size=0.05,
            seed=SEED,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 8.0}, "for 8 grey levels of 255 pass 8/255. Received: epsilon=8.0"),
        ({"epsilon": -0.1}, "Received: epsilon=-0.1"),
        ({"epsilon": float("nan")}, "Received: epsilon=nan"),
        ({"epsilon": np.array([0.1, 2.0])}, r"Received: epsilon=\[0.1 2. \]"),
        ({"epsilon": tf.constant(8.0)}, r"pass 8/255. Received: epsilon=.*8\.0"),
        ({"step_size": tf.constant(-1.0)}, r"step_size must not be negative. .*-1\.0"),
        ({"num_steps": 0}, "num_steps must be at least 1. Received: num_steps=0"),
        ({"num_restarts": 0}, "num_restarts must be at least 1. Received: num_restarts=0"),
        ({"step_size": -0.01}, "step_size must not be negative. Received: step_size=-0.01"),
        ({"step_size": float("nan")}, "Received: step_size=nan"),
    ],
)
def test_arguments_are_checked(arguments, message):
    given = {"epsilon": 0.1, "num_steps": 2, "step_size": 0.05, "seed": SEED, **arguments}
    with pytest.raises(ValueError, match=message):
        projected_gradient_descent(_two_class_network(), _as_images(PIXELS), [0], **given)


def test_an_epsilon_of_0_is_refused_where_it_must_be_above():
    check_epsilon(0.0, smallest=0.0)
    check_epsilon(1.0)
    with pytest.raises(ValueError, match="above 0"):
        check_epsilon(0.0)


def test_batches_are_checked():
    given = {"epsilon": 0.1, "num_steps": 2, "step_size": 0.05, "seed": SEED}
    with pytest.raises(tf.errors.InvalidArgumentError, match="one-hot"):
        soft = [[0.7, 0.3]]
        projected_gradient_descent(_two_class_network(), _as_images(PIXELS), soft, **given)
    with pytest.raises(tf.errors.InvalidArgumentError, match="divide by 255"):
        projected_gradient_descent(_two_class_network(), 255 * _as_images(PIXELS), [0], **given)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
