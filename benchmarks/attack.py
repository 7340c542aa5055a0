"""How fast attacks are, beside those of other libraries and the gradients that they are made of.

    python -m benchmarks.attack

A small network that was trained on Fashion-MNIST for a moment is attacked: PGD with 10 steps, as in
adversarial training, and with 50 steps and 3 restarts, as in evaluation, where an image that is
wrong leaves the batch. The lower bound is that many gradients and steps along their signs.

The other libraries' restarts are three calls, of which an image keeps the first that succeeds.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import tensorflow as tf
from absl import app
from tensorflow import keras

import data
import keras_autolabel as kal
from benchmarks.rounds import FLAGS, Case, Way, benchmark, define_flags, seconds_of
from train.small_resnet import small_resnet

EPSILON = 8 / 255
STEP_SIZE = EPSILON / 4
TRAINING_STEPS, EVALUATION_STEPS, RESTARTS = 10, 50, 3
GRAPHS = 8
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trained_network() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A network after two epochs on 3,000 images of Fashion-MNIST, and test images of all kinds."""
    splits = data.load("fashion_mnist_small")
    keras.utils.set_random_seed(FLAGS.seed)
    network = small_resnet((28, 28, 1), 10, mean=0.286, std=0.353)
    network.compile(keras.optimizers.Adam(3e-3), CROSSENTROPY)
    if not FLAGS.tiny:
        images, labels = np.asarray(splits.train.images), splits.train.labels
        network.fit(images, labels, batch_size=64, epochs=2, verbose=0)
    order = np.random.default_rng(FLAGS.seed).permutation(len(splits.test.labels))
    images = np.asarray(splits.test.images)[order].astype(np.float32) / 255
    return network, images, splits.test.labels[order].astype(np.int32)


def gradients(network: Callable, images: tf.Tensor, labels: tf.Tensor, count: int) -> Callable:
    """So many gradients at the images, each with a step along its sign: the quickest of graphs.

    oneDNN lays out one and the same graph in one of two ways, by chance; the other takes 1.5 × as
    long.
    """

    def steps_in_a_graph():
        @tf.function
        def all_steps(images, labels):
            def step(index, images):
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(images)
                    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                        labels, network(images, training=False)
                    )
                return index + 1, images + STEP_SIZE * tf.sign(tape.gradient(loss, images))

            return tf.while_loop(lambda index, _: index < count, step, (0, images))[1]

        run = _call(all_steps, images, labels)
        run()
        return seconds_of(run, time.process_time), run

    return min(
        (steps_in_a_graph() for _ in range(1 if FLAGS.tiny else GRAPHS)), key=lambda pair: pair[0]
    )[1]


def pgd_of_training(network: Callable, images: tf.Tensor, labels: tf.Tensor, steps: int):
    """The augmentation, as the train step calls it."""
    augmentation = kal.PGD(epsilon=EPSILON, num_steps=steps)

    @tf.function
    def augment(images, labels):
        seed = tf.constant([FLAGS.seed, 1])
        return augmentation(images, labels, seed=seed, network=network).images

    return _call(augment, images, labels)


def pgd_of_evaluation(network: Callable, images: tf.Tensor, labels: tf.Tensor, steps: int):
    """The attack, as evaluation calls it."""

    @tf.function
    def attack(images, labels):
        return kal.projected_gradient_descent(
            network,
            images,
            labels,
            epsilon=EPSILON,
            num_steps=steps,
            step_size=STEP_SIZE,
            seed=tf.constant([FLAGS.seed, 1]),
            num_restarts=RESTARTS,
        )

    return _call(attack, images, labels)


