"""What a second worker gains: two workers of Ray, of a core each, beside one, with equal settings.

    pip install -e '.[benchmark,cluster]'
    python -m benchmarks.workers --output_dir=runs/benchmarks

A small ResNet is trained on Fashion-MNIST, with a checkpoint at the end, under AugMix and under
PGD, which computes eleven times as much between two exchanges. Workers are on tf_keras, and each
keeps to a core of its own, whatever --cores says. In each round both train together, then the first
of them alone. Both at the same time, each a network of its own on the half batch that it has of a
shared one, is what the two cores can give: what together falls short of that goes to what is
exchanged and to waiting for the slower of the two, the rest to the machine.
"""

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial

import tensorflow as tf
from absl import app, flags

import data
from benchmarks.rounds import FLAGS, Case, Way, benchmark, define_flags
from keras_autolabel.distribution import batches_under
from train import builders, run_folder
from train.cluster import WORKER_ENVIRONMENT
from train.settings import Settings

# Augmentation, images in a global batch, and images in a round.
CASES = ("augmix", 128, 24576), ("augmix", 512, 24576), ("pgd", 128, 3072)
TWO, ONE, APART = "two workers", "one worker", "two workers, a network each"
WORKERS = 2


class Worker:
    """A process on a core of its own.

    Args:
        number: Of this worker, from 0.
        addresses: Of all of them.
        dataset: Name of the images.
    """

    def __init__(self, number: int, addresses: list[str], dataset: str) -> None:
        # Threads that are made from here on stay there, too.
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})
        task = {"type": "worker", "index": number}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        tf.get_logger().setLevel("ERROR")
        self.several = tf.distribute.MultiWorkerMirroredStrategy()
        self.splits = data.load(dataset)
        self.folder = tempfile.TemporaryDirectory()
        self.runs: dict[tuple[str, str, int], Callable[[], float]] = {}

    def build(self, way: str, augmentation: str, batch_size: int, images: int, seed: int) -> None:
        """Makes what ``run`` runs."""
        strategy = self.several if way == TWO else tf.distribute.get_strategy()
        size = batch_size // WORKERS if way == APART else batch_size
        # Labels that nothing has to update cost the same in a step.
        settings = Settings(augmentation=augmentation, labels="one_hot", batch_size=size, seed=seed)
        model = builders.build_model(settings, self.splits, strategy)
        folder = os.path.join(self.folder.name, f"{way} {augmentation} {size}")
        checkpoints = run_folder.Checkpoints(model, folder)
        shared = partial(self.splits.train.training_batches, batch_size=size, seed=seed, epochs=99)
        batches = batches_under(strategy, shared)
        steps = images // batch_size

        def run() -> float:
            times = []
            # Its end is left out: TensorFlow waits seconds for a stream of batches to close.
            clock = tf.keras.callbacks.LambdaCallback(
                on_train_begin=lambda logs: times.append(time.perf_counter()),
                on_train_end=lambda logs: times.append(time.perf_counter()),
            )
            model.fit(batches, steps_per_epoch=steps, callbacks=[checkpoints, clock], verbose=0)
            return times[1] - times[0]

        self.runs[way, augmentation, batch_size] = run

    def run(self, *what: str | int) -> float:
        """Trains what ``build`` made of a way, augmentation and batch size; says how long."""
        return self.runs[what]()


class Group:
    """The workers, which start when they are first needed."""

    def __init__(self) -> None:
        self.workers: list = []
        self.seconds = 0.0

    def build(self, way: str, augmentation: str, batch_size: int, images: int) -> Callable[[], int]:
        """A function that trains in one way, and returns on how many images."""
        import ray

        if not self.workers:
            self.start(ray)
        workers = self.workers[:1] if way == ONE else self.workers
        what = way, augmentation, batch_size
        ray.get([worker.build.remote(*what, images, FLAGS.seed) for worker in workers])

        def run() -> int:
            self.seconds += max(ray.get([worker.run.remote(*what) for worker in workers]))
            return images

        return run

    def trained(self) -> float:
        """Seconds that they have trained, by the slowest of them each time."""
        return self.seconds

    def start(self, ray) -> None:
        """Starts a Ray of this machine's cores."""
        ray.init(
            "local",
            num_cpus=WORKERS,
            include_dashboard=False,
            logging_config=ray.LoggingConfig(log_level="ERROR"),
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
        )
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(WORKERS)]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        for each in sockets:
            each.close()
        dataset = "fashion_mnist_small" if FLAGS.tiny else FLAGS.dataset
        remote = ray.remote(num_cpus=1)(Worker)
        self.workers = [remote.remote(n, addresses, dataset) for n in range(WORKERS)]


def cases() -> Iterator[Case]:
    """Global batches of two sizes under AugMix, and those of an attack."""
    group = Group()
    for augmentation, size, images in CASES[:1] if FLAGS.tiny else CASES:
        what = augmentation, size, 2 * size if FLAGS.tiny else images
        yield Case(
            f"{augmentation}, small ResNet, batches of {size}",
            [Way(way, partial(group.build, way, *what)) for way in (TWO, ONE, APART)],
            grows=("batch", size) if augmentation == "augmix" else None,
            clock=group.trained,
        )


def main(argv: list[str]) -> None:
    """Prints the table."""
    benchmark("workers", cases, argv)


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_enum("dataset", "fashion_mnist", list(data.DATASETS), "The images.")
    app.run(main)
