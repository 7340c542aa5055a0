"""One run: train, measure on the test images, write what was learned.

Throughout, ``settings`` are those of the run, ``splits`` its data, ``folder`` its folder, see
``run_folder.open_run``, and ``checkpointing`` goes to ``run_folder.Checkpoints``.
"""

import functools
import os
import sys
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from keras_autolabel import plots
from keras_autolabel.distribution import batches_under, is_chief
from train import builders, hparams, run_folder
from train.evaluation import figures_of
from train.reasons import reason_of
from train.report import versions
from train.settings import Settings

PREDICT_ROWS = 500
CALIBRATION = ("ece", "accuracy", "confidence")
BOARD = "tensorboard"
# How logits were divided: not at all, or by a temperature fitted on the clean hold-out.
TEMPERATURES = ("none", "clean_holdout")


def train(
    model: kal.AutoLabelModel,
    settings: Settings,
    splits: data.Splits,
    folder: str,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **checkpointing,
) -> None:
    """Trains a model, from where a killed run was if there was one.

    ``callbacks`` are called last, when the checkpoint of an epoch is written.

    Raises:
        ValueError: If the loss or a weight is no longer finite.
        run_folder.Terminated: At SIGTERM.
    """
    strategy = model.distribute_strategy
    checkpoints = run_folder.Checkpoints(model, folder, **checkpointing)
    done, step = checkpoints.restore(), int(checkpoints.step)
    steps = len(splits.train) // settings.batch_size
    if (done or step) and is_chief(strategy):
        after = f"after epoch {done} of {settings.epochs}"
        print(f"{folder}: continues {after}" + (f", step {step} of {steps}." if step else "."))
    if done >= settings.epochs:
        return
    writers = [
        run_folder.History(folder, done),
        keras.callbacks.TensorBoard(os.path.join(folder, BOARD), write_graph=False),
    ]
    all_callbacks = [
        *builders.build_callbacks(settings, model, splits.holdout),
        *(writers if is_chief(strategy) else []),
        checkpoints,
        *callbacks,
    ]
    verbose = 1 if sys.stdout.isatty() else 2
    # Of an epoch that was begun the rest comes first: Keras' epochs are of equal length.
    legs = [(done, done + 1, step), (done + 1, settings.epochs, 0)]
    legs = [leg for leg in (legs if step else [(done, settings.epochs, 0)]) if leg[0] < leg[1]]
    try:
        for first, end, skipped in legs:
            shared = functools.partial(
                splits.train.training_batches,
                batch_size=settings.batch_size,
                seed=settings.seed,
                epochs=end,
                initial_epoch=first,
                initial_step=skipped,
            )
            batches = batches_under(strategy, shared)
            if skipped:
                # Metrics have no variables before they have seen a batch.
                model.evaluate(batches, steps=1, verbose=0)
            with checkpoints.on_sigterm():
                model.fit(
                    batches,
                    epochs=end,
                    initial_epoch=first,
                    steps_per_epoch=steps - skipped,
                    callbacks=all_callbacks,
                    shuffle=False,
                    verbose=verbose if is_chief(strategy) else 0,
                )
    except tf.errors.InvalidArgumentError as error:
        # An attack stops at the first gradient that is not finite.
        if "is not finite" not in str(error):
            raise
        raise ValueError(f"{run_folder.DIVERGED} {reason_of(error)}") from error


def measure(
    model: kal.AutoLabelModel, settings: Settings, splits: data.Splits
) -> tuple[np.ndarray, dict[str, dict[str, float]], float]:
    """The figures of a trained model on the test images.

    Returns:
        The logits of the test images, float [M, K], divided by the temperature if one was asked
        for; the rows of the table; and the temperature, fitted on the hold-out.
    """
    logits = model.predict(splits.test.batches(PREDICT_ROWS), verbose=0)
    rows = {"test": figures_of(splits.test.labels, logits, num_bins=settings.num_bins)}
    temperature = 1.0
    if settings.temperature_scaling:
        held_out = model.predict(splits.holdout.batches(PREDICT_ROWS), verbose=0)
        scaling = kal.TemperatureScaling().fit(splits.holdout.labels, held_out)
        temperature, logits = scaling.temperature, scaling(logits)
        rows[f"test, T = {temperature:.3f}"] = figures_of(
            splits.test.labels, logits, num_bins=settings.num_bins
        )
    return logits, rows, temperature


