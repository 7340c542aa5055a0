"""Trains an image classifier on augmented images, measures it, exports it and draws it.

Without a flag it trains AugMix + AutoLabel on scikit-learn's handwritten digits:

    python -m train.fit

The paper's comparison on Fashion-MNIST, with one-hot labels and with learned labels:

    python -m train.fit --dataset=fashion_mnist --labels=one_hot
    python -m train.fit --dataset=fashion_mnist --labels=autolabel

Results are in --output_dir: metrics.json, history.csv, figures/, saved_model/, model.keras and
tensorboard/. A run that was killed goes on where it was when the same command is given again.
"""

import dataclasses
import os
import sys

import tensorflow as tf
from absl import app, flags, logging

import data
from train import builders, training
from train.report import reason_of, table_of
from train.settings import (
    AUGMENTATIONS,
    LABELS,
    NETWORKS,
    SCHEDULES,
    Settings,
    check_combination,
)

DEFAULT = Settings()

flags.DEFINE_enum("dataset", DEFAULT.dataset, list(data.DATASETS), "The images.")
flags.DEFINE_string("data_dir", DEFAULT.data_dir, "Folder with the files of the data set.")
flags.DEFINE_integer(
    "train_examples", None, "Training images, stratified by class; all by default.", lower_bound=2
)
flags.DEFINE_integer(
    "holdout_examples",
    None,
    "Images that guide the labels, taken from the training images; a sixth, at most 5,000 (of "
    "imagenet2012 10,000).",
    lower_bound=2,
)
flags.DEFINE_boolean(
    "crop_and_flip",
    DEFAULT.crop_and_flip,
    "Crops training images at random and flips half of them; by default for cifar10, cifar100 and "
    "imagenet2012.",
)
flags.DEFINE_integer(
    "image_size",
    DEFAULT.image_size,
    "imagenet2012, image_folder: side of the images in pixels; 224 by default.",
    lower_bound=8,
)
flags.DEFINE_boolean(
    "skip_unreadable", DEFAULT.skip_unreadable, "image_folder: leaves out files that are no image."
)
flags.DEFINE_boolean("download", False, "Lets TFDS download and prepare a data set, once.")
flags.DEFINE_enum("augmentation", DEFAULT.augmentation, AUGMENTATIONS, "How images are moved.")
flags.DEFINE_enum("labels", DEFAULT.labels, LABELS, "How sure the label of a moved image is.")
flags.DEFINE_integer(
    "num_buckets", DEFAULT.num_buckets, "AutoLabel: buckets of the distance, N.", lower_bound=1
)
flags.DEFINE_float(
    "step_size", DEFAULT.step_size, "AutoLabel: step of the labels, α of Eq. (1).", lower_bound=0.0
)
flags.DEFINE_integer("num_bins", DEFAULT.num_bins, "Bins of the ECE.", lower_bound=1)
flags.DEFINE_integer(
    "examples_per_bucket",
    DEFAULT.examples_per_bucket,
    "AutoLabel: hold-out images measured in each bucket each epoch; 0: all, as in the paper.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "start_epoch", DEFAULT.start_epoch, "AutoLabel: first epoch with an update.", lower_bound=0
)
flags.DEFINE_integer("max_depth", DEFAULT.max_depth, "AugMix: longest chain.", lower_bound=1)
flags.DEFINE_float(
    "severity", DEFAULT.severity, "AugMix: strength of 10.", lower_bound=0.1, upper_bound=10.0
)
flags.DEFINE_integer(
    "num_operations", DEFAULT.num_operations, "RandAugment: length of the chain.", lower_bound=1
)
flags.DEFINE_float(
    "max_magnitude", DEFAULT.max_magnitude, "RandAugment: largest magnitude, of 10.", 0.0, 10.0
)
# Bounds of β, ε and the step stand with the augmentations, whose messages say what is meant.
flags.DEFINE_float("beta", DEFAULT.beta, "mixup: β of Beta(β, β), above 0.")
flags.DEFINE_float(
    "epsilon",
    DEFAULT.epsilon,
    "PGD: largest change of a pixel, ε_max, on the scale of [0, 1], above 0.",
)
flags.DEFINE_integer("attack_steps", DEFAULT.attack_steps, "PGD: gradient steps.", lower_bound=1)
flags.DEFINE_float(
    "relative_step_size", DEFAULT.relative_step_size, "PGD: length of a step as a share of ε."
)
flags.DEFINE_boolean(
    "random_start", DEFAULT.random_start, "PGD: starts at a random point, not at the image."
)
flags.DEFINE_float("rho", DEFAULT.rho, "CCAT: exponent ρ of the power transition.", 0.0)
flags.DEFINE_boolean(
    "temperature_scaling",
    DEFAULT.temperature_scaling,
    "Fits a temperature on the hold-out, reports with and without it, and exports it.",
)
flags.DEFINE_float(
    "smoothing", DEFAULT.smoothing, "Label smoothing: ε.", lower_bound=0.0, upper_bound=0.999
)
flags.DEFINE_enum(
    "network", DEFAULT.network, NETWORKS, "small: a residual network of 78,000 parameters."
)
flags.DEFINE_integer("depth", DEFAULT.depth, "wide_resnet: layers, 6n + 4.", lower_bound=10)
flags.DEFINE_integer("width", DEFAULT.width, "wide_resnet: widening factor.", lower_bound=1)
flags.DEFINE_integer("epochs", DEFAULT.epochs, "Passes over the training images.", lower_bound=1)
flags.DEFINE_integer(
    "batch_size", DEFAULT.batch_size, "Images in a step, over all GPUs.", lower_bound=1
)
flags.DEFINE_float(
    "learning_rate",
    DEFAULT.learning_rate,
    "--schedule=cosine: first learning rate at a batch of 128; it grows with the batch.",
    lower_bound=0.0,
)
flags.DEFINE_enum(
    "schedule",
    DEFAULT.schedule,
    SCHEDULES,
    "How the learning rate falls: along a cosine to 0, or in the published steps, from the "
    "published rate, for CIFAR or ImageNet.",
)
flags.DEFINE_float("l2", DEFAULT.l2, "Weight of the L2 penalty on all weights.", lower_bound=0.0)
flags.DEFINE_integer(
    "seed", DEFAULT.seed, "Seed of splits, weights, order and augmentation.", 0, 2**31 - 2
)
flags.DEFINE_string("output_dir", None, "Folder of the results; runs/<what is run> by default.")
flags.DEFINE_boolean("overwrite", False, "Replaces the run that --output_dir holds.")

