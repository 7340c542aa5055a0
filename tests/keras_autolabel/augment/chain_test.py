"""The compiled chain is the vectorised one, which image_ops_test.py holds against Pillow."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from keras_autolabel import AugMix
from keras_autolabel.augment import chain
from keras_autolabel.augment.image_ops import GEOMETRIC
from keras_autolabel.augment.randaugment import MAGNITUDE_OF_LEVEL, RANDAUGMENT_OPERATIONS
from tests.keras_autolabel.augment.image_ops_test import pillow

NAMES = RANDAUGMENT_OPERATIONS
SEED = tf.constant([2, 3])
# Where which way is taken is tested, and not what it gives: XLA takes long for all of them.
AUGMIX = AugMix(operations=("rotate", "solarize"))


def _every_operation(images: np.ndarray) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Every image with every operation, and with none, at levels of both signs."""
    levels = np.array([-10.0, -2.4, 0.0, 1.7, 9.9], np.float32)
    index, operation, level = np.meshgrid(np.arange(len(images)), np.arange(-1, len(NAMES)), levels)
    magnitudes = [MAGNITUDE_OF_LEVEL[name](tf.constant(level)) for name in NAMES]
    magnitude = np.choose(operation % len(NAMES), magnitudes)
    return images[index.flat], operation.reshape(-1, 1).astype(np.int32), magnitude.reshape(-1, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_operation_alone_gives_what_all_images_together_give(photographs, channels):
    images, operation, magnitude = _every_operation(photographs[:2, ..., :channels])
    found = chain.one_by_one(NAMES)(images, operation, magnitude).numpy().astype(int)
    expected = chain.all_together(images, operation, magnitude, NAMES).numpy()
    off = np.abs(found - expected).reshape(len(images), -1)
    moved = np.isin(operation[:, 0], [NAMES.index(name) for name in GEOMETRIC])
    assert not off[~moved].any()
    # The last bit of a coordinate decides where the mean of four pixels is cut to a whole number.
    assert off.max() <= 1 and np.mean(off[moved] > 0) < 1e-3


def test_chains_of_point_operations_are_those_of_pillow(photographs):
    # The first is one that its magnitude changes.
    names = ("posterize", "solarize", "autocontrast", "equalize")
    images = np.tile(photographs, [4, 1, 1, 1])
    rng = np.random.default_rng(0)
    operation = rng.integers(-1, 4, [len(images), 3]).astype(np.int32)
    level = rng.uniform(-10.0, 10.0, [len(images), 3]).astype(np.float32)
    found = chain.apply_chain(tf.constant(images), operation, level, names, MAGNITUDE_OF_LEVEL)
    for row, image in enumerate(images):
        for index, strength in zip(operation[row], level[row], strict=True):
            if index >= 0:
                magnitude = float(MAGNITUDE_OF_LEVEL[names[index]](tf.constant(strength)))
                image = pillow(image, names[index], magnitude)
        np.testing.assert_array_equal(found[row], image)


def _ways(monkeypatch) -> list[str]:
    """Which of the two ways chains are taken, from now on."""
    taken = []

    def spy(name):
        original = getattr(chain, name)

        def call(*arguments):
            taken.append(name)
            return original(*arguments)

        monkeypatch.setattr(chain, name, call)

    spy("one_by_one")
    spy("all_together")
    return taken


def test_compiled_on_the_cpu_where_it_pays_together_elsewhere(monkeypatch):
    taken = _ways(monkeypatch)
    augment = functools.partial(AUGMIX, labels=[0, 1], seed=SEED)
    small, large = tf.zeros([2, 8, 8, 1], tf.uint8), tf.zeros([2, 20, 20, 3], tf.uint8)
    augment(small)
    augment(large)
    augment(large)
    assert taken == ["all_together", "one_by_one", "one_by_one"]
    devices = [*tf.config.list_physical_devices(), tf.config.PhysicalDevice("/gpu", "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda: devices)
    # In a graph, what nothing places goes to the accelerator.
    tf.function(augment).get_concrete_function(large)

    @tf.function
    def placed():
        with tf.device("CPU"):
            return augment(large)

    placed.get_concrete_function()
    data = tf.data.Dataset.from_tensors((large, tf.constant([0, 1])))
    data.apply(AUGMIX.dataset_transform(seed=1))
    assert taken[3:] == ["all_together", "one_by_one", "one_by_one"]


def test_it_is_compiled_for_shapes_and_not_for_values(photographs):
    compiled = chain.one_by_one(("rotate", "posterize", "color"))
    operation = np.arange(7, dtype=np.int32).reshape(7, 1) % 3
    batch = photographs[:7], operation, np.float32(operation)
    # What XLA takes for a constant is no parameter, and is compiled again for every value.
    (entry,) = re.findall(r"entry_computation_layout=\{\((.*?)\)->", _hlo(compiled, batch))
    assert len(re.findall(r"\b[uf]\d+\[|\bs32\[", entry)) == 3
    before = compiled.experimental_get_tracing_count()
    for size in (7, 7, 5, 7, 5):
        compiled(*(tf.constant(part[:size]) for part in batch))
    # The last batch of an epoch is another shape; sizes that change are traced as unknown.
    assert compiled.experimental_get_tracing_count() - before <= 2


def test_no_image_stays_no_image():
    images = tf.zeros([0, 32, 32, 3], tf.uint8)
    signature = [tf.TensorSpec([None, 32, 32, 3], tf.uint8), tf.TensorSpec([None], tf.int32)]

    def augment(images, labels):
        return AUGMIX(images, labels, seed=SEED)

    for way in (augment, tf.function(augment, input_signature=signature)):
        assert way(images, tf.zeros([0], tf.int32)).images.shape == (0, 32, 32, 3)


def _hlo(compiled, batch) -> str:
    return compiled.experimental_get_compiler_ir(*map(tf.constant, batch))("hlo")