def write_results(
    model: kal.AutoLabelModel,
    settings: Settings,
    splits: data.Splits,
    folder: str,
    rows: dict[str, dict[str, float]],
    temperature: float,
    seconds: float,
) -> None:
    """Writes the model, its export, eight test images to try it on, and, last, ``metrics.json``.

    A run that has ``metrics.json`` is finished. Rows and temperature are what ``measure`` returned.
    """
    model.save(os.path.join(folder, "model.keras"))
    model.export(
        os.path.join(folder, "saved_model"),
        class_names=splits.class_names,
        temperature=temperature,
    )
    np.save(os.path.join(folder, "examples.npy"), first_images(splits.test).images)
    table = builders.label_table(model)
    run_folder.write_json(
        os.path.join(folder, run_folder.METRICS),
        {
            "data": {"name": splits.name, "source": splits.source, **splits.counts()},
            "seed": settings.seed,
            "figures": rows,
            "temperature": temperature,
            "label_table": None if table is None else table.tolist(),
            "label_table_axes": None if table is None else ["depth", "distance"][-table.ndim :],
            "parameters": model.network.count_params(),
            "seconds": round(seconds, 1),
            "versions": versions(),
            "settings": vars(settings),
        },
    )


def first_images(test: data.Split) -> data.Split:
    """The first eight images, to look at."""
    return data.in_memory(test.select(np.arange(min(8, len(test)))))


def draw(
    model: kal.AutoLabelModel,
    settings: Settings,
    splits: data.Splits,
    folder: str,
    logits: np.ndarray,
) -> None:
    """Draws the figures of a run into ``figures/``; logits are those of the test images."""
    test, names = splits.test, splits.class_names
    first = first_images(test)
    probabilities = tf.nn.softmax(logits).numpy()
    figures = {
        "reliability": plots.plot_reliability(
            test.labels, probabilities, num_bins=settings.num_bins
        )
    }
    if model.augmentation is not None:
        others = first.images[1:], first.labels[1:]
        options = {"class_names": names, "seed": settings.seed}
        figures["examples"] = plots.plot_examples(
            model, first.images[:4], first.labels[:4], **options
        )
        figures["figure_1"] = plots.plot_figure_1(
            model, first.images[0], first.labels[0], others=others, **options
        )
    table = builders.label_table(model)
    if table is not None:
        rows = run_folder.read_history(folder)
        labels, *last = (
            run_folder.table_in(rows, name, table.shape)
            for name in ("label_confidence", *(f"holdout_{x}" for x in CALIBRATION))
        )
        figures["label_table"] = plots.plot_label_history(labels)
        figures["holdout_calibration"] = plots.plot_bucket_calibration(*(x[-1] for x in last))
    os.makedirs(os.path.join(folder, "figures"), exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(os.path.join(folder, "figures", f"{name}.png"), dpi=120)


def prepare(
    settings: Settings, splits: data.Splits, folder: str, *, overwrite: bool = False
) -> kal.AutoLabelModel:
    """The model, with fresh weights; claims the folder once all else is found to be right.

    Raises:
        ValueError: If the settings do not fit the data, or the folder holds another run.
        OSError: If the results cannot be written.
    """
    # All that can be refused is refused before the folder of another run is touched.
    model = builders.build_model(settings, splits)
    run_folder.check_space(folder, model.network.count_params())
    run_folder.open_run(folder, settings, overwrite=overwrite)
    return model


def finish(
    model: kal.AutoLabelModel, settings: Settings, splits: data.Splits, folder: str, start: float
) -> dict[str, dict[str, float]]:
    """Measures a trained model, and writes and draws what was learned.

    Args:
        start: When the run began, in seconds since the epoch.

    Returns:
        The figures on the test images, rows of the table.
    """
    logits, rows, temperature = measure(model, settings, splits)
    draw(model, settings, splits, folder, logits)
    for name, figures in zip(TEMPERATURES, rows.values(), strict=False):
        page = os.path.join(folder, BOARD, "hparams", name)
        hparams.write(page, settings, figures, temperature=name)
    write_results(model, settings, splits, folder, rows, temperature, time.time() - start)
    return rows


def run(
    settings: Settings,
    splits: data.Splits,
    folder: str,
    *,
    overwrite: bool = False,
    **checkpointing,
) -> dict[str, dict[str, float]]:
    """A whole run; what it writes is in ``folder``.

    Returns:
        The figures on the test images, rows of the table.

    Raises:
        ValueError: If the settings do not fit the data, the folder holds another run, or the loss
            is no longer finite.
        OSError: If the results cannot be written.
        run_folder.Terminated: At SIGTERM, while it trains.
    """
    start = time.time()
    model = prepare(settings, splits, folder, overwrite=overwrite)
    train(model, settings, splits, folder, **checkpointing)
    return finish(model, settings, splits, folder, start)