FLAGS = flags.FLAGS


def settings_from_flags() -> Settings:
    """The settings that the flags give."""
    names = [field.name for field in dataclasses.fields(Settings) if field.name in FLAGS]
    settings = Settings(**{name: FLAGS[name].value for name in names})
    if not settings.examples_per_bucket:
        settings = dataclasses.replace(settings, examples_per_bucket=None)
    return settings


def main(argv: list[str]) -> None:
    """Runs what the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    settings = settings_from_flags()
    folder = FLAGS.output_dir or os.path.join("runs", settings.run_name())
    try:
        check_combination(settings)
        splits = builders.load_data(settings, download=FLAGS.download)
        counts = splits.counts()
        parts = (
            f"{counts['train']:,} training, {counts['holdout']:,} hold-out (stratified draws), "
            f"{counts['test']:,} test images; seed {settings.seed}"
        )
        print(f"{splits.name} ({splits.source}): {parts}.")
        rows = training.run(settings, splits, folder, overwrite=FLAGS.overwrite)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"train.fit: {error}")
    except tf.errors.OpError as error:
        sys.exit(f"train.fit: {reason_of(error)}")
    print(f"\n{splits.name}, {settings.augmentation} + {settings.labels}: {parts}.")
    print(table_of(rows))
    print(f"Results are in {folder}: figures/, saved_model/, metrics.json, history.csv.")


if __name__ == "__main__":
    app.run(main)
