"""What several tests share: real images, an augmentation and a network to follow by hand."""

import contextlib
import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits, load_sample_images
from tensorflow import keras

from keras_autolabel import Augmentation
from keras_autolabel.augment.augmentation import Draw
from keras_autolabel.batch import AugmentedBatch, to_float

ROOT = Path(__file__).parents[1]
# Few tests that take long each, the longest first; the rest is spread over what time they leave.
SLOWEST = (
    "compare_test.py",
    "keras_examples_test.py",
    "distribution_test.py",
    "benchmarks_test.py",
    "training_test.py",
    "evaluate_test.py",
)


# Graphs that run a few times gain less from being optimised than it takes, datasets too.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
_ITERATE = tf.data.Dataset.__iter__


def _iterate_untuned(dataset: tf.data.Dataset) -> Iterator:
    """Without the thread that tunes a dataset: where two processes share two cores it may sleep,
    when its iterator goes, for as long as this was there before, and everybody waits for it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return _ITERATE(dataset.with_options(options))


tf.data.Dataset.__iter__ = _iterate_untuned


def pytest_collection_finish() -> None:
    """What was imported stays: no search for garbage has to visit it again."""
    gc.freeze()


def pytest_collection_modifyitems(items) -> None:
    """The files that take longest come first: no core waits for one of them at the end."""
    place = {name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@keras.utils.register_keras_serializable(package="tests")
class Dimming(Augmentation):
    """Bucket n of N multiplies an image by 1 - n/N; in training the label chooses the bucket."""

    initial_confidence = 0.7
    # Fits every policy: its batches are what the test says they are.
    offers = None

    def __init__(self, *, num_buckets: int = 3):
        super().__init__(num_buckets=num_buckets)

    def draw(self, labels, seed, bucket=None):
        bucket = labels % self.num_buckets if bucket is None else bucket
        bucket = tf.broadcast_to(bucket, tf.shape(labels))
        return Draw(tf.cast(bucket, tf.float32) / self.num_buckets, bucket, seed)

    def apply(self, images, labels, drawn, network=None) -> AugmentedBatch:
        left = tf.reshape(1.0 - drawn.distance, [-1, 1, 1, 1])
        return self.moved(left * to_float(images), labels, drawn)


def linear_network(image_shape, num_classes: int, *, seed: int = 0, scale: float = 1.0):
    """Flatten and one Dense layer with weights from NumPy."""
    network = keras.Sequential(
        [keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    )
    rng = np.random.default_rng(seed)
    network.set_weights([scale * rng.normal(size=w.shape) for w in network.get_weights()])
    return network


def summaries(folder) -> dict[tuple[str, int], tf.compat.v1.Summary.Value]:
    """What the event files of a folder, and of no folder below it, hold by tag and step."""
    found = {}
    for path in sorted(folder.glob("*.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found |= {(value.tag, event.step): value for value in event.summary.value}
    return found


def numpy_softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax in double precision."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def numpy_calibration(labels, probabilities, num_bins=15) -> tuple[float, float, float]:
    """ECE, Conf and Acc as section 3 of the paper writes them, one bin after the other."""
    confidence = probabilities.max(axis=-1).astype(np.float64)
    correct = (probabilities.argmax(axis=-1) == labels).astype(np.float64)
    # Left-closed bins; 1.0 belongs to the last.
    index = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    ece = 0.0
    for r in range(num_bins):
        in_bin = index == r
        if in_bin.any():
            gap = abs(correct[in_bin].mean() - confidence[in_bin].mean())
            ece += in_bin.sum() / len(labels) * gap
    return ece, confidence.mean(), correct.mean()


@pytest.fixture(scope="session")
def photographs() -> np.ndarray:
    """uint8 [8, 37, 50, 3]: crops of two photographs, odd and not square."""
    corners = [(20, 40), (150, 200), (250, 420), (330, 560)]
    crops = [
        image[top : top + 37, left : left + 50]
        for image in load_sample_images().images
        for top, left in corners
    ]
    return np.stack(crops)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [300, 8, 8, 1] and the ten classes."""
    images, labels = load_digits(return_X_y=True)
    images = (images[:300].reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8)
    return images, labels[:300].astype(np.int32)


@pytest.fixture
def eagerly():
    """No graph at all, which takes longest to make: where nothing depends on one."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(params=["mixed_bfloat16", "mixed_float16"])
def mixed_precision(request):
    """The name of a mixed precision policy that is in force."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy(before)


# --- commands, as a user runs them ----------------------------------------------------------------

# Forks for each command after the imports, which take longer than the commands.
SERVER = """
import contextlib, gc, json, os, runpy, sys
gc.set_threshold(100_000, 20, 100)
import scipy.ndimage, sklearn.datasets, sklearn.model_selection, tensorflow
with contextlib.suppress(ModuleNotFoundError):  # tests of the library alone may not see it
    import train.comparison_report, train.evaluation, train.training

# What is frozen the end of a command does not visit, which would take it a second.
gc.freeze()
for line in sys.stdin:
    printed, *words = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            path = f"{printed}.{name}"
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        while "=" in words[0]:
            name, _, os.environ[name] = words.pop(0).partition("=")
        module, *_ = sys.argv = words
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
STREAMS = ("stdout", "stderr")


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command left: its status and what it printed."""

    status: int
    stdout: str
    stderr: str

    @classmethod
    def printed(cls, status: int, path: Path) -> "Ended":
        """With what was printed into ``path.stdout`` and ``path.stderr``."""
        return cls(status, *(Path(f"{path}.{name}").read_text("utf-8") for name in STREAMS))

    def message(self) -> str:
        """The last line of stderr, which is all that a refused command may say beside usage."""
        assert self.status == 1, self.stdout + self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        return self.stderr.strip().splitlines()[-1]


def environment() -> dict[str, str]:
    """The environment of a command: without the notes that TensorFlow prints at import."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


Run = Callable[[list[list[str]], Path], list[Ended]]


@contextlib.contextmanager
def command_server(**variables: str) -> Iterator[Run]:
    """What runs ``[module, *arguments]`` one after the other, each in a process of its own.

    A word ``NAME=VALUE`` in front of the module is a variable of its environment.
    """
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    env = {**environment(), **variables}
    with subprocess.Popen(command, cwd=ROOT, env=env, **options) as server:

        def run(commands: list[list[str]], folder: Path) -> list[Ended]:
            folder.mkdir(parents=True, exist_ok=True)
            ended = []
            for number, command in enumerate(commands):
                printed = folder / str(number)
                print(json.dumps([str(printed), *command]), file=server.stdin, flush=True)
                ended.append(Ended.printed(int(server.stdout.readline()), printed))
            return ended

        yield run


@pytest.fixture(scope="session")
def run_commands() -> Iterator[Run]:
    """Runs commands as ``command_server`` does."""
    with command_server() as run:
        yield run
