"""Measures a classifier: clean, corrupted, attacked. Of the images, one batch is in memory."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import data
import keras_autolabel as kal
from data import corrupted_sets
from keras_autolabel.augment.attack import crossentropy_of_truth, margin
from keras_autolabel.calibration import (
    binned_ece,
    confidence_gap,
    debiased_ece,
    noise_floor,
    sums_of_predictions,
)
from keras_autolabel.ranking import aurc, e_aurc
from train.predictor import Predictor, size_of
from train.reasons import reason_of

ATTACK_LOSSES = {"crossentropy": crossentropy_of_truth, "margin": margin}
# Corruption and severity of the clean images.
CLEAN = ("none", 0)


class Scores:
    """Accuracy, calibration, ranking, NLL and Brier score of a set, taken batch by batch.

    Nine bytes of each example are kept: its confidence, and whether it is right.

    Args:
        num_bins: Bins of the ECE.

    Example:
        >>> scores = Scores()
        >>> scores.add(np.array([0]), np.array([[0.0, 0.0]]))
        >>> scores.figures()["brier"]
        0.5
    """

    def __init__(self, num_bins: int = 15):
        self.num_bins = num_bins
        self.confidence: list[np.ndarray] = []
        self.correct: list[np.ndarray] = []
        self.nll = self.brier = 0.0

    def add(self, labels: np.ndarray, logits: np.ndarray) -> None:
        """Adds a batch: labels, int [B], and logits, float [B, K]."""
        logits = np.asarray(logits, np.float64)
        if len(labels) and max(labels) >= logits.shape[-1]:
            raise ValueError(
                f"There are labels up to {max(labels)}, but the model knows "
                f"{logits.shape[-1]} classes."
            )
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        probabilities = np.exp(log_probabilities)
        errors = probabilities - np.eye(logits.shape[-1])[labels]
        self.confidence.append(probabilities.max(axis=-1))
        self.correct.append(logits.argmax(axis=-1) == labels)
        self.nll -= float(log_probabilities[np.arange(len(labels)), labels].sum())
        self.brier += float((errors**2).sum())

    def figures(self) -> dict[str, float]:
        """The figures of all that was added.

        Returns:
            A dict: ``examples``; ``accuracy`` in [0, 1]; ``ece``, with ``ece_floor``, what noise
            alone would give, and ``ece_debiased``, without it, all in [0, 1] (``binned_ece``,
            ``noise_floor`` and ``debiased_ece`` of ``keras_autolabel.calibration``); ``gap``,
            confidence − accuracy in [−1, 1]; ``nll``, the mean negative log-likelihood in nats;
            ``brier``, the mean over examples of the squared error summed over classes, in [0, 2];
            ``aurc`` and ``e_aurc`` in [0, 1] (``keras_autolabel.ranking``).
        """
        confidence, correct = self.predictions()
        examples = len(correct)
        means = {"nll": self.nll / examples, "brier": self.brier / examples}
        figures = figures_of_predictions(confidence, correct, num_bins=self.num_bins, **means)
        return {"examples": examples, **figures}

    def predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each example its confidence, float64 [M], and whether it is right, bool [M]."""
        return np.concatenate(self.confidence), np.concatenate(self.correct)

    def sums(self) -> np.ndarray:
        """What a reliability diagram is drawn from, float64 [num_bins, 3]."""
        return sums_of_predictions(*self.predictions(), self.num_bins)


def figures_of_predictions(
    confidence: np.ndarray, correct: np.ndarray, *, num_bins: int = 15, **means: float
) -> dict[str, float]:
    """The figures that need no more of an example than its confidence and whether it is right.

    They are those of ``Scores.figures``, with other means among them.

    Example:
        >>> figures = figures_of_predictions(np.array([0.75, 0.75]), np.array([True, False]))
        >>> figures["accuracy"], figures["ece"], figures["gap"]
        (0.5, 0.25, 0.25)
    """
    return {
        "accuracy": float(np.mean(correct)),
        "ece": binned_ece(confidence, correct, num_bins=num_bins),
        "ece_floor": noise_floor(confidence, num_bins=num_bins),
        "ece_debiased": debiased_ece(confidence, correct, num_bins=num_bins),
        "gap": confidence_gap(confidence, correct),
        **means,
        "aurc": aurc(confidence, correct),
        "e_aurc": e_aurc(confidence, correct),
    }


