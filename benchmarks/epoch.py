"""What learned labels cost at CIFAR's proportions, beside an epoch of training without them.

    python -m benchmarks.epoch

An epoch trains a small ResNet on 45,000 images of 32×32×3 in batches of 128; at its end AutoLabel
updates the labels from a hold-out of 5,000. A ratio is what the update adds: 0.1 makes an epoch
1.1 × as long. Training is timed on a part of the images, and the update with the whole hold-out in
every bucket on a part of that, since both grow as their number; the update by default in full.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from absl import app
from tensorflow import keras

import keras_autolabel as kal
from benchmarks.rounds import FLAGS, Case, Way, benchmark, define_flags
from train.small_resnet import small_resnet

TRAIN, HOLDOUT, BATCH, CLASSES = 45_000, 5_000, 128, 10
DEFAULT, WHOLE = "update, default", "update, whole hold-out (examples_per_bucket=None)"


def examples(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and classes in turn."""
    rng = np.random.default_rng(FLAGS.seed)
    images = rng.integers(256, size=[size, 32, 32, 3], dtype=np.uint8)
    return images, np.arange(size, dtype=np.int32) % CLASSES


def model_of(augmentation: kal.Augmentation) -> kal.AutoLabelModel:
    """A small ResNet, compiled."""
    keras.utils.set_random_seed(FLAGS.seed)
    network = small_resnet((32, 32, 3), CLASSES, mean=0.5, std=0.25)
    model = kal.AutoLabelModel(network, augmentation, num_classes=CLASSES)
    model.compile("sgd", metrics=["accuracy"])
    return model


def epoch(model: kal.AutoLabelModel, batches: int) -> Callable[[], float]:
    """``fit`` on so many batches; returns which part of an epoch that is."""
    images, labels = examples(BATCH * batches)

    def run():
        model.fit(images, labels, batch_size=BATCH, verbose=0)
        return len(images) / TRAIN

    return run


def update(model: kal.AutoLabelModel, holdout: int, **arguments) -> Callable[[], None]:
    """The end of an epoch, which measures the hold-out and updates the table."""
    callback = kal.AutoLabel(examples(holdout), **arguments)
    callback.set_model(model)
    callback.on_train_begin()

    def run():
        callback.on_epoch_end(len(callback.history), {})

    return run


def part_of_update(model: kal.AutoLabelModel, part: int) -> Callable[[], float]:
    """``update`` with so many images of the hold-out, all of them in every bucket."""
    run = update(model, part, examples_per_bucket=None)

    def run_part():
        run()
        return part / HOLDOUT

    return run_part


def cases() -> Iterator[Case]:
    """Three augmentations, then the update by its buckets and its hold-out."""
    # Of PGD fewer images: each takes the time of ten.
    settings = [
        ("AugMix, 30 buckets", kal.AugMix(num_buckets=10, max_depth=3), 16, 256),
        ("mixup, 10 buckets", kal.Mixup(num_buckets=10), 16, 512),
        ("PGD with 10 steps, 10 buckets", kal.PGD(epsilon=8 / 255, num_steps=10), 4, 128),
    ]
    if FLAGS.tiny:
        settings = [("mixup, 2 buckets", kal.Mixup(num_buckets=2), 1, 20)]
    for what, augmentation, batches, part in settings:
        model = model_of(augmentation)
        ways = [
            Way("an epoch without AutoLabel", partial(epoch, model, batches)),
            Way(DEFAULT, partial(update, model, 20 if FLAGS.tiny else HOLDOUT)),
            Way(WHOLE, partial(part_of_update, model, part)),
        ]
        yield Case(what, ways, unit="epoch")
    for buckets in (1,) if FLAGS.tiny else (1, 3, 10, 30):
        yield _grown(buckets, 20 if FLAGS.tiny else 256, ("buckets", buckets))
    for holdout in (20,) if FLAGS.tiny else (256, 1024, 4096):
        yield _grown(2, holdout, ("hold-out, images in two buckets", holdout))


def _grown(buckets: int, holdout: int, grows: tuple[str, float]) -> Case:
    model = model_of(kal.Mixup(num_buckets=buckets))
    model.fit(*examples(BATCH), batch_size=BATCH, verbose=0)
    ways = [
        Way(DEFAULT, partial(update, model, holdout)),
        Way(WHOLE, partial(update, model, holdout, examples_per_bucket=None)),
    ]
    return Case("mixup", ways, unit="update", grows=grows)


if __name__ == "__main__":
    define_flags()
    app.run(lambda argv: benchmark("epoch", cases, argv))
