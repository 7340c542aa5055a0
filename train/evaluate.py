"""Measures trained classifiers: on clean images, on corrupted images and under attack.

    python -m train.evaluate --model=runs/fashion_mnist-augmix-autolabel-seed1 \\
        --dataset=fashion_mnist --corrupted_dir=runs/fmnist-c --attack_epsilons=0.02,0.03,0.04

A --model is the folder of a run, whose last checkpoint is taken if it was killed, a SavedModel that
AutoLabelModel.export wrote, or a model.keras; given several times, the models are compared. Images
are prepared as they were for the run. --corrupted_dir is CIFAR-10-C, CIFAR-100-C, a tree such as
ImageNet-C, or a set that data.corrupt made; a folder that is not there yet is made, of all test
images or --examples of them. The smaller a set, the higher the ECE that noise alone gives, which
stands beside each ECE. Results are in --output_dir: evaluation.json, evaluation.csv and figures.
"""

import dataclasses
import os
import pathlib

import numpy as np
from absl import app, flags

import data
from data import corrupted_sets
from train import builders, command_line, evaluation, run_folder
from train.predictor import Predictor
from train.report import Report
from train.settings import Settings

# How test images are prepared: settings of the run, unless flags say otherwise.
PREPARED = ("data_dir", "image_size", "crop_and_flip", "skip_unreadable")

flags.DEFINE_multi_string("model", None, "What to measure; may be given several times.")
command_line.define_flags(["dataset", *PREPARED], of_the_run=True)
command_line.define_flags(["num_bins"])
flags.DEFINE_boolean("download", False, "Fetches a data set that is missing, once.")
flags.DEFINE_integer(
    "examples",
    None,
    "Test images of a corrupted set that has to be made, classes in equal numbers; all by default. "
    "Clean figures are always of all test images.",
    lower_bound=1,
)
flags.DEFINE_string("corrupted_dir", None, "Folder of corrupted images; none by default.")
flags.DEFINE_string(
    "corruptions", None, "Names or groups (hendrycks15, ovadia17, all19), separated by commas."
)
command_line.define_severities(None, "Out of 1 to 5; all by default.")
command_line.define_epsilons(
    "attack_epsilons", [], "ε of PGD attacks on the scale of [0, 1], with commas."
)
flags.DEFINE_integer(
    "attack_examples", 1000, "Test images that are attacked, as above.", lower_bound=1
)
flags.DEFINE_integer("attack_steps", 50, "Steps of each restart, of ε/4.", lower_bound=1)
flags.DEFINE_integer("attack_restarts", 3, "Random starts.", lower_bound=1)
flags.DEFINE_enum(
    "attack_loss", "crossentropy", list(evaluation.ATTACK_LOSSES), "What an attack maximises."
)
flags.DEFINE_boolean(
    "temperature_scaling", False, "Fits a temperature on the hold-out, beside the model's own."
)
flags.DEFINE_integer("seed", 0, "Seed of the attacks, and of corruptions that have to be made.")
flags.DEFINE_integer("batch_size", 500, "Images that are predicted at once.", lower_bound=1)
flags.DEFINE_integer("processes", os.cpu_count(), "Workers that make corruptions.", lower_bound=1)
flags.DEFINE_string("output_dir", None, "Folder of the results; <first model>-evaluation.")
flags.mark_flag_as_required("model")

FLAGS = flags.FLAGS


def settings_of(predictors: list[Predictor]) -> Settings:
    """How the test images are loaded: as for the runs of the models, but for what flags say.

    Raises:
        ValueError: If the runs' data sets, or what was not given of how images are prepared,
            differ.
    """
    runs = [predictor.run_settings for predictor in predictors if predictor.run_settings]
    found = list(dict.fromkeys(run.dataset for run in runs))
    if len(found) > 1 and FLAGS.dataset is None:
        raise ValueError(
            f"The models were trained on {found[0]} and {found[1]}; choose with --dataset, or "
            "measure them one by one."
        )
    dataset = FLAGS.dataset or (found[0] if found else Settings.dataset)
    runs = [run for run in runs if run.dataset == dataset] or [Settings(dataset=dataset)]
    given = {name: FLAGS[name].value for name in PREPARED if FLAGS[name].value is not None}
    if dataset not in data.RESIZED:
        # Their test images are the same for every run, wherever that found its files.
        return dataclasses.replace(runs[0], **{"data_dir": None, **given})
    for name in PREPARED:
        found = list(dict.fromkeys(getattr(run, name) for run in runs))
        if len(found) > 1 and name not in given:
            raise ValueError(
                f"The models were trained with {name} {found[0]} and {found[1]}; choose with "
                f"--{name}, or measure them one by one."
            )
    return dataclasses.replace(runs[0], **given)


def holdout_of(predictor: Predictor, settings: Settings) -> data.Split | None:
    """The hold-out of the run that the model comes from, if a temperature is to be fitted.

    Raises:
        ValueError: If it is not known, and the model may have been trained on it.
    """
    if not FLAGS.temperature_scaling:
        return None
    run = predictor.run_settings
    if run is None or run.dataset != settings.dataset:
        raise ValueError(
            "--temperature_scaling needs the hold-out that the model was not trained on, which "
            f"the settings.json of its run tells; {predictor.name} has none for "
            f"{settings.dataset}."
        )
    names = ("seed", "train_examples", "holdout_examples")
    split_as = {name: getattr(run, name) for name in names}
    return builders.load_data(dataclasses.replace(settings, **split_as)).holdout


