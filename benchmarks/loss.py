"""What soft labels cost in a train step, beside dense targets that are built in the step.

    python -m benchmarks.loss

The step is that of a network with gradients of all its weights; loss functions alone are measured
with the gradient of the logits. Dense targets are what ``keras.losses.CategoricalCrossentropy``
takes; hard labels read no table.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import tensorflow as tf
from absl import app
from tensorflow import keras

import keras_autolabel as kal
from benchmarks.rounds import FLAGS, Case, Way, benchmark, define_flags, peak_megabytes
from keras_autolabel.batch import AugmentedBatch, label_rows
from train.small_resnet import small_resnet

BUCKETS = 30
DENSE = keras.losses.CategoricalCrossentropy(from_logits=True)


def batch_of(images: np.ndarray, classes: int) -> AugmentedBatch:
    """Labels and buckets at random; no partners."""
    rng = np.random.default_rng(FLAGS.seed)
    labels = rng.integers(classes, size=len(images)).astype(np.int32)
    bucket = rng.integers(BUCKETS, size=len(images)).astype(np.int32)
    nothing = np.zeros(len(images), np.float32)
    return AugmentedBatch(*map(tf.constant, (images, labels, labels, nothing, nothing, bucket)))


def losses(classes: int) -> dict[str, Callable[[AugmentedBatch, tf.Tensor], tf.Tensor]]:
    """Name -> function of a batch and its logits to the mean loss."""
    table = kal.LabelTable((BUCKETS,), initial=0.9)
    soft = kal.SoftTargetLoss(table)

    def dense(batch, logits):
        confidence = tf.gather(tf.convert_to_tensor(table.confidence), batch.bucket)[:, tf.newaxis]
        other = (1.0 - confidence) / (classes - 1)
        return DENSE(other + (confidence - other) * tf.one_hot(batch.labels, classes), logits)

    def hard(batch, logits):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits))

    return {
        "keras_autolabel": lambda batch, logits: soft(label_rows(batch), logits),
        "keras.losses.CategoricalCrossentropy": dense,
        "hard labels": hard,
    }


NOTES = {"hard labels": "less: no soft labels"}


def train_step(network: keras.Model, batch: AugmentedBatch, loss: Callable) -> Callable[[], None]:
    """A step of SGD on a batch."""

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            value = loss(batch, network(batch.images, training=True))
        weights = network.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(value, weights), strict=True):
            weight.assign_sub(1e-6 * gradient)

    return partial(step, batch)


def loss_and_gradient(
    logits: tf.Tensor, batch: AugmentedBatch, loss: Callable
) -> Callable[[], None]:
    """The gradient of a loss at the logits."""

    @tf.function
    def gradient(batch, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(batch, logits)
        return tape.gradient(value, logits)

    def run():
        gradient(batch, logits)

    return run


def cases() -> Iterator[Case]:
    """Steps of two networks, then the loss alone by the number of classes and the batch."""
    rng = np.random.default_rng(FLAGS.seed)
    size, side = (4, 8) if FLAGS.tiny else (128, 32)
    images = rng.uniform(size=[size, side, side, 3]).astype(np.float32)
    network = small_resnet(images.shape[1:], 10, mean=0.5, std=0.25)
    yield _steps("small ResNet, 10 classes", network, images, 10)
    classes = 50 if FLAGS.tiny else 21_841
    features = rng.normal(size=[size, 64]).astype(np.float32)
    head = keras.Sequential([keras.Input([64]), keras.layers.Dense(classes)])
    yield _steps(f"one layer of 64 inputs, {classes:,} classes", head, features, classes)
    yield _alone(4 if FLAGS.tiny else 4096, classes, note=_peak)
    for classes in (10,) if FLAGS.tiny else (10, 100, 1000, 21_841):
        yield _alone(size, classes, grows=("classes", classes))
    for size in (2,) if FLAGS.tiny else (8, 64, 512, 4096):
        yield _alone(size, 100, grows=("rows in a batch of 100 classes", size))


def _steps(what: str, network: keras.Model, inputs: np.ndarray, classes: int) -> Case:
    batch = batch_of(inputs, classes)
    ways = [
        Way(name, partial(train_step, network, batch, loss), NOTES.get(name, ""))
        for name, loss in losses(classes).items()
    ]
    return Case(f"train step, {what}, batch {len(inputs)}", ways, unit="step")


def _alone(size: int, classes: int, grows: tuple[str, float] | None = None, note="") -> Case:
    rng = np.random.default_rng(FLAGS.seed)
    logits = tf.constant(rng.normal(size=[size, classes]).astype(np.float32))
    batch = batch_of(np.zeros([size, 1], np.float32), classes)
    ways = [
        Way(name, partial(loss_and_gradient, logits, batch, loss), note)
        for name, loss in losses(classes).items()
    ]
    what = "loss and gradient" if grows else f"loss and gradient, {size:,} × {classes:,}"
    return Case(what, ways, size, unit="row", grows=grows)


def _peak(run: Callable) -> str:
    """Memory at the peak; the logits take that of one tensor of their size before."""
    return f"{peak_megabytes(run):,.0f} MB at the peak"


if __name__ == "__main__":
    define_flags()
    app.run(lambda argv: benchmark("loss", cases, argv))
