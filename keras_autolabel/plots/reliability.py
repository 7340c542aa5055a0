"""The reliability diagram."""

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_autolabel.calibration import calibration_of, calibration_sums
from keras_autolabel.plots.style import (
    BLUE,
    DARK,
    GREEN,
    ORANGE,
    legend_outside,
    middles,
    new_figure,
    tidy,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Width of a bar, as a share of its bin.
BAR = 0.92


def plot_reliability(
    labels: np.ndarray, probabilities: np.ndarray, *, num_bins: int = 15
) -> "Figure":
    """Accuracy against confidence, bin by bin, and how many predictions each bin holds.

    The hatched part of a bar is the gap between its accuracy and its mean confidence: weighted by
    the histogram below, the gaps make the ECE. Its colour says which of the two is larger.

    Args:
        labels: int [B], the true classes.
        probabilities: float [B, K], rows that sum to 1.
        num_bins: Number of equal-width bins of the confidence.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If there is no prediction, or not one for each label.
        ImportError: If matplotlib is missing.

    Example:
        >>> figure = plot_reliability([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> # figure.savefig("reliability.png")
    """
    labels, probabilities = np.asarray(labels).reshape(-1), np.asarray(probabilities)
    if probabilities.ndim != 2 or not 0 < len(labels) == len(probabilities):
        raise ValueError(
            "labels [B] and probabilities [B, K] must hold the same number of examples, at least "
            f"one. Received: labels {labels.shape}, probabilities {probabilities.shape}"
        )
    sums = calibration_sums(
        tf.constant(labels, tf.int32), tf.constant(probabilities, tf.float32), num_bins=num_bins
    )
    return plot_reliability_of_sums(sums[0].numpy())


def plot_reliability_of_sums(sums: np.ndarray) -> "Figure":
    """Draws ``plot_reliability`` out of sums, for data that does not fit into memory.

    Args:
        sums: float [num_bins, 3], what ``calibration.calibration_sums`` gives for one bucket,
            added up over all batches.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If there is no prediction.
        ImportError: If matplotlib is missing.

    Example:
        >>> figure = plot_reliability_of_sums(np.array([[0.0, 0.0, 0.0], [2.0, 1.5, 1.0]]))
        >>> # figure.savefig("reliability.png")
    """
    if not np.sum(sums[:, 0]) > 0:
        raise ValueError("There is no prediction to draw: the sums are those of no example.")
    ece, mean_confidence, mean_accuracy = (float(x) for x in calibration_of(sums))
    count = sums[:, 0]
    figure = new_figure(5.2, 6.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _bars_and_gaps(upper, sums)
    lower.bar(middles(len(sums)), count / count.sum(), BAR / len(sums), color=tint(BLUE, 0.6))
    lower.axvline(mean_confidence, color=DARK, linewidth=1.2, linestyle="--")
    upper.set_xlim(0.0, 1.0)
    upper.set_ylim(0.0, 1.0)
    tidy(upper, ylabel="accuracy")
    tidy(lower, xlabel="confidence (dashed: its mean)", ylabel="share of examples", percent=True)
    figure.align_ylabels()
    legend_outside(figure, upper, columns=2, place="lower")
    title = (
        f"accuracy {mean_accuracy:.1%}, mean confidence {mean_confidence:.1%}\n"
        f"ECE {ece:.1%} of {count.sum():,.0f} examples"
    )
    figure.suptitle(title, fontsize=12, color=DARK)
    return figure


def _bars_and_gaps(axes: "Axes", sums: np.ndarray) -> None:
    """Bars up to the accuracy of each bin that holds a prediction, and hatched gaps."""
    filled = sums[:, 0] > 0
    x, width = middles(len(sums))[filled], BAR / len(sums)
    count, confidence, correct = sums[filled].T
    accuracy = correct / count
    gap = confidence / count - accuracy
    axes.bar(x, accuracy, width, color=tint(BLUE, 0.6), label="accuracy")
    for name, colour, hatch, side in (
        ("gap: over-confident", ORANGE, "////", gap > 0),
        ("gap: under-confident", GREEN, "\\\\\\\\", gap < 0),
    ):
        # matplotlib gives the key of no bars another bar's colour.
        if side.any():
            style = {"facecolor": tint(colour, 0.25), "edgecolor": colour, "hatch": hatch}
            axes.bar(x[side], gap[side], width, bottom=accuracy[side], label=name, **style)
    axes.plot([0, 1], [0, 1], color=DARK, linewidth=1.2, linestyle="--", label="calibrated")
