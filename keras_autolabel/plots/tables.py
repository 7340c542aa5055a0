"""Figures of the label table: how far each bucket is, its labels, its calibration."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_autolabel.batch import AugmentedBatch
from keras_autolabel.plots.draws import takes_buckets
from keras_autolabel.plots.order import evenly, sorted_rows, titles_of_rows
from keras_autolabel.plots.style import (
    BLUE,
    COLOUR_MAP,
    GREEN,
    ORANGE,
    in_percent,
    new_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X_LABEL = "distance (clean on the left)"
# Lines of the label against the distance: more are hard to tell apart.
MAX_EPOCHS_AS_LINES = 5
MAX_TICKS = 6


def bucket_distances(
    augmentation: Callable[..., AugmentedBatch],
    image_shape: Sequence[int],
    *,
    network: Callable[..., tf.Tensor] | None = None,
    draws: int = 32,
) -> np.ndarray:
    """Mean distance of each bucket, measured: the augmentation moves grey images.

    All buckets share one seed, so that they differ in nothing but the bucket.

    Args:
        augmentation: ``augmentation(images, labels, *, seed, bucket, network) -> AugmentedBatch``
            with a ``bucket_shape``.
        image_shape: (H, W, C) of an image.
        network: For augmentations that attack a network.
        draws: Images per bucket; mixup needs at least 2.

    Returns:
        float ``bucket_shape``, distances in [0, 1].

    Raises:
        ValueError: If ``draws`` is below 1.

    Example:
        >>> from keras_autolabel import AugMix
        >>> distance = bucket_distances(AugMix(num_buckets=2, max_depth=1), (8, 8, 1))
        >>> bool(distance[0, 0] > 0.5 > distance[0, 1])
        True
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1. Received: draws={draws}")
    shape = tuple(augmentation.bucket_shape)
    images = tf.fill([draws, *image_shape], 0.5)
    labels = tf.zeros([draws], tf.int32)
    seed = tf.constant([0, 0])
    moves = takes_buckets(augmentation)
    distances = [
        moves(images, labels, seed=seed, bucket=bucket, network=network).distance
        for bucket in range(int(np.prod(shape)))
    ]
    return np.mean(distances, axis=-1).reshape(shape)


def plot_label_history(
    labels: np.ndarray, distance: np.ndarray, *, row_names: Sequence[str] | None = None
) -> "Figure":
    """The learned labels: against the distance, and as a map of distance and epoch.

    Above, the label ỹ of the true class at a few epochs, the last one in bold; below, all epochs
    as a heat map. Each row of a table with two axes (AugMix: each depth) has its own column.

    Args:
        labels: float [epochs, *bucket_shape] in [0, 1], the table after each epoch (``label`` of
            each entry of ``AutoLabel.history``, stacked).
        distance: float ``bucket_shape``, see ``bucket_distances``.
        row_names: What stands above each column; None: "depth 1", …

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If the shapes do not fit.
        ImportError: If matplotlib is missing.

    Example:
        >>> labels = np.linspace([1.0, 1.0], [0.95, 0.7], num=4)  # [epochs, buckets]
        >>> figure = plot_label_history(labels, np.array([0.25, 0.75]))
        >>> # figure.savefig("labels.png")
    """
    labels = np.asarray(labels)
    if labels.ndim != np.ndim(distance) + 1 or not len(labels):
        raise ValueError(
            "labels must have shape [epochs, *bucket_shape]. Received: "
            f"labels {labels.shape}, distance {np.shape(distance)}"
        )
    tables = sorted_rows(labels, distance)
    distances = sorted_rows(distance, distance)
    num_rows = len(distances)
    titles = titles_of_rows(num_rows, row_names)
    figure = new_figure(1.6 + 3.2 * num_rows, 6.3)
    grid = figure.subplots(2, num_rows, squeeze=False, sharey="row")
    lowest = min(float(tables.min()), 0.95)
    for row in range(num_rows):
        _lines_of_epochs(grid[0, row], distances[row], tables[:, row], title=titles[row])
        mesh = _heat_map(grid[1, row], distances[row], tables[:, row], lowest)
    grid[0, 0].set_ylabel("label ỹ of the true class")
    grid[1, 0].set_ylabel("epoch")
    figure.align_ylabels()
    lines, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        lines, names, loc="outside upper center", ncols=3 if num_rows == 1 else 5, frameon=False
    )
    figure.colorbar(mesh, ax=list(grid[1]), label="label ỹ", aspect=14, pad=0.02)
    return figure


