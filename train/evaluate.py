"""Measures trained classifiers: on clean images, on corrupted images and under attack.

    python -m train.evaluate --model=runs/fashion_mnist-augmix-autolabel-seed1 \\
        --dataset=fashion_mnist --corrupted_dir=runs/fmnist-c --attack_epsilons=0.02,0.03,0.04

A --model is the folder of a run, a SavedModel that AutoLabelModel.export wrote, or a model.keras;
given several times, the models are compared. --corrupted_dir is CIFAR-10-C, CIFAR-100-C, a tree
such as ImageNet-C, or a set that data.corrupt made; a folder that is not there yet is made, of
--examples test images. Results are in --output_dir: evaluation.json, evaluation.csv and figures.
"""

import csv
import os
import pathlib
import sys

import numpy as np
from absl import app, flags, logging

import data
from data import corrupted_sets
from keras_autolabel import TemperatureScaling, plots
from train import evaluation
from train.predictor import Predictor
from train.report import table_of, versions, write_json

flags.DEFINE_multi_string("model", None, "What to measure; may be given several times.")
flags.DEFINE_enum("dataset", "digits", list(data.DATASETS), "The clean images: its test split.")
flags.DEFINE_string("data_dir", None, "Folder with the files of the data set.")
flags.DEFINE_integer(
    "examples",
    1000,
    "Test images of a corrupted set that has to be made, and of an attack; classes in equal "
    "numbers. Clean figures are always of all test images.",
    lower_bound=1,
)
flags.DEFINE_string("corrupted_dir", None, "Folder of corrupted images; none by default.")
flags.DEFINE_string(
    "corruptions", None, "Names or groups (hendrycks15, ovadia17, all19), separated by commas."
)
flags.DEFINE_list("severities", None, "Out of 1 to 5; all by default.")
flags.DEFINE_list("attack_epsilons", [], "ε of PGD attacks on the scale of [0, 1], with commas.")
flags.DEFINE_integer("attack_steps", 50, "Steps of each restart, of ε/4.", lower_bound=1)
flags.DEFINE_integer("attack_restarts", 3, "Random starts.", lower_bound=1)
flags.DEFINE_enum(
    "attack_loss", "crossentropy", list(evaluation.ATTACK_LOSSES), "What an attack maximises."
)
flags.DEFINE_boolean(
    "temperature_scaling", False, "Fits a temperature on the hold-out, beside the model's own."
)
flags.DEFINE_integer("seed", 0, "Seed of the hold-out, the corruptions and the attacks.")
flags.DEFINE_integer("num_bins", 15, "Bins of the ECE.", lower_bound=1)
flags.DEFINE_integer("batch_size", 500, "Images that are predicted at once.", lower_bound=1)
flags.DEFINE_integer("processes", os.cpu_count(), "Workers that make corruptions.", lower_bound=1)
flags.DEFINE_string("output_dir", None, "Folder of the results; <first model>-evaluation.")
flags.mark_flag_as_required("model")
flags.register_validator(
    "severities",
    lambda texts: set(texts or []) <= set("12345"),
    "must be whole numbers from 1 to 5, separated by commas.",
)


@flags.validator(
    "attack_epsilons",
    "must be numbers above 0 and at most 1, separated by commas; 8 grey levels are 0.0314.",
)
def _are_epsilons(texts: list[str]) -> bool:
    try:
        return all(0.0 < float(text) <= 1.0 for text in texts)
    except ValueError:
        return False


FLAGS = flags.FLAGS


def temperatures_of(predictor: Predictor, splits: data.Splits) -> list[float]:
    """1, the model's own temperature, and one fitted on the hold-out if that was asked for."""
    temperatures = [1.0, predictor.temperature]
    if FLAGS.temperature_scaling:
        batches = list(holdout_of(predictor).batches(FLAGS.batch_size))
        logits = np.concatenate([predictor.logits(np.asarray(images)) for images, _ in batches])
        labels = np.concatenate([np.asarray(labels) for _, labels in batches])
        temperatures.append(TemperatureScaling().fit(labels, logits).temperature)
    # The first of those that reports would show as the same number.
    return list({f"{x:.3f}": x for x in reversed(temperatures)}.values())[::-1]


def holdout_of(predictor: Predictor) -> data.Split:
    """The hold-out of the run that the model comes from: no image of it was trained on."""
    run = predictor.run_settings
    if run is None or run["dataset"] != FLAGS.dataset:
        raise ValueError(
            "--temperature_scaling needs the hold-out that the model was not trained on, which the "
            f"settings.json of its run tells; {predictor.name} has none for {FLAGS.dataset}."
        )
    splits = data.load(
        FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        seed=run["seed"],
        train_examples=run["train_examples"],
        holdout_examples=run["holdout_examples"],
    )
    return splits.holdout


def corrupted_set(splits: data.Splits) -> str | None:
    """Makes the corrupted set if it is not there; returns how reports call it."""
    folder = FLAGS.corrupted_dir
    if folder is None:
        return None
    if corrupted_sets.is_image_tree(folder):
        return f"{os.path.basename(folder.rstrip('/'))} (published tree)"
    left = unfinished(folder)
    if left:
        chosen = examples_of(splits)
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
    found = corrupted_sets.open_corrupted(folder)
    for name, reason in found.skipped.items():
        print(f"{name} is skipped: {reason}")
    return f"{found.name}, {found.examples:,} images per set"


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


def examples_of(splits: data.Splits) -> data.Split:
    """The test images that are corrupted or attacked."""
    test = splits.test
    rows = corrupted_sets.choose_examples(test.labels, min(FLAGS.examples, len(test)))
    return data.in_memory(test.select(rows))


