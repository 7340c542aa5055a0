"""After Figure 1 of the AutoLabel paper: labels by distance, and what distance looks like."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_autolabel.batch import to_float
from keras_autolabel.plots.draws import Moved, from_clean_to_far, names_of, table_shape
from keras_autolabel.plots.style import BLUE, DARK, ORANGE, PALE, new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

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
    last = table_shape(model)[0] - 1
    moved = _that_moves(model, images, labels, row=last, most=COLUMNS, seed=seed)
    classes = _classes_to_show(moved, model.num_classes)
    bars = 0.3 + 0.2 * (len(classes) + 1)
    figure = new_figure(1.45 * (COLUMNS + 1), 4.0 + bars)
    above, below = figure.subfigures(2, 1, height_ratios=[2.05 + bars, 1.95])
    _labels_by_distance(above, images[0], moved, classes, names, bars)
    _what_distance_looks_like(below, model, images, labels, seed)
    return figure


def _classes_to_show(moved: list[Moved], num_classes: int) -> list[int]:
    """All classes where they are few, else those of the first image and of its partners."""
    if num_classes <= MAX_CLASSES:
        return list(range(num_classes))
    named = [number for m in moved for number in (int(m.labels[0]), int(m.partners[0]))]
    return list(dict.fromkeys(named))


def label_of_first(moved: Moved, classes: Sequence[int], num_classes: int) -> np.ndarray:
    """The label of the first image: the share of each class, and the sum of all others.

    Args:
        moved: The batch.
        classes: The classes to show.
        num_classes: K.

    Returns:
        float [len(classes) + 1], sums to 1; without the last entry where no class is left.
    """
    true, partner, other = moved.shares[:, 0]
    dense = np.full(num_classes, other)
    dense[moved.partners[0]] = partner
    dense[moved.labels[0]] = true
    rest = np.delete(dense, classes)
    return np.append(dense[classes], [rest.sum()] if len(rest) else [])


def _that_moves(model, images, labels, *, row: int, most: int, seed: int) -> list[Moved]:
    """As ``from_clean_to_far``, with the first seed that moves the first image at all.

    Autocontrast leaves many an image as it is, and mixup may mix an image with itself.
    """
    clean = np.asarray(to_float(images[0]))
    for attempt in range(MAX_ATTEMPTS):
        moved = from_clean_to_far(model, images, labels, row=row, most=most, seed=seed + attempt)
        if np.abs(moved[-1].images[0] - clean).max() > UNMOVED:
            break
    return moved


def _labels_by_distance(figure: "SubFigure", image, moved, classes, names, bars: float) -> None:
    figure.suptitle("(a) the label that each distance gets", color=DARK, fontsize=11)
    grid = figure.subplots(2, 1 + COLUMNS, height_ratios=[1.25, bars], squeeze=False)
    show_image(grid[0, 0], np.asarray(to_float(image)), caption="original")
    targets = [label_of_first(m, classes, len(names)) for m in moved]
    rows = [names[number] for number in classes]
    hidden = len(names) - len(classes)
    if hidden:
        rows.append(f"{hidden} others" if hidden > 1 else "1 other")
    _names_of_bars(grid[1, 0], rows)
    for column, (m, target) in enumerate(zip(moved, targets, strict=True), start=1):
        show_image(grid[0, column], m.images[0], caption=f"distance {m.distance[0]:.2f}")
        colours = [
            BLUE if number == m.labels[0] else ORANGE if number == m.partners[0] else "#7f8794"
            for number in [*classes, -1][: len(target)]
        ]
        _bars_of_label(grid[1, column], target, colours)
    for unused in grid[:, 1 + len(moved) :].flat:
        unused.set_axis_off()


def _names_of_bars(axes: "Axes", rows: Sequence[str]) -> None:
    """The names that all bars share, in the place below the original."""
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for place, name in enumerate(rows):
        axes.text(1.0, place, name, ha="right", va="center", fontsize=8.5, color=DARK)


def _bars_of_label(axes: "Axes", target: np.ndarray, colours: Sequence[str]) -> None:
    axes.barh(range(len(target)), target, color=colours, height=0.72)
    for place, share in enumerate(target):
        if share >= 0.005:
            axes.text(share + 0.03, place, f"{share:.2f}", va="center", fontsize=8, color=DARK)
    axes.set_xlim(0.0, 1.35)
    axes.set_ylim(len(target) - 0.4, -0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(PALE)


def _what_distance_looks_like(figure: "SubFigure", model, images, labels, seed: int) -> None:
    figure.suptitle("(b) what the distance looks like", color=DARK, fontsize=11)
    depths, _ = table_shape(model)

    def draw(row: int, most: int) -> list[Moved]:
        # A seed of its own: with one axis, these are to differ from those of (a).
        return _that_moves(model, images, labels, row=row, most=most, seed=seed + MAX_ATTEMPTS)

    if depths > 1:
        long_chain = draw(depths - 1, 3)
        shown = [
            ("depth 1, ", draw(0, 3)[-1]),
            (f"depth {depths}, ", long_chain[len(long_chain) // 2]),
            (f"depth {depths}, ", long_chain[-1]),
        ]
    else:
        shown = [("", m) for m in draw(0, 4)]
    panels = [("original", np.asarray(to_float(images[0])))]
    panels += [(f"{text}distance {m.distance[0]:.2f}", m.images[0]) for text, m in shown]
    for place, numeral, (caption, image) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0],
        ("i", "ii", "iii", "iv", "v"),
        panels,
        strict=False,
    ):
        show_image(place, image, caption=f"({numeral}) {caption}")
