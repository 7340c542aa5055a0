"""One epoch of AutoLabel on digits gives the same labels whatever the stack.

The numbers were computed with TensorFlow 2.21 and Keras 3.15; each stack has to meet them. That
they are right, the tests of the parts say: this is about the stacks agreeing.
"""

import numpy as np
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal

EXPECTED = [
    [0.738845, 0.734849, 0.734960],
    [0.741272, 0.730955, 0.730819],
    [0.742947, 0.730976, 0.724639],
]


def network_with_known_weights():
    network = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    for weight in network.trainable_variables:
        rng = np.random.default_rng(len(weight.shape))
        weight.assign(0.1 * rng.normal(size=weight.shape).astype(np.float32))
    return network


def test_the_table_after_an_epoch_is_the_same_on_all_stacks():
    splits = data.load("digits", seed=1)
    augmix = kal.AugMix(num_buckets=3)
    table = kal.LabelTable(augmix.bucket_shape, initial=0.7)
    model = kal.AutoLabelModel(
        network_with_known_weights(), augmix, num_classes=10, label_policy=table, seed=1
    )
    model.compile(keras.optimizers.SGD(0.1))
    batches = splits.train.training_batches(batch_size=64, seed=1, epochs=1)
    holdout = splits.holdout.images, splits.holdout.labels
    callback = kal.AutoLabel(holdout, step_size=0.2, examples_per_bucket=None)
    model.fit(batches, verbose=0, callbacks=[callback])
    np.testing.assert_allclose(tf.convert_to_tensor(table.confidence), EXPECTED, atol=1e-4)
