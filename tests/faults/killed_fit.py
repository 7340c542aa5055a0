"""Runs ``train.fit`` with a tiny network, and kills it with SIGKILL at a moment that is named.

The first argument is the moment, ``never``, or ``STEP:PART`` or ``results:SECONDS``: STEP steps of
this process are done, and PART of the time of one is over; the images are measured, drawn and
exported since so many seconds. ``first:SECONDS``: the first step, which is traced, is under way.
The others are those of ``train.fit``.
"""

import os
import runpy
import signal
import sys
import threading
import time

from tensorflow import keras

from train import builders, run_folder, training

moment = sys.argv.pop(1)


def die_in(seconds: float) -> None:
    """Kills this process when so many seconds are over."""
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


class Dying(run_folder.Checkpoints):
    """Kills the process in a step."""

    steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        after, _, value = moment.partition(":")
        if after == "first" and not self.steps:
            die_in(float(value))
        elif after.isdigit() and self.steps == int(after):
            die_in(float(value) * self.took)
        self.began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.took = time.monotonic() - self.began
        self.steps += 1


def tiny_network(settings, train, num_classes):
    """With BatchNorm, which has a state of its own."""
    return keras.Sequential(
        [
            keras.Input(train.image_shape),
            keras.layers.Conv2D(4, 3, strides=2),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(num_classes),
        ]
    )


def measure(*arguments):
    """The first thing that is done behind training."""
    if moment.startswith("results:"):
        die_in(float(moment.partition(":")[2]))
    return measured(*arguments)


measured, training.measure = training.measure, measure
builders.build_network = tiny_network
run_folder.Checkpoints = Dying
sys.argv[0] = "train.fit"
runpy.run_module("train.fit", run_name="__main__", alter_sys=True)
