"""Runs benchmarks, each way once, with sizes that say nothing.

    python -m tests.benchmarks.all_of_them <folder> <names of benchmarks>

In one process, since importing TensorFlow takes longer than they do; with chains of one operation
and a linear network, since graphs take longest.
"""

import functools
import importlib
import sys

import tensorflow as tf

import keras_autolabel as kal
import train.small_resnet
from benchmarks import rounds
from tests.conftest import linear_network


def main(folder: str, names: list[str]) -> None:
    """Runs benchmarks, and has them write into a folder."""
    train.small_resnet.small_resnet = lambda shape, classes, **_: linear_network(shape, classes)
    # AutoGraph takes most of the time of a trace, and there is nothing here for it to do.
    tf.function = functools.partial(tf.function, autograph=False)
    for name in ("AugMix", "RandAugment"):
        setattr(kal, name, functools.partial(getattr(kal, name), operations=("solarize",)))
    # Once to see whether it runs, and not again to take its time, of which the tests of rounds are.
    rounds.LONG_FIRST_SECONDS = 0.0
    rounds.seconds_of = lambda run, clock: 1.0
    rounds.define_flags()
    rounds.FLAGS(["benchmarks", "--tiny", "--rounds=1", f"--output_dir={folder}"])
    for name in names:
        # It makes no graphs but those of the package.
        tf.config.run_functions_eagerly(name == "epoch")
        rounds.benchmark(name, importlib.import_module(f"benchmarks.{name}").cases, [name])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
