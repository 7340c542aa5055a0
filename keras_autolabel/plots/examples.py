"""A handful of images in every distance, with their labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_autolabel.batch import check_batch, to_float
from keras_autolabel.plots.draws import from_clean_to_far, label_caption, names_of, table_shape
from keras_autolabel.plots.style import new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_autolabel.model import AutoLabelModel

# Images that go through the augmentation together: mixup finds its partners among them.
POOL = 8
MAX_BUCKETS = 7


def plot_examples(
    model: "AutoLabelModel",
    images: np.ndarray,
    labels: np.ndarray,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    max_images: int | None = None,
) -> "Figure":
    """Images from clean to far, each with its distance and the label of its true class.

    The first column is the original; the others are buckets, the cleanest first. A table with two
    axes (AugMix) has a row for each image and depth. All columns share one seed, so that along a
    row nothing but the distance changes. Where two images are mixed, the caption names both.

    Args:
        model: The model, whose augmentation, network and label policy are used.
        images: uint8, or float in [0, 1], [B, H, W, C]. Images of different classes come first.
        labels: int [B]; mixup needs 2 images at least.
        class_names: Names of the K classes; None: "class 0", …
        seed: Seed of what is drawn.
        max_images: Images to show, at most 8; None: 5, or 2 where the table has two axes.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If there is no image, or the arguments do not fit each other.
        ImportError: If matplotlib is missing.

    Example:
        >>> from tensorflow import keras
        >>> from keras_autolabel import AugMix, AutoLabelModel
        >>> network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
        ...                             keras.layers.Dense(2)])
        >>> model = AutoLabelModel(network, AugMix(num_buckets=2, max_depth=1), num_classes=2)
        >>> images = np.full([4, 8, 8, 1], 0.5)
        >>> figure = plot_examples(model, images, [0, 1, 0, 1], class_names=["cat", "dog"])
        >>> [axes.get_ylabel() for axes in figure.axes[::3]]
        ['cat', 'dog', 'cat', 'dog']
        >>> # figure.savefig("examples.png")
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1. Received: max_images={max_images}")
    names = names_of(model, class_names)
    images, labels = _different_classes_first(images, labels)
    depths, _ = table_shape(model)
    shown = min(max_images or (5 if depths == 1 else 2), len(labels))
    columns = [
        from_clean_to_far(model, images, labels, row=row, most=MAX_BUCKETS, seed=seed)
        for row in range(depths)
    ]
    width = 1 + len(columns[0])
    lines = 1 + max(
        label_caption(m, i, names).count("\n") for m in columns[0] for i in range(shown)
    )
    figure = new_figure(0.5 + 1.35 * width, (1.2 + 0.17 * lines) * shown * depths)
    grid = figure.subplots(shown * depths, width, squeeze=False)
    for index in range(shown):
        for depth in range(depths):
            axes = grid[index * depths + depth]
            name = names[labels[index]]
            show_image(axes[0], np.asarray(to_float(images[index])), caption="original")
            axes[0].set_ylabel(name if depths == 1 else f"{name}\ndepth {depth + 1}", fontsize=9)
            for place, moved in zip(axes[1:], columns[depth], strict=True):
                show_image(place, moved.images[index], caption=label_caption(moved, index, names))
    return figure


def _different_classes_first(images, labels) -> tuple[np.ndarray, np.ndarray]:
    """At most ``POOL`` examples: the first of each class, as they come, then all others."""
    images, labels = np.asarray(images), np.asarray(labels).reshape(-1)
    if not 0 < len(images) == len(labels):
        raise ValueError(
            "images and labels must hold the same number of examples, at least one. "
            f"Received: {len(images)} images, {len(labels)} labels"
        )
    first = np.sort(np.unique(labels, return_index=True)[1])
    order = np.concatenate([first, np.setdiff1d(np.arange(len(labels)), first)])[:POOL]
    checked, _ = check_batch(images[order], labels[order])
    return np.asarray(checked), labels[order]
