"""What every augmentation promises, ours and a user's own."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from keras_autolabel import (
    PGD,
    Augmentation,
    AugMix,
    AutoLabelModel,
    CutMix,
    HalfAdversarial,
    Mixup,
    RandAugment,
    SoftCrop,
)
from keras_autolabel.batch import to_float
from keras_autolabel.testing import check_augmentation
from tests.conftest import linear_network

SEED = tf.constant([2, 3])


@keras.utils.register_keras_serializable(package="tests")
class Noise(Augmentation):
    """A user's own, one short method: noise of σ = distance / 2."""

    def apply(self, images, labels, drawn, network=None):
        sigma = tf.reshape(drawn.distance / 2, [-1, 1, 1, 1])
        noise = tf.random.stateless_normal(tf.shape(images), drawn.seed)
        return self.moved(to_float(images) + sigma * noise, labels, drawn)


ALL = {
    "AugMix": AugMix(num_buckets=4, max_depth=2, operations=("rotate", "solarize", "equalize")),
    "RandAugment": RandAugment(num_buckets=3, num_operations=1, max_magnitude=4.0),
    "Mixup": Mixup(num_buckets=5, beta=0.4),
    "CutMix": CutMix(num_buckets=5, beta=0.4),
    "SoftCrop": SoftCrop(num_buckets=5, sigma=0.5),
    "PGD": PGD(epsilon=0.2, num_buckets=3, num_steps=2),
    "HalfAdversarial": HalfAdversarial(PGD(epsilon=0.2, num_buckets=3, num_steps=2)),
    "Noise": Noise(num_buckets=6),
}
every_augmentation = pytest.mark.parametrize("augmentation", ALL.values(), ids=ALL.keys())


@every_augmentation
@pytest.mark.parametrize("image_shape", [(16, 16, 3), (9, 7, 1)], ids=str)
def test_the_contract_holds(augmentation, image_shape):
    check_augmentation(augmentation, image_shape=image_shape, num_classes=4)


