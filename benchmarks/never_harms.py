"""Do learned labels ever harm? Both updates of the labels beside fixed ones, cell by cell.

    python -m benchmarks.photographs --output_dir=runs/photographs
    python -m benchmarks.never_harms --sets=digits --regimes=short

A cell is a set of images, a regime (12 epochs, or 60, by when a network fits what it is shown) and
an augmentation. It is a comparison as train.compare makes them, with a report, in a folder of its
own below --output_dir. What was killed goes on when the command is given again. All 24 cells take
some twenty hours on two cores, by an estimate; --notrain trains nothing and prints what is there.
Fashion-MNIST needs Debian's package dataset-fashion-mnist.

What is printed is Markdown: of each cell with two seeds or more the means over seeds, in percent,
ECE and cECE debiased, and in brackets the difference to fixed labels ± its standard error, seed by
seed; then how many cells keep what is asked of learned labels:

- ECE, AURC: higher by no more than one standard error of the difference;
- accuracy: lower by no more than 0.5 points; under PGD of ε = 0.02 by no more than 1;
- cECE, where 60 epochs were trained: lower by 30 %, under mixup by 50 %; and lower than that of
  fixed labels with a temperature, which is fitted on the clean hold-out.
"""

import itertools
import os
import sys
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from absl import app, flags

from benchmarks.harm import DIGITS, Compared, table_of, tally_of
from data import Splits
from train import builders, command_line, comparison, comparison_report, run_folder
from train.comparison import Job, Plan
from train.comparison_statistics import Result, figures_of
from train.settings import Settings

FASHION = {"dataset": "fashion_mnist", "holdout_examples": 1000, "examples_per_bucket": 100}
# Name -> title, settings, test images that are corrupted.
SETS = {
    "digits": (
        "digits",
        {"dataset": "digits", "train_examples": 1000, "holdout_examples": 400},
        None,
    ),
    "fashion2000": ("Fashion-MNIST, 2,000 images", {**FASHION, "train_examples": 2000}, 1000),
    "fashion10000": ("Fashion-MNIST, 10,000 images", {**FASHION, "train_examples": 10000}, 1000),
    "photographs": (
        "photographs",
        {
            "dataset": "image_folder",
            "image_size": 32,
            "train_examples": 2000,
            "holdout_examples": 500,
        },
        None,
    ),
}
EPOCHS = {"end": 60, "short": 12}
# Name -> title, the method with fixed labels, how these are called, by which share cECE must fall.
AUGMENTATIONS = {
    "augmix": ("AugMix", "augmix", "one-hot", 0.3),
    "mixup": ("mixup", "mixup", "mixup's", 0.5),
    "pgd": ("PGD", "at", "one-hot", 0.3),
}
UPDATES = {"autolabel": "paper", "together": "together"}
EPSILON = 0.02

flags.DEFINE_list("sets", list(SETS), f"Out of {', '.join(SETS)}.")
flags.DEFINE_list("regimes", list(EPOCHS), "Out of end, 60 epochs, and short, 12.")
flags.DEFINE_list("augmentations", list(AUGMENTATIONS), f"Out of {', '.join(AUGMENTATIONS)}.")
flags.DEFINE_integer("seeds", 3, "How many seeds, from 0 on.", lower_bound=2)
flags.DEFINE_string("photographs", "runs/photographs", "What benchmarks.photographs has made.")
flags.DEFINE_string("output_dir", "runs/never_harms", "Folder of the cells.")
flags.DEFINE_boolean("train", True, "Trains what is missing.")

FLAGS = flags.FLAGS


