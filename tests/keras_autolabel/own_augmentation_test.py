import ast
import importlib.util
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow import keras

from keras_autolabel import AutoLabel, AutoLabelModel, plots
from keras_autolabel.batch import to_float, without_partner
from keras_autolabel.buckets import uniform_in_bucket
from tests.conftest import linear_network, numpy_softmax

README = pathlib.Path(__file__).parents[2] / "README.md"
MOST_LINES = 15


class GaussianNoise:
    """An object that merely has what is needed: noise of σ = distance / 2."""

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


def _python_block() -> str:
    """The block of README.md that defines the class."""
    if not README.is_file():
        pytest.skip("there is no README.md")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    blocks = [block for block in blocks if "class GaussianNoise" in block]
    if not blocks:
        pytest.skip("README.md shows no class GaussianNoise")
    return blocks[0]


@pytest.fixture(params=["here", "README"])
def augmentation(request, tmp_path):
    """An instance of the class above, or of the one that README.md shows."""
    if request.param == "here":
        return GaussianNoise()
    path = tmp_path / "shown_in_readme.py"
    path.write_text(_python_block(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("shown_in_readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.GaussianNoise()


def test_it_takes_no_more_than_15_lines():
    here = pathlib.Path(__file__).read_text(encoding="utf-8")
    for source, method in ((here, "__call__"), (_python_block(), "apply")):
        (node,) = (
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.ClassDef) and node.name == "GaussianNoise"
        )
        assert node.end_lineno - node.lineno + 1 <= MOST_LINES
        methods = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
        assert methods == {method}


def test_the_standard_deviation_grows_with_the_distance(augmentation):
    (size,) = augmentation.bucket_shape
    images, labels = tf.fill([size, 100, 100, 1], 0.5), tf.range(size)
    batch = augmentation(images, labels, seed=tf.constant([1, 2]), bucket=tf.range(size))
    np.testing.assert_array_equal(batch.bucket, range(size))
    distance = batch.distance.numpy().astype(np.float64)
    assert np.all((np.arange(size) / size <= distance) & (distance <= (np.arange(size) + 1) / size))
    actual = (batch.images.numpy() - 0.5).std(axis=(1, 2, 3))
    # The first image is too close to be cut at 0 or 1: it tells σ at a distance of 1.
    sigma = actual[0] / distance[0] * distance
    # Variance of a normal variable that is cut at ±zσ.
    z = 0.5 / sigma
    inside = 1.0 - 2.0 * stats.norm.sf(z) - 2.0 * z * stats.norm.pdf(z)
    variance = sigma**2 * (inside + 2.0 * z**2 * stats.norm.sf(z))
    # 10,000 pixels tell a standard deviation to 0.7 percent.
    np.testing.assert_allclose(actual, np.sqrt(variance), rtol=0.05)


def test_one_bucket_for_all_images_is_drawn_and_plotted(augmentation, digits):
    images, labels = (part[:5] for part in digits)
    batch = augmentation(images, labels, seed=tf.constant([1, 2]), bucket=3)
    np.testing.assert_array_equal(batch.bucket, [3] * 5)
    distance = batch.distance.numpy()
    assert len(set(distance)) == 5 and np.all((distance >= 0.3) & (distance <= 0.4))
    network = linear_network((8, 8, 1), 10)
    model = AutoLabelModel(network, augmentation, num_classes=10)
    figure = plots.plot_examples(model, images[:2], labels[:2])
    # The clean image and seven of the buckets, twice.
    assert sum(len(axes.images) for axes in figure.axes) == 2 * 8


def test_it_trains_with_autolabel(augmentation, digits):
    images, labels = digits
    # The logit of a class falls with the distance from its mean, -5·|x - μ|² + 5·|x|².
    means = np.stack([images[labels == k].mean(axis=0).ravel() / 255 for k in range(10)], axis=1)
    network = linear_network((8, 8, 1), 10)
    start = [10.0 * means, -5.0 * (means**2).sum(axis=0)]
    network.set_weights(start)
    model = AutoLabelModel(network, augmentation, num_classes=10)
    model.compile(keras.optimizers.SGD(0.05))
    size = augmentation.bucket_shape[0]
    # All labels start at 1: the loss of the first batch is the cross-entropy of the truth.
    np.testing.assert_array_equal(model.label_policy.confidence, [1.0] * size)
    batch = model.augment(tf.constant(images[:100]), tf.constant(labels[:100]))
    callback = AutoLabel((images[100:], labels[100:]), step_size=0.5)
    history = model.fit(
        images[:100],
        labels[:100],
        batch_size=100,
        epochs=2,
        shuffle=False,
        callbacks=[callback],
        verbose=0,
    ).history
    logits = batch.images.numpy().reshape(100, -1).astype(np.float64) @ start[0] + start[1]
    losses = -np.log(numpy_softmax(logits)[np.arange(100), labels[:100]])
    np.testing.assert_allclose(history["loss"][0], losses.mean(), rtol=1e-4)
    table = np.ones(size)
    for record in callback.history:
        ece, conf, acc = (record[name] for name in ("ece", "confidence", "accuracy"))
        table = np.clip(table - 0.5 * ece * np.sign(conf - acc), np.maximum(acc, 0.1), 1.0)
        np.testing.assert_allclose(record["label"], table, atol=1e-6)
        # The more noise, the less is recognised.
        assert acc[-1] < acc[0]
    assert table.min() < 0.98


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
