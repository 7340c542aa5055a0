"""Measures a classifier: clean, corrupted, attacked. Memory does not grow with the data."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import keras_autolabel as kal
from data import corrupted_sets
from keras_autolabel.augment.attack import crossentropy_of_truth, margin
from train.predictor import Predictor
from train.report import Scores

ATTACK_LOSSES = {"crossentropy": crossentropy_of_truth, "margin": margin}


@dataclasses.dataclass(frozen=True)
class Row:
    """The figures of one set of images at one temperature.

    Attributes:
        model: Name of the model.
        corruption: Name of the corruption, ``"none"`` for clean images.
        severity: 1 to 5; 0 for clean images.
        temperature: What the logits were divided by.
        figures: What ``Scores.figures`` returns.
    """

    model: str
    corruption: str
    severity: int
    temperature: float
    figures: dict[str, float]


def scores_of(
    predictor: Predictor,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    temperatures: Sequence[float],
    *,
    num_bins: int = 15,
) -> list[Scores]:
    """The scores of a classifier at several temperatures, in one pass.

    Args:
        predictor: The classifier.
        batches: (uint8 [B, H, W, C], int [B]) pairs.
        temperatures: What the logits are divided by.
        num_bins: Bins of the ECE.

    Returns:
        ``Scores``, one for each temperature.
    """
    scores = [Scores(num_bins) for _ in temperatures]
    for images, labels in batches:
        logits = predictor.logits(np.asarray(images))
        for score, temperature in zip(scores, temperatures, strict=True):
            score.add(np.asarray(labels), logits / temperature)
    return scores


def corrupted_rows(
    predictor: Predictor,
    directory: str,
    temperatures: Sequence[float],
    *,
    corruptions: str | None,
    severities: Sequence[int] | None,
    batch_size: int,
    num_bins: int,
) -> list[Row]:
    """The figures for each corruption and severity in a folder.

    Args:
        predictor: The classifier.
        directory: CIFAR-10-C, CIFAR-100-C, a generated set, or a tree such as ImageNet-C.
        temperatures: What the logits are divided by.
        corruptions: Groups or names; None: all in the folder.
        severities: Out of 1 to 5; None: all in the folder.
        batch_size: Images that are predicted at once.
        num_bins: Bins of the ECE.

    Returns:
        A row for each corruption, severity and temperature.
    """
    rows = []
    parts = _parts(directory, corruptions, severities)
    for part in tqdm(parts, desc=f"{predictor.name}, corrupted", unit="set"):
        batches = _batches(part, batch_size)
        scores = scores_of(predictor, batches, temperatures, num_bins=num_bins)
        rows += [
            Row(predictor.name, part.corruption, part.severity, temperature, score.figures())
            for temperature, score in zip(temperatures, scores, strict=True)
        ]
    return rows


def _parts(directory, corruptions, severities) -> list:
    if corrupted_sets.is_image_tree(directory):
        chosen = {"corruptions": corruptions} if corruptions else {}
        chosen |= {"severities": severities} if severities else {}
        return list(corrupted_sets.read_imagenet_c(directory, **chosen))
    chosen = None
    if corruptions:
        skipped = corrupted_sets.open_corrupted(directory).skipped
        chosen = [x for x in corrupted_sets.corruption_names(corruptions) if x not in skipped]
    return list(corrupted_sets.read_corrupted(directory, corruptions=chosen, severities=severities))


def _batches(part, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(part.labels), batch_size):
        rows = slice(start, start + batch_size)
        if hasattr(part, "files"):
            images = np.stack([corrupted_sets.read_image(file) for file in part.files[rows]])
        else:
            images = part.images[rows]
        yield images, part.labels[rows]


def mean_over_corruptions(rows: Sequence[Row]) -> dict[str, float]:
    """cAcc and cECE as the paper defines them: means over all types and severities.

    Args:
        rows: Rows of one model at one temperature; clean ones do not count.

    Returns:
        ``{"cacc": ..., "cece": ...}``, each in [0, 1].

    Example:
        >>> rows = [Row("m", "fog", s, 1.0, {"accuracy": a, "ece": 0.25})
        ...         for s, a in ((0, 1.0), (1, 0.75), (2, 0.25))]
        >>> mean_over_corruptions(rows)
        {'cacc': 0.5, 'cece': 0.25}
    """
    corrupted = [row.figures for row in rows if row.severity > 0]
    return {
        "cacc": math.fsum(figures["accuracy"] for figures in corrupted) / len(corrupted),
        "cece": math.fsum(figures["ece"] for figures in corrupted) / len(corrupted),
    }


def robust_accuracy(
    predictor: Predictor,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilons: Sequence[float],
    num_steps: int,
    num_restarts: int,
    loss: str,
    seed: int,
    batch_size: int,
) -> dict[float, float]:
    """Accuracy under PGD, with steps of ε/4 as in section 5.1 of the paper.

    Args:
        predictor: The classifier.
        images: uint8 [M, H, W, C].
        labels: int [M].
        epsilons: ε on the scale of [0, 1].
        num_steps: Steps of each restart.
        num_restarts: Random starts.
        loss: One of ``ATTACK_LOSSES``.
        seed: Seed of the random starts.
        batch_size: Images that are attacked at once.

    Returns:
        ε -> share of examples that no restart broke.
    """

    @tf.function(reduce_retracing=True)
    def attack(images, labels, epsilon, batch_seed):
        moved = kal.projected_gradient_descent(
            predictor.network,
            images,
            labels,
            epsilon=epsilon,
            num_steps=num_steps,
            step_size=epsilon / 4.0,
            num_restarts=num_restarts,
            seed=batch_seed,
            loss=ATTACK_LOSSES[loss],
        )
        predicted = tf.argmax(predictor.network(moved, training=False), axis=-1)
        return tf.reduce_sum(tf.cast(tf.cast(predicted, tf.int32) == labels, tf.int32))

    starts = range(0, len(labels), batch_size)
    with tqdm(
        total=len(epsilons) * len(starts), desc=f"{predictor.name}, PGD", unit="batch"
    ) as bar:
        accuracy = {}
        for epsilon in epsilons:
            correct = 0
            for start in starts:
                rows = slice(start, start + batch_size)
                batch = tf.cast(images[rows], tf.float32) / 255.0, tf.cast(labels[rows], tf.int32)
                correct += int(attack(*batch, tf.constant(epsilon), tf.constant([seed, start])))
                bar.update()
            accuracy[epsilon] = correct / len(labels)
    return accuracy
