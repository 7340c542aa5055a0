"""Trains with other updates of the labels, and compares what comes out."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from train import builders
from train.settings import Settings

LAST_EPOCHS = 5


def callback_of(update: str, part: data.Split) -> kal.AutoLabel:
    """The ``AutoLabel`` that an update names."""
    size, *options = update.split("-")
    if options not in ([], ["debias"]) or not (size in ("all", "auto") or size.isdigit()):
        raise ValueError(f"--updates are all, auto or numbers, or these with -debias: {update!r}")
    examples = {"all": None, "auto": "auto"}.get(size) if size.isalpha() else int(size)
    return kal.AutoLabel(
        (part.images, part.labels), examples_per_bucket=examples, debias=bool(options)
    )


def train(
    model: kal.AutoLabelModel,
    settings: Settings,
    splits: data.Splits,
    judge: data.Split,
    updates: Sequence[str],
) -> dict[str, tuple[np.ndarray, list[float]]]:
    """One seed: of each update the labels after each epoch, and the figures of the judge.

    Args:
        model: A compiled model with fresh weights, which a seed leaves as it found them but for
            what the next one sets: compiling costs more than an epoch.
        settings: The settings, with the seed.
        splits: The data; the hold-out guides the labels.
        judge: The images that are measured after training.
        updates: Names of updates.

    Returns:
        Update -> float [epochs, buckets], and the four figures of the table's right half.
    """
    fresh = [*model.optimizer.variables, model.label_policy.confidence]
    start = [tf.convert_to_tensor(variable).numpy() for variable in fresh]
    keras.utils.set_random_seed(settings.seed)
    network = builders.build_network(settings, splits.train, model.num_classes)
    results = {}
    for update in updates:
        for variable, value in zip(fresh, start, strict=True):
            variable.assign(value)
        model.network.set_weights(network.get_weights())
        # What is drawn in a step depends on its number.
        model.draws.assign(1_000_000 * settings.seed)
        model.seed = settings.seed
        callback = callback_of(update, splits.holdout)
        batches = splits.train.training_batches(
            batch_size=settings.batch_size, seed=settings.seed, epochs=settings.epochs
        )
        model.fit(
            batches,
            epochs=settings.epochs,
            steps_per_epoch=len(splits.train) // settings.batch_size,
            callbacks=[callback],
            shuffle=False,
            verbose=0,
        )
        labels = np.stack([epoch["label"].ravel() for epoch in callback.history])
        measuring = callback_of("all-debias", judge)
        measuring.set_model(model)
        measuring.on_train_begin()
        ece, conf, acc = measuring.measure(epoch=settings.epochs)
        clean_ece, _, accuracy = measuring.measure_clean()
        results[update] = labels, [ece.mean(), np.abs(conf - acc).mean(), clean_ece, accuracy]
    for variable, value in zip(fresh, start, strict=True):
        variable.assign(value)
    return results


def table_of(seeds: Sequence[Mapping[str, tuple[np.ndarray, list[float]]]]) -> tuple[float, dict]:
    """The difference between seeds of the first update, and the rows of the table.

    Args:
        seeds: What ``train`` returned for each.

    Returns:
        A float, NaN with one seed, and update -> float [columns, seeds].
    """
    reference = next(iter(seeds[0]))
    last = [results[reference][0][-1] for results in seeds]
    pairs = [np.abs(a - b).mean() for a, b in itertools.combinations(last, 2)]
    rows = {}
    for update in seeds[0]:
        columns = []
        for results, of_first in zip(seeds, last, strict=True):
            labels, figures = results[update]
            moves = np.abs(np.diff(labels[-LAST_EPOCHS - 1 :], axis=0)).mean()
            columns.append([np.abs(labels[-1] - of_first).mean(), moves, *figures])
        rows[update] = np.transpose(columns)
    return float(np.mean(pairs)) if pairs else float("nan"), rows


def shown(values: np.ndarray, scale: float, digits: int) -> str:
    """A mean, and its standard error if there is more than one value."""
    text = f"{scale * values.mean():.{digits}f}"
    if len(values) == 1:
        return text
    return f"{text} ± {scale * values.std(ddof=1) / len(values) ** 0.5:.{digits}f}"