@every_augmentation
def test_a_graph_of_unknown_sizes_gives_the_same_batch(augmentation):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    network = linear_network((8, 8, 1), 3)

    def augment(images, labels):
        return augmentation(images, labels, seed=SEED, network=network)

    sizes = [None, 8, 8, 1] if augmentation.needs_network else [None, None, None, 1]
    signature = [tf.TensorSpec(sizes, tf.uint8), tf.TensorSpec([None], tf.int32)]
    graph = tf.function(augment, input_signature=signature)
    labels = np.array([0, 1, 2, 0, 1, 2], np.int32)
    eager = augment(images, labels)
    for one, other in zip(graph(images, labels), eager, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@every_augmentation
def test_what_is_drawn_comes_from_the_seed_alone_even_in_a_map(augmentation):
    labels = tf.zeros([500], tf.int32)
    seeds = tf.data.Dataset.from_tensor_slices([[1, 1], [1, 2]])
    first, second = seeds.map(lambda seed: augmentation.draw(labels, seed)).as_numpy_iterator()
    for drawn, seed in ((first, [1, 1]), (second, [1, 2])):
        for one, other in zip(drawn, augmentation.draw(labels, tf.constant(seed)), strict=True):
            np.testing.assert_array_equal(one, other)


@every_augmentation
def test_a_model_with_it_is_saved_and_loaded(augmentation, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(12) % 3
    model = AutoLabelModel(linear_network((8, 8, 1), 3), augmentation, num_classes=3, seed=5)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(images, labels, batch_size=6, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert int(again.draws) == 2 and again.label_policy.bucket_shape == augmentation.bucket_shape
    # The next step draws, labels and trains the same.
    for one in (model, again):
        one.train_on_batch(images, labels)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("cls", [AugMix, RandAugment, Mixup, CutMix, SoftCrop, Noise])
@pytest.mark.parametrize("num_buckets", [0, -1, 2.5, True, "3", None])
def test_a_number_of_buckets_that_is_none_is_refused(cls, num_buckets):
    with pytest.raises(ValueError, match=rf"num_buckets={num_buckets!r}"):
        cls(num_buckets=num_buckets)


@every_augmentation
def test_batches_that_cannot_be_right_are_refused(augmentation):
    network = linear_network((4, 4, 1), 3)
    images = np.zeros([2, 4, 4, 1], np.uint8)
    for wrong, labels, value in (
        (images[..., 0], [0, 1], r"\(2, 4, 4\)"),
        (images.astype(np.int64), [0, 1], "int64"),
        (images, ["a", "b"], "string"),
    ):
        with pytest.raises(ValueError, match=value):
            augmentation(wrong, labels, seed=SEED, network=network)
    for wrong, labels, value in (
        (images + 200.0, [0, 1], "divide by 255"),
        (images, [[0.5, 0.5], [0.0, 1.0]], "one-hot"),
        (images, [0.5, 1.0], "whole numbers"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=value):
            augmentation(wrong, labels, seed=SEED, network=network)


@every_augmentation
def test_a_batch_that_is_too_small_is_refused_in_graphs_too(augmentation):
    image, network = np.zeros([1, 4, 4, 1], np.uint8), linear_network((4, 4, 1), 3)

    def augment(images, labels):
        return augmentation(images, labels, seed=SEED, network=network).images

    signature = [tf.TensorSpec([None, 4, 4, 1], tf.uint8), tf.TensorSpec([None], tf.int32)]
    graph = tf.function(augment, input_signature=signature)
    if augmentation.smallest_batch == 1:
        assert augment(image, [0]).shape == graph(image, [0]).shape == image.shape
        return
    with pytest.raises(ValueError, match="at least 2 images in a batch. Received: 1"):
        augment(image, [0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 2 images"):
        graph(image, [0])
    assert len(graph(np.repeat(image, 2, axis=0), [0, 1])) == 2


@every_augmentation
def test_what_needs_the_network_says_so(augmentation):
    images, labels = np.zeros([2, 4, 4, 1], np.uint8), [0, 1]
    if not augmentation.needs_network:
        augmentation(images, labels, seed=SEED)
        return
    with pytest.raises(ValueError, match=f"{type(augmentation).__name__} needs the network"):
        augmentation(images, labels, seed=SEED)
    with pytest.raises(ValueError, match=f"{type(augmentation).__name__}.*in a dataset"):
        augmentation.dataset_transform(seed=1)


def test_an_augmentation_without_apply_says_what_is_missing():
    class Empty(Augmentation):
        pass

    with pytest.raises(TypeError, match="Empty must have a method apply"):
        Empty()(np.zeros([1, 4, 4, 1], np.uint8), [0], seed=SEED)


def test_what_a_subclass_passes_on_is_in_its_config():
    class Stronger(Noise):
        def __init__(self, *, strength=2.0, **kwargs):
            super().__init__(**kwargs)
            self.strength = strength

    assert Stronger(num_buckets=3).get_config() == {"strength": 2.0, "num_buckets": 3}


# --- the contract bites ---------------------------------------------------------------------------


class _Broken(Noise):
    """Noise with one promise broken."""

    def __init__(self, promise="", *, num_buckets=4):
        super().__init__(num_buckets=num_buckets)
        self.promise = promise
        self.calls = 0

    def draw(self, labels, seed, bucket=None):
        if self.promise == "same seed":
            self.calls += 1
            seed = seed + self.calls
        if self.promise == "another seed":
            seed = tf.constant([0, 0])
        if self.promise == "asked for":
            bucket = None
        drawn = super().draw(labels, seed, bucket)
        if self.promise == "in their buckets":
            drawn = drawn._replace(distance=1.0 - drawn.distance)
        return drawn

    def apply(self, images, labels, drawn, network=None):
        batch = super().apply(images, labels, drawn, network)
        changes = {
            "labels must stay": {"labels": batch.labels + 1},
            "images must lie": {"images": batch.images + 0.5},
            "distance must be": {"distance": tf.cast(batch.distance, tf.float64)},
            "mix must have": {"mix": batch.mix[:-1]},
            "partners must be": {"partners": batch.partners + 1},
        }
        return batch._replace(**changes.get(self.promise, {}))


@pytest.mark.parametrize(
    "promise",
    [
        *("same seed", "another seed", "asked for", "in their buckets", "labels must stay"),
        *("images must lie", "distance must be", "mix must have", "partners must be"),
    ],
)
def test_a_broken_promise_is_named(promise):
    with pytest.raises(AssertionError, match=promise):
        check_augmentation(_Broken(promise), image_shape=(4, 4, 1))


class _NotInGraphs(Noise):
    def apply(self, images, labels, drawn, network=None):
        batch = super().apply(images, labels, drawn, network)
        wrong = 1.0 - batch.images
        return batch if tf.executing_eagerly() else batch._replace(images=wrong)


def test_a_graph_that_differs_is_named():
    with pytest.raises(AssertionError, match="a graph must give"):
        check_augmentation(_NotInGraphs(), image_shape=(4, 4, 1))


@keras.utils.register_keras_serializable(package="tests")
class _Forgetful(Noise):
    def __init__(self, *, num_buckets=4, constant=0.0):
        super().__init__(num_buckets=num_buckets)
        self.constant = constant

    def apply(self, images, labels, drawn, network=None):
        return self.moved(0.5 * to_float(images) + self.constant, labels, drawn)

    def get_config(self):
        return {"num_buckets": self.num_buckets}


def test_a_config_that_forgets_is_named():
    with pytest.raises(AssertionError, match="the config"):
        check_augmentation(_Forgetful(constant=0.25), image_shape=(4, 4, 1))


class _SameEpoch(Noise):
    def dataset_transform(self, *, seed):
        seeds = tf.constant([seed, 0])
        return lambda data: data.map(lambda x, y: (self(x, y, seed=seeds), y))


def test_a_dataset_that_repeats_a_batch_is_named():
    with pytest.raises(AssertionError, match="drawn anew"):
        check_augmentation(_SameEpoch(), image_shape=(4, 4, 1))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
