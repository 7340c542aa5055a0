"""Trains an image classifier on augmented images, measures it, exports it and draws it.

Without a flag it trains AugMix + AutoLabel on a part of Fashion-MNIST that comes along:

    python -m train.fit

The paper's comparison on all of Fashion-MNIST, with one-hot labels and with learned labels:

    python -m train.fit --dataset=fashion_mnist --labels=one_hot
    python -m train.fit --dataset=fashion_mnist --labels=autolabel

Results are in --output_dir: metrics.json, history.csv, figures/, saved_model/, model.keras and
tensorboard/. A run that was killed goes on where it was when the same command is given again. At
SIGTERM it finishes its step, writes a checkpoint and ends with status 75.
"""

import os

from absl import app, flags

from train import builders, command_line, run_folder, training
from train.report import table_of
from train.settings import FIELDS, check_read

command_line.define_flags(FIELDS)
flags.DEFINE_boolean("download", False, "Fetches a data set that is missing, once.")
flags.DEFINE_string("output_dir", None, "Folder of the results; runs/<what is run> by default.")
flags.DEFINE_boolean("overwrite", False, "Replaces the run that --output_dir holds.")
flags.DEFINE_integer("keep_checkpoints", 2, "Checkpoints that stay.", lower_bound=1)
flags.DEFINE_float(
    "checkpoint_minutes",
    30.0,
    "Minutes after which an epoch has a checkpoint before its end.",
    lower_bound=0.0,
)

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Runs what the flags ask for."""
    with command_line.one_line_errors("train.fit", argv):
        settings, given = command_line.settings_from_flags()
        check_read(settings, given)
        builders.check(settings)
        folder = FLAGS.output_dir or os.path.join("runs", settings.run_name())
        run_folder.check_writable(folder)
        splits = builders.load_data(settings, download=FLAGS.download)
        counts = splits.counts()
        parts = (
            f"{counts['train']:,} training, {counts['holdout']:,} hold-out (stratified draws), "
            f"{counts['test']:,} test images; seed {settings.seed}"
        )
        print(f"{splits.name} ({splits.source}): {parts}.")
        if settings.augmentation == "pgd":
            steps = settings.attack_steps
            print(
                f"Each batch is attacked first, by {steps} gradients: up to {steps + 1} x the time."
            )
        rows = training.run(
            settings,
            splits,
            folder,
            overwrite=FLAGS.overwrite,
            keep=FLAGS.keep_checkpoints,
            minutes=FLAGS.checkpoint_minutes,
        )
        print(f"\n{splits.name}, {settings.augmentation} + {settings.labels}: {parts}.")
        print(table_of(rows))
        print(f"Results are in {folder}: figures/, saved_model/, metrics.json, history.csv.")


if __name__ == "__main__":
    app.run(main)
