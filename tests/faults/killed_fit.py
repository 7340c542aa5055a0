"""Runs ``train.fit`` with a tiny network, and has something happen to it at a moment.

It is killed with SIGKILL, or, by ``fill MOMENT:FILE``, a file takes all that is left on its disk.

The first argument is the moment, ``never``, or ``STEP:PART`` or ``results:SECONDS``: STEP steps of
this process are done, and PART of the time of one is over; the images are measured, drawn and
exported since so many seconds. ``first:SECONDS``: the first step, which is traced, is under way.
The others are those of ``train.fit``.
"""

import contextlib
import os
import runpy
import signal
import sys
import threading
import time

from tensorflow import keras

from train import builders, run_folder, training

what, _, moment = sys.argv.pop(1).rpartition(" ")


def happen(value: str, unit: float = 1.0) -> None:
    """Kills this process when so many units are over, or fills a disk at once."""
    if what != "fill":
        threading.Timer(float(value) * unit, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return
    with contextlib.suppress(OSError), open(value, "wb", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


class Dying(run_folder.Checkpoints):
    """Kills the process in a step."""

    steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        after, _, value = moment.partition(":")
        if after == "first" and not self.steps:
            happen(value)
        elif after.isdigit() and self.steps == int(after):
            happen(value, self.took)
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
        happen(moment.partition(":")[2])
    return measured(*arguments)


measured, training.measure = training.measure, measure
builders.build_network = tiny_network
run_folder.Checkpoints = Dying
sys.argv[0] = "train.fit"
runpy.run_module("train.fit", run_name="__main__", alter_sys=True)