class Cell(NamedTuple):
    """A set, a regime and an augmentation, by their names."""

    images: str
    regime: str
    augmentation: str

    @property
    def title(self) -> str:
        """How tables call it."""
        images, augmentation = SETS[self.images][0], AUGMENTATIONS[self.augmentation][0]
        return f"{images}, {EPOCHS[self.regime]} epochs, {augmentation}"

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of ``train.compare``: fixed labels, then each update."""
        fixed = AUGMENTATIONS[self.augmentation][1]
        return (fixed, *(f"{fixed}_{update}" for update in UPDATES))

    def plan(self, photographs: str) -> Plan:
        """What its jobs share."""
        _, settings, corrupted = SETS[self.images]
        settings = {**settings, **comparison.DEFAULTS, "epochs": EPOCHS[self.regime]}
        if self.images == "photographs":
            settings["data_dir"] = photographs
        if self.augmentation == "pgd":
            # A third of the time of ten, which train as well.
            settings |= {"epsilon": EPSILON, "attack_steps": 3}
        return Plan(
            settings=Settings(**settings),
            corruptions="ovadia17",
            severities=(1, 3, 5),
            corrupted_examples=corrupted,
            test_attack_epsilons=(0.01, EPSILON, 0.03),
            test_attack_steps=20,
            test_attack_restarts=1,
            test_attack_examples=500,
        )


def run(cell: Cell, folder: str, splits: Splits, seeds: int) -> list[Job]:
    """Trains and measures what a cell lacks, and writes its report; returns what failed."""
    comparison.make_corrupted(folder, Plan.read(folder), splits, processes=1)
    jobs = [Job(method, seed) for seed in range(seeds) for method in cell.methods]
    failed = comparison.run_jobs(folder, jobs, at_a_time=comparison.cores(), threads=1)
    done = [job for job in jobs if job not in failed]
    if done:
        comparison_report.write(folder, done, failed)
    return list(failed)


def compared(cell: Cell, folder: str, seeds: int) -> Compared | None:
    """What a cell measured, over the seeds of which all jobs are done; None of fewer than two."""
    attacked = cell.augmentation == "pgd"
    of_seeds = []
    for seed in range(seeds):
        jobs = [Job(method, seed) for method in cell.methods]
        if all(comparison.is_done(folder, job, attacked=attacked) for job in jobs):
            of_seeds.append([Result.read(folder, job) for job in jobs])
    if len(of_seeds) < 2:
        return None

    def figures(number: int, temperature: str = "none") -> dict[str, np.ndarray]:
        rows = [_figures(results[number], temperature) for results in of_seeds]
        return {name: np.array([100.0 * row[name] for row in rows]) for name in rows[0]}

    _, _, labels, cece_falls = AUGMENTATIONS[cell.augmentation]
    less = f", **{len(of_seeds)} seeds**" if len(of_seeds) < seeds else ""
    return Compared(
        title=cell.title + less,
        labels=labels,
        fixed=figures(0),
        scaled=figures(0, "clean_holdout"),
        learned={update: figures(number) for number, update in enumerate(UPDATES.values(), 1)},
        cece_falls=cece_falls if cell.regime == "end" else None,
    )


def _figures(result: Result, temperature: str) -> dict[str, float]:
    figures = figures_of(result.predictions[temperature], result.num_bins)
    robust = result.content["robust_accuracy"]
    figures = {**figures, "robust": robust[f"{EPSILON:g}"]} if robust else figures
    return {name: figures[name] for name in DIGITS if name in figures}


def facts_of(cell: Cell, folder: str, seeds: int) -> str:
    """On which images the networks of a cell were trained and measured."""
    data = Result.read(folder, Job(cell.methods[0], 0)).content["data"]
    manifest = run_folder.read_json(os.path.join(folder, comparison.CORRUPTED, "manifest.json"))
    sets = len(manifest["corruptions"]) * len(manifest["severities"])
    return (
        f"{SETS[cell.images][0]}: {data['source']}; {data['train']:,} training, "
        f"{data['holdout']:,} hold-out, {data['test']:,} test images; {sets} corrupted sets, "
        f"generated from {manifest['examples']:,} test images; seeds 0 to {seeds - 1}."
    )


def check(name: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuses names that are none.

    Raises:
        ValueError: If one is unknown, or there is none.
    """
    unknown = [each for each in given if each not in known]
    if unknown or not given:
        raise ValueError(
            f"--{name} must be out of {', '.join(known)}. Received: {', '.join(unknown) or 'none'}"
        )


def main(argv: list[str]) -> None:
    """Runs the cells that the flags name, and prints the table."""
    with command_line.one_line_errors("benchmarks.never_harms", argv):
        check("sets", FLAGS.sets, SETS)
        check("regimes", FLAGS.regimes, EPOCHS)
        check("augmentations", FLAGS.augmentations, AUGMENTATIONS)
        names = itertools.product(FLAGS.regimes, FLAGS.sets, FLAGS.augmentations)
        cells = [Cell(images, regime, augmentation) for regime, images, augmentation in names]
        folders = {cell: os.path.join(FLAGS.output_dir, "-".join(cell)) for cell in cells}
        failed = []
        if FLAGS.train:
            plans = {cell: cell.plan(FLAGS.photographs) for cell in cells}
            # All that is asked for is there before the first hour of training.
            splits = {cell.images: plan.settings for cell, plan in plans.items()}
            splits = {images: builders.load_data(settings) for images, settings in splits.items()}
            for cell, folder in folders.items():
                comparison.claim(folder, plans[cell])
            for cell, folder in folders.items():
                print(cell.title, file=sys.stderr)
                failed += run(cell, folder, splits[cell.images], FLAGS.seeds)
        there = {cell: compared(cell, folders[cell], FLAGS.seeds) for cell in cells}
        done = [figures for figures in there.values() if figures]
        if done:
            print("\n".join([*table_of(done), "", *tally_of(done), ""]))
        for images in FLAGS.sets:
            cell = next((cell for cell in cells if cell.images == images and there[cell]), None)
            if cell:
                print(facts_of(cell, folders[cell], FLAGS.seeds))
        for cell in cells:
            if not there[cell]:
                print(f"Not there, with two seeds or more: {cell.title}", file=sys.stderr)
    if failed:
        sys.exit(f"benchmarks.never_harms: {len(failed)} jobs failed. Run it again to go on.")


if __name__ == "__main__":
    app.run(main)
