"""Figures of the label table: its labels, and the calibration of its buckets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_autolabel.plots.style import (
    evenly,
    legend_outside,
    line_style,
    middles,
    new_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISTANCE = "distance (0: clean, 1: farthest)"
LABEL = "label ỹ of the true class"
# Lines of the label against the distance: more are hard to tell apart.
MAX_EPOCHS_AS_LINES = 5


def plot_label_history(labels: np.ndarray, *, row_names: Sequence[str] | None = None) -> "Figure":
    """The learned labels: against the distance, and as a map of distance and epoch.

    Above, the label ỹ of the true class at a few epochs, the last one in bold; below, all epochs
    as a heat map. Each row of a table with two axes (AugMix: each depth) has its own column.
    Bucket n of N stands at its middle, (n + ½)/N. A table with one bucket a row is drawn as
    lines over the epochs instead, one for each row.

    Args:
        labels: float ``[epochs, *bucket_shape]`` in [0, 1], the table after each epoch (``label``
            of each entry of ``AutoLabel.history``, stacked).
        row_names: Names of the rows of the table; None: "depth 1", …

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If ``labels`` has no epoch or no axis of buckets, or the names do not fit.
        ImportError: If matplotlib is missing.

    Example:
        >>> labels = np.linspace([1.0, 1.0], [0.95, 0.7], num=4)  # [epochs, buckets]
        >>> figure = plot_label_history(labels)
        >>> # figure.savefig("labels.png")
    """
    labels = np.asarray(labels)
    if labels.ndim < 2 or not labels.size:
        raise ValueError(
            "labels must have shape [epochs, *bucket_shape], at least one epoch. "
            f"Received: labels.shape={labels.shape}"
        )
    tables = labels.reshape(len(labels), -1, labels.shape[-1])
    _, num_rows, num_buckets = tables.shape
    names = _names_of_rows(num_rows, row_names)
    # A small difference from 1 must not fill the axes.
    lowest = min(float(labels.min()), 0.95)
    if num_buckets == 1:
        return _lines_over_epochs(tables[..., 0], names, lowest)
    figure = new_figure(1.6 + 3.2 * num_rows, 6.3)
    grid = figure.subplots(2, num_rows, squeeze=False, sharex=True, sharey="row")
    for row, name in enumerate(names):
        _lines_of_epochs(grid[0, row], tables[:, row])
        mesh = _heat_map(grid[1, row], tables[:, row], lowest)
        tidy(grid[0, row], title=name)
        tidy(grid[1, row], xlabel=DISTANCE)
        grid[1, row].grid(False)
    grid[0, 0].set(ylim=(lowest - 0.02, 1.02), ylabel=LABEL)
    grid[1, 0].set_ylabel("epoch")
    figure.align_ylabels()
    legend_outside(figure, grid[0, 0], columns=3 if num_rows == 1 else MAX_EPOCHS_AS_LINES)
    figure.colorbar(mesh, ax=list(grid[1]), label="label ỹ", aspect=14, pad=0.02)
    return figure


def _names_of_rows(num_rows: int, row_names: Sequence[str] | None) -> list[str]:
    if row_names is None:
        return [""] if num_rows == 1 else [f"depth {row + 1}" for row in range(num_rows)]
    if len(row_names) != num_rows:
        raise ValueError(
            f"row_names must name the table's {num_rows} rows. Received: row_names={row_names}"
        )
    return list(row_names)


def _lines_over_epochs(labels: np.ndarray, names: Sequence[str], lowest: float) -> "Figure":
    figure = new_figure(5.4, 3.8)
    axes = figure.subplots()
    epochs = np.arange(1, len(labels) + 1)
    for row, name in enumerate(names):
        axes.plot(epochs, labels[:, row], **line_style(row), markevery=[-1], label=name)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set(xlim=(0.5, len(labels) + 0.5), ylim=(lowest - 0.02, 1.02))
    tidy(axes, xlabel="epoch", ylabel=LABEL)
    if any(names):
        legend_outside(figure, axes)
    return figure


def _lines_of_epochs(axes: "Axes", tables: np.ndarray) -> None:
    from matplotlib import colormaps

    last = len(tables) - 1
    for epoch in evenly(last + 1, MAX_EPOCHS_AS_LINES):
        # The palest blues are hardly seen on white: start inside the map.
        colour = colormaps["Blues"](1.0 - 0.65 * (last - epoch) / max(last, 1))
        bold = {"linewidth": 2.6, "marker": "o"} if epoch == last else {"linewidth": 1.6}
        x = middles(tables.shape[1])
        axes.plot(x, tables[epoch], color=colour, label=f"epoch {epoch + 1}", **bold)


def _heat_map(axes: "Axes", tables: np.ndarray, lowest: float):
    mesh = axes.imshow(
        tables,
        aspect="auto",
        origin="lower",
        extent=(0.0, 1.0, 0.5, len(tables) + 0.5),
        cmap="viridis",
        vmin=lowest,
        vmax=1.0,
        interpolation="nearest",
    )
    axes.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return mesh


def plot_bucket_calibration(
    ece: np.ndarray,
    accuracy: np.ndarray,
    confidence: np.ndarray,
    *,
    row_names: Sequence[str] | None = None,
) -> "Figure":
    """Accuracy, mean confidence and ECE of the hold-out in each bucket, against the distance.

    The gap between accuracy and confidence is shaded. Bucket n of N stands at its middle,
    (n + ½)/N; a bucket that is NaN is left out.

    Args:
        ece: float ``bucket_shape`` in [0, 1].
        accuracy: Same shape and range.
        confidence: Same shape and range: mean confidence of the network.
        row_names: What stands above each column; None: "depth 1", …

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If the shapes differ, or the names do not fit.
        ImportError: If matplotlib is missing.

    Example:
        >>> figure = plot_bucket_calibration(
        ...     np.array([0.02, 0.1]), np.array([0.9, 0.7]), np.array([0.92, 0.8]))
        >>> # figure.savefig("holdout.png")
    """
    shapes = [np.shape(table) for table in (ece, accuracy, confidence)]
    if shapes[0] == () or len(set(shapes)) > 1:
        raise ValueError(
            "ece, accuracy and confidence must have one shape, bucket_shape. Received: "
            "shapes {}, {} and {}".format(*shapes)
        )
    ece, accuracy, confidence = (
        np.reshape(table, (-1, shapes[0][-1])) for table in (ece, accuracy, confidence)
    )
    names = _names_of_rows(len(ece), row_names)
    figure = new_figure(1.4 + 3.2 * len(ece), 5.2)
    grid = figure.subplots(
        2, len(ece), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 2]
    )
    x = middles(ece.shape[1])
    for row, (above, below) in enumerate(grid.T):
        gap = {"color": line_style(1)["color"], "alpha": 0.15, "linewidth": 0}
        above.fill_between(x, accuracy[row], confidence[row], **gap, label="gap")
        above.plot(x, accuracy[row], **line_style(0), label="accuracy")
        above.plot(x, confidence[row], **line_style(1), label="mean confidence")
        below.plot(x, ece[row], **line_style(2), label="ECE")
        tidy(above, title=names[row], percent=True)
        tidy(below, xlabel=DISTANCE, percent=True)
    grid[0, 0].set(xlim=(0.0, 1.0), ylabel="on the hold-out")
    grid[1, 0].set(ylim=(0.0, None), ylabel="ECE")
    figure.align_ylabels()
    legend_outside(figure, grid[0, 0])
    return figure