def _lines_of_epochs(axes: "Axes", distance: np.ndarray, tables: np.ndarray, *, title: str):
    from matplotlib import colormaps

    last = len(tables) - 1
    for epoch in evenly(last + 1, MAX_EPOCHS_AS_LINES):
        # The palest blues are hardly seen on white: start inside the map.
        colour = colormaps["Blues"](1.0 - 0.65 * (last - epoch) / max(last, 1))
        bold = {"linewidth": 2.6, "marker": "o"} if epoch == last else {"linewidth": 1.6}
        axes.plot(distance, tables[epoch], color=colour, label=f"epoch {epoch + 1}", **bold)
    axes.set_xlim(0.0, 1.0)
    tidy(axes, xlabel=X_LABEL, title=title)


def _heat_map(axes: "Axes", distance: np.ndarray, tables: np.ndarray, lowest: float):
    from matplotlib.ticker import MaxNLocator

    tidy(axes, xlabel=X_LABEL)
    axes.grid(False)
    epochs, buckets = tables.shape
    mesh = axes.imshow(
        tables,
        aspect="auto",
        origin="lower",
        extent=(-0.5, buckets - 0.5, 0.5, epochs + 0.5),
        cmap=COLOUR_MAP,
        vmin=lowest,
        vmax=1.0,
        interpolation="nearest",
    )
    shown = np.arange(0, buckets, -(-buckets // MAX_TICKS))
    axes.set_xticks(shown, [f"{distance[bucket]:.2f}" for bucket in shown])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return mesh


def plot_bucket_calibration(
    ece: np.ndarray,
    accuracy: np.ndarray,
    confidence: np.ndarray,
    distance: np.ndarray,
    *,
    row_names: Sequence[str] | None = None,
) -> "Figure":
    """Accuracy, mean confidence and ECE of the hold-out in each bucket, against the distance.

    The gap between accuracy and confidence is shaded. A bucket that is NaN is left out.

    Args:
        ece: float ``bucket_shape`` in [0, 1].
        accuracy: Same shape and range.
        confidence: Same shape and range: mean confidence of the network.
        distance: Same shape, see ``bucket_distances``.
        row_names: What stands above each column; None: "depth 1", …

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If the shapes do not fit.
        ImportError: If matplotlib is missing.

    Example:
        >>> figure = plot_bucket_calibration(
        ...     np.array([0.02, 0.1]), np.array([0.9, 0.7]), np.array([0.92, 0.8]),
        ...     np.array([0.25, 0.75]))
        >>> # figure.savefig("holdout.png")
    """
    for name, table in {"ece": ece, "accuracy": accuracy, "confidence": confidence}.items():
        if np.shape(table) != np.shape(distance):
            raise ValueError(
                f"{name} must have the shape of distance. "
                f"Received: {name} {np.shape(table)}, distance {np.shape(distance)}"
            )
    ece, accuracy, confidence, distances = (
        sorted_rows(table, distance) for table in (ece, accuracy, confidence, distance)
    )
    titles = titles_of_rows(len(distances), row_names)
    figure = new_figure(1.4 + 3.2 * len(distances), 5.2)
    grid = figure.subplots(
        2, len(distances), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 2]
    )
    for row, x in enumerate(distances):
        _accuracy_and_confidence(grid[0, row], x, accuracy[row], confidence[row])
        grid[1, row].plot(x, ece[row], color=GREEN, marker="D", linewidth=2, label="ECE")
        tidy(grid[0, row], title=titles[row])
        tidy(grid[1, row], xlabel=X_LABEL)
    grid[0, 0].set_xlim(0.0, 1.0)
    grid[1, 0].set_ylim(bottom=0.0)
    grid[0, 0].set_ylabel("on the hold-out")
    grid[1, 0].set_ylabel("ECE")
    in_percent(grid[0, 0])
    in_percent(grid[1, 0])
    figure.align_ylabels()
    lines, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _accuracy_and_confidence(axes: "Axes", x, accuracy, confidence) -> None:
    axes.fill_between(x, accuracy, confidence, color=ORANGE, alpha=0.15, linewidth=0, label="gap")
    axes.plot(x, accuracy, color=BLUE, marker="o", linewidth=2, label="accuracy")
    axes.plot(x, confidence, color=ORANGE, marker="s", linewidth=2, label="mean confidence")
