"""What Keras 2 and Keras 3 wrote, and which of them reads it; ``tests/saved/make.py`` wrote it.

A SavedModel is read by all. A ``.keras`` or ``.weights.h5`` file of Keras 2 is read by Keras 3, not
the other way round. A ``tf.train.Checkpoint`` is read by the Keras that wrote it.
"""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from tests.saved.make import IMAGES, tiny_model

SAVED = pathlib.Path(__file__).parent / "saved"
IS_KERAS_3 = hasattr(keras, "ops")
WRITERS = ("keras_2", "keras_3")
# Kernel and bias as tests/saved/make.py sets them, on images of 0..217 of 255, by hand.
LOGITS = (IMAGES.reshape(2, 16) / 255.0) @ np.linspace(-1, 1, 48).reshape(16, 3) + [0.1, 0.2, 0.3]
TABLE = np.linspace(0.5, 1.0, 6).reshape(3, 2)


def blank_model():
    model = tiny_model()
    model.network.set_weights([np.zeros((16, 3)), np.zeros(3)])
    model.label_policy.confidence.assign(np.ones((3, 2)))
    return model


def read(kind, folder):
    if kind == "model.keras":
        return keras.models.load_model(str(folder / kind))
    model = blank_model()
    if kind == "checkpoint":
        checkpoint = tf.train.Checkpoint(model=model)
        checkpoint.read(str(folder / kind)).assert_existing_objects_matched()
    else:
        model.load_weights(str(folder / kind))
    return model


def is_readable(kind, writer):
    by_its_own = (writer == "keras_3") == IS_KERAS_3
    return by_its_own or (kind != "checkpoint" and writer == "keras_2")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", ["model.keras", "model.weights.h5", "checkpoint"])
def test_who_reads_a_file_of_whom(kind, writer):
    # Or "cannot be read" would be true of a file that is not there.
    assert list((SAVED / writer).glob(f"{kind}*"))
    if not is_readable(kind, writer):
        with pytest.raises((TypeError, ValueError, AssertionError)):
            read(kind, SAVED / writer)
        return
    model = read(kind, SAVED / writer)
    np.testing.assert_allclose(model(IMAGES), LOGITS, atol=1e-5)
    table = tf.convert_to_tensor(model.label_policy.confidence)
    np.testing.assert_allclose(table, TABLE, atol=1e-6)


@pytest.mark.parametrize("writer", WRITERS)
def test_all_read_a_saved_model(writer):
    loaded = tf.saved_model.load(str(SAVED / writer / "saved_model"))
    np.testing.assert_allclose(loaded(tf.constant(IMAGES))["logits"], LOGITS, atol=1e-5)
    np.testing.assert_allclose(loaded.label_table, TABLE, atol=1e-6)
