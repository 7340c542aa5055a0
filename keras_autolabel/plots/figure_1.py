"""After Figure 1 of the AutoLabel paper: labels by distance, and what distance looks like."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from keras_autolabel.batch import to_float
from keras_autolabel.plots.examples import Moved, from_clean_to_far, names_of, table_shape
from keras_autolabel.plots.style import BLUE, DARK, ORANGE, PALE, new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_autolabel.model import AutoLabelModel

COLUMNS = 5
# With more classes the bars show those that the label is about, and the sum of all others.
MAX_CLASSES = 10
# An image that no pixel of changes by more is not moved; the next seed may move it.
UNMOVED, MAX_ATTEMPTS = 0.5 / 255, 8


def plot_figure_1(
    model: "AutoLabelModel",
    image: np.ndarray,
    label: int,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    others: tuple[np.ndarray, np.ndarray] | None = None,
) -> "Figure":
    """After Figure 1 of the AutoLabel paper: the labels of one image at growing distances.

    (a) The image at growing distances, the deepest row of a table with two axes (AugMix), and
    below each the label over the classes that the model's policy gives it. (b) What distance
    looks like: for AugMix short chain, long chain half mixed with the clean image, long chain
    alone; for a table of one axis growing distances, drawn anew.

    Args:
        model: The model, whose augmentation, network and label policy are used.
        image: uint8, or float in [0, 1], [H, W, C].
        label: The true class.
        class_names: Names of the K classes; None: "class 0", …
        seed: Seed of what is drawn; a following one where it leaves the image as it is.
        others: More ``(images, labels)``, which mixup needs: it mixes them in.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If the arguments do not fit each other.
        ImportError: If matplotlib is missing.

    Example:
        >>> from tensorflow import keras
        >>> from keras_autolabel import AugMix, AutoLabelModel
        >>> network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
        ...                             keras.layers.Dense(2)])
        >>> model = AutoLabelModel(network, AugMix(num_buckets=2, max_depth=1), num_classes=2)
        >>> image = np.linspace(0.0, 1.0, 64).reshape([8, 8, 1])
        >>> figure = plot_figure_1(model, image, 1, class_names=["cat", "dog"])
        >>> [float(bar.get_width()) for bar in figure.subfigs[0].axes[7].patches]  # the label
        [0.0, 1.0]
        >>> # figure.savefig("figure_1.png")
    """
    names = names_of(model, class_names)
    images, labels = np.asarray(image)[np.newaxis], np.asarray(label).reshape(1)
    if others is not None:
        images = np.concatenate([images, np.asarray(others[0])])
        labels = np.concatenate([labels, np.asarray(others[1]).reshape(-1)])
    original = np.asarray(to_float(images[0]))
    draw = partial(_that_moves, model, images, labels)
    depths, _ = table_shape(model)
    moved = draw(row=depths - 1, most=COLUMNS, seed=seed)
    # A seed of its own: with one axis, these are to differ from those of (a).
    anew = seed + MAX_ATTEMPTS
    if depths == 1:
        panels = [("", far) for far in draw(row=0, most=4, seed=anew)]
    else:
        short, long = (draw(row=row, most=3, seed=anew) for row in (0, depths - 1))
        panels = [("depth 1, ", short[-1])]
        panels += [(f"depth {depths}, ", far) for far in (long[len(long) // 2], long[-1])]
    classes = _classes_to_show(moved, model.num_classes)
    bars = 0.5 + 0.2 * len(classes)
    figure = new_figure(1.45 * (COLUMNS + 1), 4.0 + bars)
    above, below = figure.subfigures(2, 1, height_ratios=[2.05 + bars, 1.95])
    grid = above.subplots(2, 1 + COLUMNS, height_ratios=[1.25, bars], squeeze=False)
    _labels_by_distance(grid, original, moved, classes, names)
    _what_distance_looks_like(below.subplots(1, 1 + len(panels)), original, panels)
    for subfigure, title in (
        (above, "(a) the label that each distance gets"),
        (below, "(b) what the distance looks like"),
    ):
        subfigure.suptitle(title, color=DARK, fontsize=11)
    return figure


def _that_moves(model, images, labels, *, row: int, most: int, seed: int) -> list[Moved]:
    """As ``from_clean_to_far``, with the first seed that moves the first image at all.

    Autocontrast leaves many an image as it is, and mixup may mix an image with itself.
    """
    clean = np.asarray(to_float(images[0]))
    for attempt in range(MAX_ATTEMPTS):
        moved = from_clean_to_far(model, images, labels, row=row, most=most, seed=seed + attempt)
        if np.abs(moved[-1].batch.images[0] - clean).max() > UNMOVED:
            break
    return moved


def _classes_to_show(moved: list[Moved], num_classes: int) -> list[int]:
    """All classes where they are few, else those of the first image and of its partners."""
    if num_classes <= MAX_CLASSES:
        return list(range(num_classes))
    named = [int(number) for m in moved for number in (m.batch.labels[0], m.batch.partners[0])]
    return list(dict.fromkeys(named))


def _labels_by_distance(grid, original, moved, classes, names) -> None:
    """The images above, below each its label as bars, whose names stand below the original."""
    hidden = len(names) - len(classes)
    rows = [names[number] for number in classes] + ([f"{hidden} others"] if hidden else [])
    for axes in grid[1]:
        axes.set_ylim(len(rows) - 0.4, -0.6)
    for unused in [grid[1, 0], *grid[:, 1 + len(moved) :].flat]:
        unused.set_axis_off()
    show_image(grid[0, 0], original, caption="original")
    for place, name in enumerate(rows):
        grid[1, 0].text(1.0, place, name, ha="right", va="center", fontsize=8.5, color=DARK)
    for (above, below), (batch, targets) in zip(grid.T[1:], moved, strict=False):
        show_image(above, batch.images[0], caption=f"distance {batch.distance[0]:.2f}")
        others = np.delete(targets[0], classes).sum()
        _bars(below, [*targets[0, classes], *([others] if hidden else [])])
        for number, bar in zip(classes, below.patches, strict=False):
            if number in (batch.labels[0], batch.partners[0]):
                bar.set_color(BLUE if number == batch.labels[0] else ORANGE)


def _bars(axes: "Axes", shares: Sequence[float]) -> None:
    axes.barh(range(len(shares)), shares, color="#7f8794", height=0.72)
    for place, share in enumerate(shares):
        if share >= 0.005:
            axes.text(share + 0.03, place, f"{share:.2f}", va="center", fontsize=8, color=DARK)
    axes.set_xlim(0.0, 1.35)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(PALE)


def _what_distance_looks_like(row, original, panels) -> None:
    show_image(row[0], original, caption="(i) original")
    numerals = ("ii", "iii", "iv", "v")
    for axes, numeral, (text, (batch, _)) in zip(row[1:], numerals, panels, strict=False):
        caption = f"({numeral}) {text}distance {batch.distance[0]:.2f}"
        show_image(axes, batch.images[0], caption=caption)