def severities() -> list[int] | None:
    """The severities asked for; None for all."""
    return [int(severity) for severity in FLAGS.severities] if FLAGS.severities else None


def measure(predictor: Predictor, splits: data.Splits) -> tuple[list[evaluation.Row], np.ndarray]:
    """All rows of a model, and the sums of its reliability diagram."""
    temperatures = temperatures_of(predictor, splits)
    batches = splits.test.batches(FLAGS.batch_size)
    scores = evaluation.scores_of(predictor, batches, temperatures, num_bins=FLAGS.num_bins)
    rows = [
        evaluation.Row(predictor.name, "none", 0, temperature, score.figures())
        for temperature, score in zip(temperatures, scores, strict=True)
    ]
    if FLAGS.corrupted_dir:
        rows += evaluation.corrupted_rows(
            predictor,
            FLAGS.corrupted_dir,
            temperatures,
            corruptions=FLAGS.corruptions,
            severities=severities(),
            batch_size=FLAGS.batch_size,
            num_bins=FLAGS.num_bins,
        )
    return rows, scores[-1].bins


def attack(predictor: Predictor, splits: data.Splits) -> dict[float, float]:
    """Robust accuracy by ε."""
    epsilons = [float(epsilon) for epsilon in FLAGS.attack_epsilons]
    if not epsilons:
        return {}
    chosen = examples_of(splits)
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


def write(folder, splits, set_name, rows, sums, robust) -> None:
    """Writes evaluation.json, evaluation.csv and the figures."""
    flat = [{**vars(row), **row.figures} for row in rows]
    for row in flat:
        del row["figures"]
    with open(os.path.join(folder, "evaluation.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    content = {
        "data": {"name": splits.name, "source": splits.source, **splits.counts()},
        "corrupted": set_name,
        "seed": FLAGS.seed,
        "rows": flat,
        "means": summary(rows),
        "robust_accuracy": robust,
        "attack": {
            "steps": FLAGS.attack_steps,
            "restarts": FLAGS.attack_restarts,
            "relative_step_size": 0.25,
            "loss": FLAGS.attack_loss,
            "examples": min(FLAGS.examples, len(splits.test)),
        },
        "versions": versions(),
    }
    write_json(os.path.join(folder, "evaluation.json"), content)
    for number, (name, sum_of_model) in enumerate(sums.items()):
        figure = plots.plot_reliability_of_sums(sum_of_model)
        figure.savefig(os.path.join(folder, "figures", f"reliability_{number}.png"), dpi=120)
        print(f"reliability_{number}.png: {name}")
    if set_name:
        by_model = {
            name: [
                (row.corruption, row.severity, row.figures["ece"])
                for row in rows
                if row.model == name and row.temperature == 1.0
            ]
            for name in sums
        }
        figure = plots.plot_ece_by_severity(by_model)
        figure.savefig(os.path.join(folder, "figures", "ece_by_severity.png"), dpi=120)
    if all(robust.values()):
        epsilons = list(next(iter(robust.values())))
        accuracies = {name: list(by_epsilon.values()) for name, by_epsilon in robust.items()}
        figure = plots.plot_accuracy_by_epsilon(epsilons, accuracies)
        figure.savefig(os.path.join(folder, "figures", "accuracy_by_epsilon.png"), dpi=120)


def summary(rows: list[evaluation.Row]) -> dict[str, dict[str, float]]:
    """Clean figures, cAcc and cECE of each model at each temperature."""
    groups: dict[str, list[evaluation.Row]] = {}
    for row in rows:
        groups.setdefault(f"{row.model}, T = {row.temperature:.3f}", []).append(row)
    means = {}
    for name, group in groups.items():
        means[name] = dict(group[0].figures)
        if len(group) > 1:
            means[name] |= evaluation.mean_over_corruptions(group)
    return means


def show(splits, set_name, rows, robust) -> None:
    """Prints what was measured, on what."""
    print(f"\n{splits.name} ({splits.source}), {len(splits.test):,} test images")
    means = summary(rows)
    print(table_of(means))
    if set_name:
        print(f"\n{set_name}; seed {FLAGS.seed}; means over types and severities")
        for name, figures in means.items():
            print(f"{name}  cAcc {100 * figures['cacc']:.2f}  cECE {100 * figures['cece']:.2f}")
    examples = min(FLAGS.examples, len(splits.test))
    for name, by_epsilon in robust.items():
        for epsilon, accuracy in by_epsilon.items():
            print(
                f"{name}  accuracy {100 * accuracy:.2f} under PGD, ε = {epsilon:g}, "
                f"{FLAGS.attack_steps} steps, {FLAGS.attack_restarts} restarts, "
                f"{FLAGS.attack_loss}, {examples:,} images, seed {FLAGS.seed}"
            )


def main(argv: list[str]) -> None:
    """Measures what the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    try:
        predictors = [Predictor(path) for path in FLAGS.model]
        splits = data.load(FLAGS.dataset, data_dir=FLAGS.data_dir, seed=FLAGS.seed)
        folder = FLAGS.output_dir or f"{predictors[0].name}-evaluation"
        os.makedirs(os.path.join(folder, "figures"), exist_ok=True)
        set_name = corrupted_set(splits)
        rows, sums, robust = [], {}, {}
        for predictor in predictors:
            measured, sums[predictor.name] = measure(predictor, splits)
            rows += measured
            robust[predictor.name] = attack(predictor, splits)
        show(splits, set_name, rows, robust)
        write(folder, splits, set_name, rows, sums, robust)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"train.evaluate: {error}")
    print(f"Results are in {folder}: evaluation.json, evaluation.csv, figures/.")


if __name__ == "__main__":
    app.run(main)
