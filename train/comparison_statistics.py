"""What the files of a comparison's jobs say: figures, means over seeds, paired differences.

Nothing is drawn here, and nothing is trained: all is computed from ``job.json``,
``predictions.npz`` and ``history.csv``.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from keras_autolabel import calibration
from train import comparison, run_folder
from train.comparison import Job
from train.comparison_job import PREDICTIONS, TEMPERATURES
from train.evaluation import Row, figures_of_predictions, figures_of_rows
from train.reasons import reason_of
from train.settings import is_allowed

RESAMPLES = 500
# What reports read of ``job.json``.
KEYS = frozenset(
    ["data", "label_table", "parameters", "robust_accuracy", "settings", "threads", "versions"]
)
NORMAL_95 = 1.959964


class Predicted(NamedTuple):
    """What a network says of a set of images at one temperature.

    Attributes:
        corruption: Its name, ``"none"`` for clean images.
        severity: 1 to 5; 0 for clean images.
        confidence: float32 [M].
        correct: bool [M].
    """

    corruption: str
    severity: int
    confidence: np.ndarray
    correct: np.ndarray


@dataclasses.dataclass(frozen=True)
class Result:
    """A job that is done.

    Attributes:
        job: Which one.
        content: What ``job.json`` holds.
        predictions: Name of the temperature -> what is predicted for each set, clean first.
        history: The rows of ``history.csv``.
    """

    job: Job
    content: dict
    predictions: dict[str, list[Predicted]]
    history: list[dict[str, float]]

    @classmethod
    def read(cls, folder: str, job: Job) -> "Result":
        """Reads the files of a job out of the folder of its comparison.

        Raises:
            ValueError: If one is damaged; names it.
        """
        here = job.folder(folder)
        path = os.path.join(here, comparison.JOB)
        content = run_folder.read_json(path)
        settings = content.get("settings")
        bins = settings.get("num_bins") if isinstance(settings, dict) else None
        if not KEYS <= content.keys() or not is_allowed("num_bins", bins):
            raise ValueError(f"{path} is damaged: it must have {', '.join(sorted(KEYS))}.")
        path = os.path.join(here, PREDICTIONS)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                loaded = dict(arrays)
            predictions = _predictions_in(loaded)
        # What a damaged archive raises is nowhere said: BadZipFile, KeyError, zlib.error, ...
        except Exception as error:
            raise ValueError(f"{path} is damaged: {reason_of(error)}") from error
        return cls(job, content, predictions, run_folder.read_history(here))

    @property
    def num_bins(self) -> int:
        """Bins of the ECE."""
        return self.content["settings"]["num_bins"]


def _predictions_in(arrays: dict[str, np.ndarray]) -> dict[str, list[Predicted]]:
    sets = [key.split("/")[:2] for key in arrays if key.endswith("/correct")]
    predictions = {
        name: [
            Predicted(
                corruption,
                int(severity),
                arrays[f"{corruption}/{severity}/confidence"][number],
                arrays[f"{corruption}/{severity}/correct"],
            )
            for corruption, severity in sets
        ]
        for number, name in enumerate(TEMPERATURES)
    }
    for predicted in itertools.chain(*predictions.values()):
        calibration.check_pairs(predicted.confidence, predicted.correct)
    return predictions


def figures_of(predictions: Sequence[Predicted], num_bins: int) -> dict[str, float]:
    """``figures_of_rows`` of what a network predicts at one temperature, clean images first."""
    rows = []
    for corruption, severity, *pairs in predictions:
        figures = figures_of_predictions(*pairs, num_bins=num_bins)
        rows.append(Row("", corruption, severity, 1.0, figures))
    return figures_of_rows(rows)


class Summary(NamedTuple):
    """A figure over seeds.

    Attributes:
        mean: Its mean.
        error: The standard error of the mean; NaN of one seed.
        count: Seeds.
    """

    mean: float
    error: float
    count: int


def summary_of(values: Sequence[float]) -> Summary:
    """Mean and standard error, ``s/√n`` with n − 1 in s.

    Example:
        >>> summary_of([1.0, 3.0])
        Summary(mean=2.0, error=1.0, count=2)
    """
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(mean, math.nan, 1)
    return Summary(mean, float(np.std(values, ddof=1)) / math.sqrt(len(values)), len(values))


class Difference(NamedTuple):
    """How much larger a figure of one method is than that of another, with the same seeds.

    Attributes:
        mean: Mean of the differences.
        low: Lower end of its 95 % interval, by Student's t; NaN of one seed.
        high: Upper end.
        count: Seeds.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0.0 or self.high < 0.0


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Ours minus theirs, figures by seed, over the seeds that both were trained with.

    Raises:
        ValueError: If there is no seed of both.

    Example:
        >>> difference = paired_difference({1: 3.0, 2: 5.0}, {1: 2.0, 2: 3.0})
        >>> difference.mean, round(difference.high - difference.mean, 3)  # 12.706 * 0.5
        (1.5, 6.353)
    """
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise ValueError(f"There is no seed of both. Received: {list(ours)} and {list(theirs)}")
    mean, error, count = summary_of([ours[seed] - theirs[seed] for seed in shared])
    half = error * float(stats.t.ppf(0.975, count - 1)) if count > 1 else math.nan
    return Difference(mean, mean - half, mean + half, count)


def resampled_debiased(
    predictions: Sequence[Predicted], weights: np.ndarray, num_bins: int
) -> np.ndarray:
    """Mean debiased ECE over sets of the same images, in each of many draws of these images.

    A draw with replacement adds its own noise to the bins, of the same size as the one that is
    there: twice the square of the floor is taken off.

    ``weights``, [R, M], say how often each of R draws holds each of the M images of a set.
    """
    total = np.zeros(len(weights))
    images = weights.shape[1]
    for _, _, confidence, correct in predictions:
        confidence = confidence.astype(np.float64)
        gaps = np.zeros([images, num_bins])
        place = calibration.numpy_bins(confidence, num_bins)
        gaps[np.arange(images), place] = correct - confidence
        ece = np.abs(weights @ gaps).sum(axis=-1) / images
        floor = calibration.noise_floor(confidence, num_bins=num_bins)
        total += np.sqrt(np.maximum(ece**2 - 2.0 * floor**2, 0.0))
    return total / len(predictions)


def image_error(
    ours: Sequence[Sequence[Predicted]],
    theirs: Sequence[Sequence[Predicted]],
    num_bins: int,
    *,
    resamples: int = RESAMPLES,
) -> float:
    """Standard error of a difference of mean debiased ECEs, from the choice of test images.

    Images are drawn with replacement, the same for all networks and all sets (paired bootstrap).

    Ours and theirs are the sets of each seed. It is the standard deviation over draws of the
    difference of the means over seeds.
    """
    images = len(ours[0][0].correct)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(images, np.full(images, 1.0 / images), size=resamples)
    weights = weights.astype(np.float64)
    means = [
        np.mean([resampled_debiased(sets, weights, num_bins) for sets in of_seeds], axis=0)
        for of_seeds in (ours, theirs)
    ]
    return float(np.std(means[0] - means[1], ddof=1))
