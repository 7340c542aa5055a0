"""The attack against those of two other libraries: ``pip install -e .[attack-test]``."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

import data
from keras_autolabel import projected_gradient_descent

pytestmark = pytest.mark.attack

EPSILON, NUM_STEPS = 8 / 255, 20
STEP_SIZE = EPSILON / 4
CHUNK = 500


@pytest.fixture(scope="module")
def trained() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A network of two convolutions after three epochs on Fashion-MNIST, and 2,000 test images."""
    try:
        splits = data.load("fashion_mnist", train_examples=6000)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2D(24, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(3e-3), loss)
    network.fit(
        _floats(splits.train.images), splits.train.labels, batch_size=64, epochs=3, verbose=0
    )
    return network, _floats(splits.test.images[:2000]), splits.test.labels[:2000]


def _floats(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255


@pytest.fixture(scope="module")
def accuracies(trained) -> tuple[float, float]:
    """Of the clean images, and under the attack of this package."""
    network, images, labels = trained

    @tf.function
    def attack(images, labels, seed):
        return projected_gradient_descent(
            network,
            images,
            labels,
            epsilon=EPSILON,
            num_steps=NUM_STEPS,
            step_size=STEP_SIZE,
            seed=seed,
        )

    adversarial = [
        attack(images[i : i + CHUNK], labels[i : i + CHUNK], tf.constant([0, i]))
        for i in range(0, len(images), CHUNK)
    ]
    clean = _accuracy(network, images, labels)
    return clean, _checked_accuracy(network, np.concatenate(adversarial), images, labels)


def _accuracy(network, images, labels) -> float:
    logits = network.predict(images, batch_size=CHUNK, verbose=0)
    return float(np.mean(logits.argmax(axis=-1) == labels))


def _checked_accuracy(network, adversarial, images, labels) -> float:
    """Robust accuracy, of images that keep to the rules of the attack."""
    assert np.abs(adversarial - images).max() <= EPSILON + 1e-6
    assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0
    return _accuracy(network, adversarial, labels)


def test_the_attack_does_something(accuracies):
    clean, robust = accuracies
    assert clean > 0.75
    # Neither all nor nothing, or the comparisons below would say little.
    assert 0.1 < robust < clean - 0.2


def test_as_strong_as_adversarial_robustness_toolbox(trained, accuracies):
    evasion = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")
    network, images, labels = trained
    classifier = classification.TensorFlowV2Classifier(
        model=network,
        nb_classes=10,
        input_shape=(28, 28, 1),
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )
    attack = evasion.ProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=EPSILON,
        eps_step=STEP_SIZE,
        max_iter=NUM_STEPS,
        num_random_init=1,
        batch_size=CHUNK,
        verbose=False,
    )
    np.random.seed(0)
    adversarial = attack.generate(images, labels)
    peer = _checked_accuracy(network, adversarial, images, labels)
    assert abs(accuracies[1] - peer) < 0.01, (accuracies, peer)


def test_as_strong_as_cleverhans(trained, accuracies):
    module = pytest.importorskip("cleverhans.tf2.attacks.projected_gradient_descent")
    network, images, labels = trained
    tf.random.set_seed(0)

    @tf.function
    def attack(images, labels):
        return module.projected_gradient_descent(
            network,
            images,
            EPSILON,
            STEP_SIZE,
            NUM_STEPS,
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=labels,
            rand_init=1.0,
        )

    adversarial = [
        attack(tf.constant(images[i : i + CHUNK]), tf.constant(labels[i : i + CHUNK]))
        for i in range(0, len(images), CHUNK)
    ]
    peer = _checked_accuracy(network, np.concatenate(adversarial), images, labels)
    assert abs(accuracies[1] - peer) < 0.01, (accuracies, peer)
