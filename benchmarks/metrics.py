"""How fast the expected calibration error is, beside NumPy and netcal; and what an import costs.

    python -m benchmarks.metrics

Predictions are made up: rows of probabilities in float32, 15 bins. NumPy's way is the shortest that
is right, ``bincount`` of the bins; it looks at nothing, where ours also refuses what is no
probability.
"""

import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import tensorflow as tf
from absl import app

import keras_autolabel as kal
from benchmarks.rounds import FLAGS, Case, Way, benchmark, define_flags, peak_megabytes

BINS = 15
STREAMED = 10_000
IMPORTS = """
import time
import tensorflow
start = time.process_time()
import keras_autolabel
print(time.process_time() - start)
"""


def predictions(size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 [M] and float32 [M, K]."""
    rng = np.random.default_rng(FLAGS.seed)
    logits = 3 * rng.standard_normal([size, classes], np.float32)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return rng.integers(classes, size=size).astype(np.int32), powers / powers.sum(-1, keepdims=True)


def by_numpy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """ECE by bincount."""
    confidence = probabilities.max(axis=-1)
    gap = (probabilities.argmax(axis=-1) == labels) - confidence
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return np.abs(np.bincount(bins, gap)).sum() / len(labels)


def ours(labels: np.ndarray, probabilities: np.ndarray) -> Callable[[], float]:
    """The function, in a graph."""
    ece = tf.function(kal.expected_calibration_error)
    labels, probabilities = tf.constant(labels), tf.constant(probabilities)
    return _with_value(lambda: ece(labels, probabilities))


def streamed(labels: np.ndarray, probabilities: np.ndarray) -> Callable[[], float]:
    """The Keras metric, batch after batch."""
    metric = kal.ExpectedCalibrationError()
    batches = [
        (tf.constant(labels[i : i + STREAMED]), tf.constant(probabilities[i : i + STREAMED]))
        for i in range(0, len(labels), STREAMED)
    ]

    @tf.function
    def add(labels, probabilities):
        metric.update_state(labels, probabilities)

    def ece():
        metric.reset_state()
        for batch in batches:
            add(*batch)
        return metric.result()

    return _with_value(ece)


def by_netcal(labels: np.ndarray, probabilities: np.ndarray) -> Callable[[], float]:
    """netcal's ECE."""
    from netcal.metrics import ECE

    return _with_value(lambda: ECE(BINS).measure(probabilities, labels))


def _with_value(ece: Callable[[], float]) -> Callable[[], None]:
    """A function whose ``value`` is the ECE that it found last."""

    def run():
        run.value = float(ece())

    return run


def found(run: Callable) -> str:
    """The value, for which all should be of one mind, and the memory that it took."""
    peak = peak_megabytes(run)
    return f"ECE {run.value:.5f}; {peak:.0f} MB at the peak"


def imports() -> Callable[[], None]:
    """Imports TensorFlow, then the package, in a Python of its own."""
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}

    def run():
        command = [sys.executable, "-c", IMPORTS]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        run.added.append(float(ended.stdout))

    run.added = []
    return run


def added(run: Callable) -> str:
    """What the package took, in the median."""
    return f"{statistics.median(run.added):.2f} s of it are those of keras_autolabel"


def cases() -> Iterator[Case]:
    """A million rows, imports, then how cost grows."""
    yield _case("ECE", 1000 if FLAGS.tiny else 1_000_000, 10)
    ways = [Way("tensorflow, then keras_autolabel", imports, added)]
    yield Case("import", ways, unit="process", clock="children")
    for size in (100,) if FLAGS.tiny else (1000, 10_000, 100_000):
        yield _case("ECE", size, 10, grows=("examples of 10 classes", size))
    for classes in (10,) if FLAGS.tiny else (10, 100, 1000, 21_841):
        size = 100 if FLAGS.tiny else 1000
        yield _case("ECE", size, classes, grows=("classes", classes))


def _case(what: str, size: int, classes: int, grows: tuple[str, float] | None = None) -> Case:
    data = predictions(size, classes)
    ways = [
        Way("keras_autolabel", partial(ours, *data), found),
        Way("keras_autolabel, streaming metric", partial(streamed, *data), found),
        Way("NumPy, bincount", lambda: _with_value(partial(by_numpy, *data)), found),
    ]
    if not grows:
        ways.append(Way("netcal", partial(by_netcal, *data), found))
        what = f"{what} of {size:,} × {classes}"
    return Case(what, ways, size, unit="row", grows=grows)


if __name__ == "__main__":
    define_flags()
    app.run(lambda argv: benchmark("metrics", cases, argv))