def figures_of(labels: np.ndarray, logits: np.ndarray, *, num_bins: int = 15) -> dict[str, float]:
    """``Scores.figures`` of labels, int [M], and logits, float [M, K], that are all there."""
    scores = Scores(num_bins)
    scores.add(labels, logits)
    return scores.figures()


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

    Batches are pairs of uint8 [B, H, W, C] and int [B].
    """
    scores = [Scores(num_bins) for _ in temperatures]
    for images, labels in batches:
        logits = predictor.logits(np.asarray(images))
        for score, temperature in zip(scores, temperatures, strict=True):
            score.add(np.asarray(labels), logits / temperature)
    return scores


def temperature_of(predictor: Predictor, holdout: data.Split, *, batch_size: int) -> float:
    """The temperature that a clean hold-out gives a classifier."""
    batches = holdout.batches(batch_size)
    logits = np.concatenate([predictor.logits(np.asarray(images)) for images, _ in batches])
    return kal.TemperatureScaling().fit(holdout.labels, logits).temperature


def describe_corrupted(
    directory: str,
    splits: data.Splits,
    *,
    corruptions: str | None,
    severities: Sequence[int] | None,
) -> dict[str, str | int | None]:
    """How reports call a corrupted set; refuses one that is not of the clean test images.

    Arguments are those of ``scores_of_sets``.

    Returns:
        ``name``, and ``seed``, that of a generated set; None for a published one.

    Raises:
        ValueError: If its classes, its labels, its size or the name of its data set are not those
            of the clean data; of many files, the first one is looked at.
        FileNotFoundError: If a folder or a file is missing.
    """
    described = {"name": f"{pathlib.Path(directory).resolve().name} (published tree)", "seed": None}
    if not corrupted_sets.is_image_tree(directory):
        found = corrupted_sets.open_corrupted(directory)
        _check_origin(found, splits)
        described["name"] = f"{found.name}, {found.examples:,} images per set"
        described["seed"] = found.seed
    parts, _ = _parts(directory, splits, corruptions, severities)
    next(_batches(next(parts), 1, directory, splits.test.image_shape))
    return described


def _check_origin(found: corrupted_sets.CorruptedSet, splits: data.Splits) -> None:
    if found.dataset not in (None, splits.name):
        raise ValueError(
            f"{found.directory} was made of {found.dataset}; the clean images are of {splits.name}."
        )
    clean = splits.test.labels
    # A published set of fewer images may hold any of them.
    if not found.generated and found.examples != len(clean):
        return
    if found.examples <= len(clean):
        clean = clean[corrupted_sets.choose_examples(clean, found.examples)]
    if not np.array_equal(found.labels, clean):
        raise ValueError(
            f"{found.directory} has other labels than the test images of {splits.name}: it was "
            "made of other images."
        )


def scores_of_sets(
    predictor: Predictor,
    splits: data.Splits,
    temperatures: Sequence[float],
    directory: str | None,
    *,
    corruptions: str | None = None,
    severities: Sequence[int] | None = None,
    batch_size: int,
    num_bins: int,
) -> Iterator[tuple[str, int, list[Scores]]]:
    """The scores on the clean test images, and then on each corrupted set in a folder.

    Args:
        predictor: The classifier.
        splits: The clean data: size and classes of corrupted images must be theirs.
        temperatures: What the logits are divided by.
        directory: CIFAR-10-C, CIFAR-100-C, a generated set, or a tree such as ImageNet-C; None:
            clean images alone.
        corruptions: Groups or names; None: all in the folder.
        severities: Out of 1 to 5; None: all in the folder.
        batch_size: Images that are predicted at once.
        num_bins: Bins of the ECE.

    Returns:
        An iterator over (corruption, severity, ``Scores`` of each temperature), ``CLEAN`` first; a
        set is read when its turn comes.

    Raises:
        ValueError: If images are of another size than the clean ones, or a tree has other classes.
        FileNotFoundError: If a folder or a file is missing.
    """
    batches = splits.test.batches(batch_size)
    yield *CLEAN, scores_of(predictor, batches, temperatures, num_bins=num_bins)
    if directory is None:
        return
    parts, count = _parts(directory, splits, corruptions, severities)
    for part in tqdm(
        parts, total=count, desc=f"{predictor.name}, corrupted", unit="set", disable=None
    ):
        batches = _batches(part, batch_size, directory, splits.test.image_shape)
        scores = scores_of(predictor, batches, temperatures, num_bins=num_bins)
        yield part.corruption, part.severity, scores


def _parts(directory, splits, corruptions, severities) -> tuple[Iterator, int]:
    """The parts of a set, each read when its turn comes, and how many there are."""
    if corrupted_sets.is_image_tree(directory):
        names = corrupted_sets.corruption_names(corruptions or "hendrycks15")
        severities = severities or corrupted_sets.SEVERITIES
        parts = corrupted_sets.read_imagenet_c(
            directory, corruptions=names, severities=severities, class_ids=splits.class_names
        )
        return parts, len(names) * len(severities)
    found = corrupted_sets.open_corrupted(directory)
    names, severities = found.corruptions, severities or found.severities
    if corruptions:
        asked = corrupted_sets.corruption_names(corruptions)
        # Where all were skipped, the reader says why.
        names = [name for name in asked if name not in found.skipped] or asked
    parts = corrupted_sets.read_corrupted(directory, corruptions=names, severities=severities)
    return parts, len(names) * len(severities)


def _batches(part, batch_size, directory, image_shape) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(part.labels), batch_size):
        rows = slice(start, start + batch_size)
        if isinstance(part, corrupted_sets.CorruptedFiles):
            files = part.files[rows]
            images = [corrupted_sets.read_image(file) for file in files]
        else:
            files = [pathlib.Path(directory) / f"{part.corruption}.npy"]
            images = part.images[rows]
        # The images of an array are of one size: the first tells it.
        for file, image in zip(files, images, strict=False):
            if image.shape != image_shape:
                raise ValueError(
                    f"{file} must be {size_of(image_shape)}, as the clean test images are. "
                    f"Received: {size_of(image.shape)}"
                )
        yield np.asarray(images), part.labels[rows]


# Name of the mean over corruptions -> the figure of each set.
MEANS = {
    "cacc": "accuracy",
    "cece": "ece",
    "cece_floor": "ece_floor",
    "cece_debiased": "ece_debiased",
    "cgap": "gap",
    "caurc": "aurc",
    "ce_aurc": "e_aurc",
}


def mean_over_corruptions(rows: Sequence[Row]) -> dict[str, float]:
    """cAcc and cECE as the paper defines them: means over all types and severities.

    Args:
        rows: Rows of one model at one temperature; clean ones do not count.

    Returns:
        Name -> mean, for the names of ``MEANS``; and ``cgap_size``, the mean of |gap|, in which
        sets that are too sure do not make up for others that are not sure enough.

    Example:
        >>> def row(severity, accuracy, gap):
        ...     figures = dict.fromkeys(MEANS.values(), 0.25) | {"accuracy": accuracy, "gap": gap}
        ...     return Row("m", "fog", severity, 1.0, figures)
        >>> means = mean_over_corruptions([row(0, 1.0, 0.0), row(1, 0.75, 0.5), row(2, 0.25, -0.5)])
        >>> means["cacc"], means["cece"], means["cgap"], means["cgap_size"]
        (0.5, 0.25, 0.0, 0.5)
    """
    corrupted = [row.figures for row in rows if row.severity > 0]
    columns = {name: [figures[key] for figures in corrupted] for name, key in MEANS.items()}
    columns["cgap_size"] = [abs(gap) for gap in columns["cgap"]]
    return {name: math.fsum(values) / len(corrupted) for name, values in columns.items()}


def figures_of_rows(rows: Sequence[Row]) -> dict[str, float]:
    """All figures of one model at one temperature, out of its rows, the clean one first.

    They are those of clean images, and those of ``mean_over_corruptions`` if there are any.
    """
    return rows[0].figures | (mean_over_corruptions(rows) if len(rows) > 1 else {})


def examples_of(splits: data.Splits, examples: int | None) -> data.Split:
    """The test images that are corrupted or attacked; None: all."""
    test = splits.test
    rows = corrupted_sets.choose_examples(test.labels, min(examples or len(test), len(test)))
    return data.in_memory(test.select(rows))


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
        epsilons: ε on the scale of [0, 1]; the others are as in ``projected_gradient_descent``.
        num_steps: Steps of each restart.
        num_restarts: Random starts.
        loss: One of ``ATTACK_LOSSES``.
        seed: Of the random starts.
        batch_size: Images that are attacked at once.

    Returns:
        ε -> share of examples that no restart broke; first that of 0.0, without an attack.

    Raises:
        ValueError: If the attack finds probabilities, or a gradient that is not finite.
    """

    # AutoGraph would take seconds to translate what has no loop or condition of Python's.
    @tf.function(reduce_retracing=True, autograph=False)
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
        total=len(epsilons) * len(starts),
        desc=f"{predictor.name}, PGD",
        unit="batch",
        disable=None,
    ) as bar:
        clean = [predictor.logits(images[x : x + batch_size]).argmax(axis=-1) for x in starts]
        accuracy = {0.0: float(np.mean(np.concatenate(clean) == labels))}
        for epsilon in epsilons:
            correct = 0
            for start in starts:
                rows = slice(start, start + batch_size)
                batch = tf.cast(images[rows], tf.float32) / 255.0, tf.cast(labels[rows], tf.int32)
                try:
                    correct += int(attack(*batch, tf.constant(epsilon), tf.constant([seed, start])))
                except tf.errors.InvalidArgumentError as error:
                    raise ValueError(f"{predictor.name}: {reason_of(error)}") from error
                bar.update()
            accuracy[epsilon] = correct / len(labels)
    return accuracy
