"""One job of a comparison: trains a network, measures it, and writes what it predicted.

``train.compare`` starts it, in a process of its own:

    python -m train.comparison_job <comparison> <method> <seed> <attacked, 0 or 1> <threads>
"""

import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from data import corrupted_sets
from keras_autolabel import plots
from train import builders, command_line, comparison, hparams, run_folder, training
from train.choices import AUGMENTATIONS
from train.evaluation import (
    Row,
    examples_of,
    figures_of_rows,
    robust_accuracy,
    scores_of_sets,
    temperature_of,
)
from train.page_svg import drawn_svg
from train.predictor import Predictor
from train.report import versions
from train.settings import Settings

ROWS = 500
# What logits are divided by: nothing, or what was fitted on the hold-out, clean or augmented.
TEMPERATURES = (*training.TEMPERATURES, "augmented_holdout")
# Keeps the draws of the augmented hold-out apart from all others.
AUGMENTED_STREAM = 2_000_003
PREDICTIONS, FIGURE_1 = "predictions.npz", "figure_1.svg"


class Progress(keras.callbacks.Callback):
    """Keeps ``progress.json``: epochs that are trained, their seconds, the share measured.

    Args:
        folder: The folder of the job. Seconds of a run that was killed count.
    """

    def __init__(self, folder: str):
        super().__init__()
        self.file = os.path.join(folder, comparison.PROGRESS)
        self.state = {"epochs": 0, "seconds": 0.0, **run_folder.read_json(self.file)}
        self.state["measured"] = 0.0
        self.last = time.time()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds an epoch."""
        now = time.time()
        self.state |= {"epochs": epoch + 1, "seconds": self.state["seconds"] + now - self.last}
        self.last = now
        run_folder.write_json(self.file, self.state)

    def measured(self, share: float) -> None:
        """Says which share of the images is measured."""
        self.state["measured"] = share
        run_folder.write_json(self.file, self.state)


def augmented_logits(
    predictor: Predictor, augmentation: Callable, holdout: data.Split, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The hold-out, in memory, as training moves its images (Tomani et al., 2021), once.

    Returns:
        Their classes, int [M], of mixed images the larger one, and logits, float [M, K].
    """

    # AutoGraph would take seconds to translate what has no loop or condition of Python's.
    @tf.function(reduce_retracing=True, autograph=False)
    def moved_logits(images, labels, batch_seed):
        batch = augmentation(images, labels, seed=batch_seed, network=predictor.network)
        return batch.labels, predictor.network(batch.images, training=False)

    # Of nearly equal size: mixup needs more than one image in each.
    parts = np.array_split(np.arange(len(holdout)), -(-len(holdout) // ROWS))
    pairs = [
        moved_logits(
            tf.constant(holdout.images[part]),
            tf.constant(holdout.labels[part]),
            tf.constant([seed ^ AUGMENTED_STREAM, number]),
        )
        for number, part in enumerate(parts)
    ]
    labels, logits = zip(*pairs, strict=True)
    return np.concatenate(labels), np.concatenate(logits)


def temperatures_of(predictor: Predictor, settings: Settings, holdout: data.Split) -> list[float]:
    """The temperature of each name of ``TEMPERATURES``.

    That of the augmented hold-out is fitted under the augmentation of the run, and AugMix where it
    has none.
    """
    holdout = data.in_memory(holdout)
    clean = temperature_of(predictor, holdout, batch_size=ROWS)
    name = "augmix" if settings.augmentation == "none" else settings.augmentation
    augmentation = AUGMENTATIONS[name](settings)
    moved = augmented_logits(predictor, augmentation, holdout, seed=settings.seed)
    return [1.0, clean, kal.TemperatureScaling().fit(*moved).temperature]


def measure(
    predictor: Predictor,
    temperatures: Sequence[float],
    splits: data.Splits,
    corrupted: str,
    *,
    num_bins: int,
    progress: Progress,
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """What a network predicts for the clean and the corrupted test images.

    Returns:
        The arrays of ``predictions.npz``, ``<corruption>/<severity>/confidence``, float32 [T, M],
        and ``.../correct``, bool [M]; and the figures by name of the temperature.
    """
    found = corrupted_sets.open_corrupted(corrupted)
    count = 1 + len(found.corruptions) * len(found.severities)
    arrays, rows = {}, {name: [] for name in TEMPERATURES}
    sets = scores_of_sets(
        predictor, splits, temperatures, corrupted, batch_size=ROWS, num_bins=num_bins
    )
    for number, (corruption, severity, scores) in enumerate(sets, start=1):
        confidence, correct = zip(*(score.predictions() for score in scores), strict=True)
        arrays[f"{corruption}/{severity}/confidence"] = np.array(confidence, np.float32)
        # A temperature changes no prediction.
        arrays[f"{corruption}/{severity}/correct"] = correct[0]
        for name, temperature, score in zip(TEMPERATURES, temperatures, scores, strict=True):
            row = Row(name, corruption, severity, temperature, score.figures())
            rows[name].append(row)
        if number % 10 == 0 or number == count:
            progress.measured(number / count)
    return arrays, {name: figures_of_rows(of_name) for name, of_name in rows.items()}


def attack(predictor: Predictor, plan: comparison.Plan, splits: data.Splits) -> dict[str, float]:
    """Accuracy by ε under the attacks of a plan, all of the same images; "0" is without one."""
    chosen = examples_of(splits, plan.test_attack_examples)
    accuracy = robust_accuracy(
        predictor,
        chosen.images,
        chosen.labels,
        epsilons=plan.test_attack_epsilons,
        num_steps=plan.test_attack_steps,
        num_restarts=plan.test_attack_restarts,
        loss="crossentropy",
        seed=plan.settings.seed,
        batch_size=ROWS,
    )
    return {f"{epsilon:g}": share for epsilon, share in accuracy.items()}


def draw_figure_1(
    model: kal.AutoLabelModel, splits: data.Splits, here: str, *, name: str, seed: int
) -> None:
    """Draws, after Figure 1 of the paper, a test image at growing distances and its labels."""
    first = training.first_images(splits.test)
    svg = drawn_svg(
        f"examples-{name}",
        plots.plot_figure_1,
        model,
        first.images[0],
        first.labels[0],
        class_names=splits.class_names,
        seed=seed,
        others=(first.images[1:], first.labels[1:]),
    )
    pathlib.Path(here, FIGURE_1).write_text(svg, "utf-8")


def run(folder: str, job: comparison.Job, *, attacked: bool, threads: int) -> None:
    """A whole job of the comparison in a folder; ``job.json``, written last, makes it done.

    Raises:
        ValueError, OSError: As ``training.train`` and the loaders do.
    """
    plan, here = comparison.Plan.read(folder), job.folder(folder)
    settings = plan.settings_of(job)
    splits = builders.load_data(settings)
    model = builders.build_model(settings, splits)
    run_folder.check_space(here, model.network.count_params())
    run_folder.write_json(os.path.join(here, run_folder.SETTINGS), vars(settings))
    progress = Progress(here)
    training.train(model, settings, splits, here, [progress])
    start = time.time()
    model.save(os.path.join(here, "model.keras"))
    predictor = Predictor(os.path.join(here, "model.keras"))
    temperatures = temperatures_of(predictor, settings, splits.holdout)
    arrays, figures = measure(
        predictor,
        temperatures,
        splits,
        os.path.join(folder, comparison.CORRUPTED),
        num_bins=settings.num_bins,
        progress=progress,
    )
    robust = attack(predictor, plan, splits) if attacked else None
    table = builders.label_table(model)
    if table is not None:
        draw_figure_1(model, splits, here, name=job.method, seed=job.seed)
    under_attack = {f"accuracy_at_{epsilon}": share for epsilon, share in (robust or {}).items()}
    for name, of_name in figures.items():
        page = os.path.join(here, training.BOARD, "hparams", name)
        row = of_name | under_attack
        hparams.write(page, settings, row, method=job.method, temperature=name)
    np.savez_compressed(os.path.join(here, PREDICTIONS), **arrays)
    run_folder.write_json(
        os.path.join(here, comparison.JOB),
        {
            "method": job.method,
            "seed": job.seed,
            "data": {"name": splits.name, "source": splits.source, **splits.counts()},
            "parameters": model.network.count_params(),
            "seconds": round(progress.state["seconds"], 1),
            "seconds_to_measure": round(time.time() - start, 1),
            "threads": threads,
            "temperatures": dict(zip(TEMPERATURES, temperatures, strict=True)),
            "figures": figures,
            "robust_accuracy": robust,
            "label_table": None if table is None else table.tolist(),
            "versions": versions(),
            "settings": vars(settings),
        },
    )


def _end_with_parent() -> None:
    # Its end of the pipe is closed when it ends, however that comes; it never writes.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: Sequence[str]) -> None:
    """Runs the job that the command line names."""
    folder, method, seed, attacked, threads = arguments
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    with command_line.one_line_errors("train.comparison_job", []):
        job = comparison.Job(method, int(seed))
        run(folder, job, attacked=bool(int(attacked)), threads=int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