def temperatures_of(predictor: Predictor, holdout: data.Split | None) -> list[float]:
    """1, the model's own temperature, and one fitted on the hold-out if there is one."""
    temperatures = [1.0, predictor.temperature]
    if holdout is not None:
        size = FLAGS.batch_size
        temperatures.append(evaluation.temperature_of(predictor, holdout, batch_size=size))
    # The first of those that reports would show as the same number.
    return list({f"{x:.3f}": x for x in reversed(temperatures)}.values())[::-1]


def corrupted_set(splits: data.Splits) -> dict[str, str | int | None] | None:
    """Makes the corrupted set if it is not there; returns how reports call it."""
    folder = FLAGS.corrupted_dir
    if folder is None:
        return None
    is_tree = corrupted_sets.is_image_tree(folder)
    left = None if is_tree else unfinished(folder)
    if left:
        chosen = evaluation.examples_of(splits, FLAGS.examples)
        corrupted_sets.generate_corrupted(
            chosen.images,
            chosen.labels,
            folder,
            dataset=splits.name,
            corruptions=left,
            severities=severities() or corrupted_sets.SEVERITIES,
            seed=FLAGS.seed,
            processes=FLAGS.processes,
            progress=True,
        )
    if not is_tree:
        for name, reason in corrupted_sets.open_corrupted(folder).skipped.items():
            print(f"{name} is skipped: {reason}")
    return evaluation.describe_corrupted(
        folder, splits, corruptions=FLAGS.corruptions, severities=severities()
    )


def unfinished(folder: str) -> str | list[str] | None:
    """The corruptions that a folder still has to get; None where all is there."""
    if not os.path.isdir(folder) or not os.listdir(folder):
        return FLAGS.corruptions or "ovadia17"
    manifest = corrupted_sets.read_manifest(pathlib.Path(folder))
    if manifest is None:
        return None
    wanted = manifest["requested"]
    if FLAGS.corruptions:
        wanted = [*wanted, *corrupted_sets.corruption_names(FLAGS.corruptions)]
    done = {*manifest["corruptions"], *manifest["skipped"]}
    return wanted if set(wanted) - done else None


def severities() -> list[int] | None:
    """The severities asked for; None for all."""
    return [int(severity) for severity in FLAGS.severities] if FLAGS.severities else None


def measure(
    predictor: Predictor, splits: data.Splits, temperatures: list[float]
) -> tuple[list[evaluation.Row], np.ndarray]:
    """All rows of a model, and the sums of its reliability diagram."""
    sets = evaluation.scores_of_sets(
        predictor,
        splits,
        temperatures,
        FLAGS.corrupted_dir,
        corruptions=FLAGS.corruptions,
        severities=severities(),
        batch_size=FLAGS.batch_size,
        num_bins=FLAGS.num_bins,
    )
    rows, sums = [], None
    for corruption, severity, scores in sets:
        sums = scores[-1].sums() if sums is None else sums
        for temperature, score in zip(temperatures, scores, strict=True):
            figures = score.figures()
            rows.append(evaluation.Row(predictor.name, corruption, severity, temperature, figures))
    return rows, sums


def attack(predictor: Predictor, splits: data.Splits) -> dict[float, float]:
    """Accuracy by ε, all of the same images; 0.0 is without an attack."""
    epsilons = [float(epsilon) for epsilon in FLAGS.attack_epsilons]
    if not epsilons:
        return {}
    chosen = evaluation.examples_of(splits, FLAGS.attack_examples)
    return evaluation.robust_accuracy(
        predictor,
        chosen.images,
        chosen.labels,
        epsilons=epsilons,
        num_steps=FLAGS.attack_steps,
        num_restarts=FLAGS.attack_restarts,
        loss=FLAGS.attack_loss,
        seed=FLAGS.seed,
        batch_size=FLAGS.batch_size,
    )


def attack_settings(splits: data.Splits) -> dict[str, str | float] | None:
    """What a report says of the attacks; None where there are none."""
    if not FLAGS.attack_epsilons:
        return None
    return {
        "steps": FLAGS.attack_steps,
        "restarts": FLAGS.attack_restarts,
        "relative_step_size": 0.25,
        "loss": FLAGS.attack_loss,
        "examples": min(FLAGS.attack_examples, len(splits.test)),
        "seed": FLAGS.seed,
    }


def evaluate(folder: str) -> None:
    """Measures what the flags ask for, and writes it into a folder."""
    predictors = [
        Predictor(path, data_dir=FLAGS.data_dir, download=FLAGS.download) for path in FLAGS.model
    ]
    settings = settings_of(predictors)
    holdouts = [holdout_of(predictor, settings) for predictor in predictors]
    splits = builders.load_data(settings, download=FLAGS.download)
    for predictor in predictors:
        predictor.check_images(splits.test.image_shape)
    corrupted = corrupted_set(splits)
    rows, sums, robust, sizes = [], {}, {}, {}
    for predictor, holdout in zip(predictors, holdouts, strict=True):
        if holdout is not None:
            sizes[predictor.name] = len(holdout)
        measured, sums[predictor.name] = measure(
            predictor, splits, temperatures_of(predictor, holdout)
        )
        rows += measured
        robust[predictor.name] = attack(predictor, splits)
    report = Report(splits, sizes, corrupted, rows, sums, robust, attack_settings(splits))
    report.show()
    report.write(folder)


def main(argv: list[str]) -> None:
    """Measures what the flags ask for."""
    with command_line.one_line_errors("train.evaluate", argv):
        folder = FLAGS.output_dir or f"{FLAGS.model[0].rstrip('/')}-evaluation"
        run_folder.check_writable(folder)
        evaluate(folder)
        print(f"Results are in {folder}: evaluation.json, evaluation.csv, figures/.")


if __name__ == "__main__":
    app.run(main)
