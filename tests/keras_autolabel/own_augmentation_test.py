"""A user's own augmentation: an object that merely has what is needed, and the README's."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow import keras

from keras_autolabel import AutoLabel, AutoLabelModel, plots
from keras_autolabel.batch import to_float, without_partner
from keras_autolabel.buckets import uniform_in_bucket
from keras_autolabel.testing import check_augmentation
from tests.conftest import linear_network, numpy_softmax

README = pathlib.Path(__file__).parents[2] / "README.md"


class GaussianNoise:
    """Noise of σ = distance / 2, without the base class, a config or hints of any kind."""

    bucket_shape = (10,)

    def __call__(self, images, labels, *, seed, bucket=None, network=None):
        images, (first, second) = to_float(images), tf.unstack(tf.random.split(seed))
        if bucket is None:
            bucket = tf.random.stateless_uniform(tf.shape(labels), first, 0, 10, tf.int32)
        bucket = tf.broadcast_to(bucket, tf.shape(labels))
        distance = uniform_in_bucket(bucket, 10, seed=second)
        sigma = tf.reshape(distance / 2, [-1, 1, 1, 1])
        noise = sigma * tf.random.stateless_normal(tf.shape(images), seed)
        images = tf.clip_by_value(images + noise, 0.0, 1.0)
        return without_partner(images, labels, distance=distance, bucket=bucket)


@pytest.fixture(scope="module", params=["here", "README"])
def augmentation(request):
    """An instance of the class above, or of the one that README.md shows."""
    if request.param == "here":
        return GaussianNoise()
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "class GaussianNoise" in block)
    names = {"__name__": "shown_in_readme"}
    exec(block, names)
    return names["GaussianNoise"]()


def test_it_keeps_the_contract(augmentation):
    check_augmentation(augmentation)


def test_the_standard_deviation_is_half_the_distance(augmentation):
    images, labels = tf.fill([10, 100, 100, 1], 0.5), tf.range(10)
    batch = augmentation(images, labels, seed=tf.constant([1, 2]), bucket=tf.range(10))
    sigma = batch.distance.numpy().astype(np.float64) / 2
    # Variance of a normal variable that is cut at ±zσ.
    z = 0.5 / sigma
    inside = 1.0 - 2.0 * stats.norm.sf(z) - 2.0 * z * stats.norm.pdf(z)
    variance = sigma**2 * (inside + 2.0 * z**2 * stats.norm.sf(z))
    # 10,000 pixels tell a standard deviation to 0.7 percent.
    actual = (batch.images.numpy() - 0.5).std(axis=(1, 2, 3))
    np.testing.assert_allclose(actual, np.sqrt(variance), rtol=0.03)


def test_it_trains_with_autolabel_and_is_plotted(augmentation, digits):
    images, labels = digits
    # The logit of a class falls with the distance from its mean, −5·|x − μ|² + 5·|x|².
    means = np.stack([images[labels == k].mean(axis=0).ravel() / 255 for k in range(10)], axis=1)
    start = [10.0 * means, -5.0 * (means**2).sum(axis=0)]
    model = AutoLabelModel(linear_network((8, 8, 1), 10), augmentation, num_classes=10)
    model.network.set_weights(start)
    model.compile(keras.optimizers.SGD(0.05))
    batch = model.augment(tf.constant(images[:100]), tf.constant(labels[:100]))
    callback = AutoLabel((images[100:], labels[100:]), step_size=0.5)
    arguments = {"batch_size": 100, "shuffle": False, "verbose": 0, "callbacks": [callback]}
    history = model.fit(images[:100], labels[:100], **arguments).history
    # All labels start at 1: the loss of the first batch is the cross-entropy of the truth.
    logits = batch.images.numpy().reshape(100, -1).astype(np.float64) @ start[0] + start[1]
    losses = -np.log(numpy_softmax(logits)[np.arange(100), labels[:100]])
    np.testing.assert_allclose(history["loss"], [losses.mean()], rtol=1e-4)
    (record,) = callback.history
    ece, conf, acc = (record[name] for name in ("ece", "confidence", "accuracy"))
    # The more noise, the less is recognised.
    assert acc[-1] < acc[0]
    table = np.clip(1.0 - 0.5 * ece * np.sign(conf - acc), np.maximum(acc, 0.1), 1.0)
    np.testing.assert_allclose(model.label_policy.confidence, table, atol=1e-6)
    assert table.min() < 0.98
    figure = plots.plot_examples(model, images[:2], labels[:2])
    # The clean image and seven of the buckets, twice.
    assert sum(len(axes.images) for axes in figure.axes) == 2 * 8