def by_art(network: keras.Model, images: tf.Tensor, labels: tf.Tensor, steps: int, restarts: int):
    """The attack of the Adversarial Robustness Toolbox."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model=network,
        nb_classes=10,
        input_shape=(28, 28, 1),
        loss_object=CROSSENTROPY,
        clip_values=(0.0, 1.0),
    )
    attack = ProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=EPSILON,
        eps_step=STEP_SIZE,
        max_iter=steps,
        num_random_init=restarts,
        batch_size=len(images),
        verbose=False,
    )
    np.random.seed(FLAGS.seed)
    return _call(attack.generate, np.asarray(images), np.asarray(labels))


def by_cleverhans(network: keras.Model, images, labels, steps: int, restarts: int):
    """The attack of cleverhans in a graph, as often as there are restarts."""
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    @tf.function
    def attack(images, labels):
        return projected_gradient_descent(
            *(network, images, EPSILON, STEP_SIZE, steps, np.inf),
            clip_min=0.0,
            clip_max=1.0,
            y=labels,
            rand_init=1.0,
            sanity_checks=False,
        )

    def all_restarts(images, labels):
        found = attack(images, labels)
        for _ in range(restarts - 1):
            again = attack(images, labels)
            survived = tf.argmax(network(found, training=False), -1, tf.int32) == labels
            found = tf.where(survived[:, tf.newaxis, tf.newaxis, tf.newaxis], again, found)
        return found

    return _call(all_restarts, images, labels)


def _call(attack: Callable, images, labels) -> Callable[[], None]:
    """A function without arguments, whose ``attacked`` is what it made last."""

    def run():
        run.attacked = np.asarray(attack(images, labels))

    return run


def cases() -> Iterator[Case]:
    """Training, evaluation, then how cost grows."""
    network, images, labels = trained_network()

    def batch(size):
        size = min(size, 4) if FLAGS.tiny else size
        return network, tf.constant(images[:size]), tf.constant(labels[:size])

    steps, attacked = (2 if FLAGS.tiny else TRAINING_STEPS), batch(128)
    yield Case(
        f"PGD-{steps} in training, {len(attacked[1])} of 28×28×1",
        [
            Way(
                f"{steps} gradients",
                partial(gradients, *attacked, steps),
                f"lower bound; first call: {GRAPHS} graphs",
            ),
            Way("keras_autolabel", partial(pgd_of_training, *attacked, steps)),
            Way("cleverhans", partial(by_cleverhans, *attacked, steps, 1)),
            Way("adversarial-robustness-toolbox", partial(by_art, *attacked, steps, 1)),
        ],
        len(attacked[1]),
    )
    yield evaluation(batch(32))
    for steps in (1,) if FLAGS.tiny else (1, 2, 5, 10, 20, 50):
        yield _grown(batch(32), steps, ("steps of the attack", steps))
    for size in (1,) if FLAGS.tiny else (1, 8, 32, 128):
        yield _grown(batch(size), 2 if FLAGS.tiny else 10, ("images in a batch, 10 steps", size))


def _grown(attacked: tuple, steps: int, grows: tuple[str, float]) -> Case:
    way = Way("keras_autolabel", partial(pgd_of_training, *attacked, steps))
    return Case("PGD", [way], len(attacked[1]), grows=grows)


def evaluation(attacked: tuple) -> Case:
    """50 steps and 3 restarts, with the accuracy that is left."""
    network, images, labels = attacked
    steps = 2 if FLAGS.tiny else EVALUATION_STEPS

    def robust_accuracy(run) -> str:
        hits = np.asarray(network(run.attacked, training=False)).argmax(-1) == labels.numpy()
        moved = np.abs(run.attacked - images.numpy()).max()
        return f"robust accuracy {hits.mean():.1%}, moved by {moved * 255:.1f}/255"

    return Case(
        f"PGD-{steps} with {RESTARTS} restarts, {len(images)} of 28×28×1",
        [
            Way("keras_autolabel", partial(pgd_of_evaluation, *attacked, steps), robust_accuracy),
            Way("cleverhans", partial(by_cleverhans, *attacked, steps, RESTARTS), robust_accuracy),
            Way(
                "adversarial-robustness-toolbox",
                partial(by_art, *attacked, steps, RESTARTS),
                robust_accuracy,
            ),
        ],
        len(images),
    )


if __name__ == "__main__":
    define_flags()
    app.run(lambda argv: benchmark("attack", cases, argv))
