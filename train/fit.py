"""Trains an image classifier on augmented images, measures it, exports it and draws it.

Without a flag it trains AugMix + AutoLabel on a part of Fashion-MNIST that comes along:

    python -m train.fit

The paper's comparison on all of Fashion-MNIST, with one-hot labels and with learned labels:

    python -m train.fit --dataset=fashion_mnist --labels=one_hot
    python -m train.fit --dataset=fashion_mnist --labels=autolabel

Results are in --output_dir: metrics.json, history.csv, figures/, saved_model/, model.keras and
tensorboard/. A run that was killed goes on where it was when the same command is given again. At
SIGTERM it finishes its step, writes a checkpoint and ends with status 75.

On two cores, each a worker of a Ray cluster of its own, or on the workers of a cluster:

    python -m train.fit --workers=2
    python -m train.fit --workers=8 --ray_address=auto --output_dir=/shared/run
"""

import os

from absl import app, flags

from train import builders, cluster, command_line, run_folder, training
from train.report import table_of
from train.settings import FIELDS, Settings, check_read

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
flags.DEFINE_integer(
    "workers", 1, "Workers of Ray that share each batch, a GPU or a core each.", lower_bound=1
)
flags.DEFINE_string(
    "ray_address", None, "--workers > 1: the Ray cluster, as in ray.init; this machine by default."
)
flags.DEFINE_integer(
    "max_failures",
    3,
    "--workers > 1: how often workers start again, from the last checkpoint, after one was lost.",
    lower_bound=0,
)

FLAGS = flags.FLAGS
ONLY_WITH_WORKERS = ("ray_address", "max_failures")


def check_workers(settings: Settings) -> None:
    """Refuses flags of workers that cannot be, or that nothing reads.

    Args:
        settings: The settings of the run.

    Raises:
        ValueError, ImportError: With the reason.
    """
    if FLAGS.workers > 1:
        cluster.check(settings, FLAGS.workers)
        return
    for name in ONLY_WITH_WORKERS:
        if FLAGS[name].present:
            raise ValueError(f"--{name} has no effect without --workers of 2 or more.")


def main(argv: list[str]) -> None:
    """Runs what the flags ask for."""
    with command_line.one_line_errors("train.fit", argv):
        settings, given = command_line.settings_from_flags()
        check_read(settings, given)
        builders.check(settings)
        check_workers(settings)
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
        options = {
            "overwrite": FLAGS.overwrite,
            "keep": FLAGS.keep_checkpoints,
            "minutes": FLAGS.checkpoint_minutes,
        }
        if FLAGS.workers == 1:
            rows = training.run(settings, splits, folder, **options)
        else:
            rows = cluster.run(
                settings,
                splits,
                folder,
                workers=FLAGS.workers,
                address=FLAGS.ray_address,
                max_failures=FLAGS.max_failures,
                **options,
            )
        print(f"\n{splits.name}, {settings.augmentation} + {settings.labels}: {parts}.")
        print(table_of(rows))
        print(f"Results are in {folder}: figures/, saved_model/, metrics.json, history.csv.")


if __name__ == "__main__":
    app.run(main)
