"""Images moved by a model's augmentation, with their labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from keras_autolabel.batch import AugmentedBatch, check_batch, clean_batch, to_float
from keras_autolabel.labels import class_shares
from keras_autolabel.plots.style import evenly, new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_autolabel.model import AutoLabelModel

# Images that go through the augmentation together: mixup finds its partners among them.
POOL = 8
MAX_BUCKETS = 7
MAX_NAME = 16


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
    shown = range(min(max_images or (5 if depths == 1 else 2), len(labels)))
    tables = [
        from_clean_to_far(model, images, labels, row=depth, most=MAX_BUCKETS, seed=seed)
        for depth in range(depths)
    ]
    rows = [(index, depth) for index in shown for depth in range(depths)]
    width = 1 + len(tables[0])
    mixed = any(np.any(moved.batch.partners != labels) for moved in tables[0])
    figure = new_figure(0.5 + 1.35 * width, (1.71 if mixed else 1.54) * len(rows))
    for (index, depth), axes in zip(
        rows, figure.subplots(len(rows), width, squeeze=False), strict=True
    ):
        show_image(axes[0], np.asarray(to_float(images[index])), caption="original")
        name = names[labels[index]]
        axes[0].set_ylabel(name if depths == 1 else f"{name}\ndepth {depth + 1}", fontsize=9)
        for place, moved in zip(axes[1:], tables[depth], strict=True):
            caption = label_caption(moved, index, names)
            show_image(place, moved.batch.images[index], caption=caption)
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
    return images[order], labels[order]


class Moved(NamedTuple):
    """A batch, moved into one bucket, with the label that the model's policy gives it.

    Attributes:
        batch: The moved batch, its fields as NumPy arrays.
        targets: float [B, K], its labels as distributions over the classes.
    """

    batch: AugmentedBatch
    targets: np.ndarray


def table_shape(model: "AutoLabelModel") -> tuple[int, int]:
    """(rows, buckets) of a model's buckets; (1, 1) without augmentation."""
    if model.augmentation is None:
        return 1, 1
    *rows, size = model.augmentation.bucket_shape
    return int(np.prod(rows)), size


def from_clean_to_far(
    model: "AutoLabelModel",
    images: np.ndarray,
    labels: np.ndarray,
    *,
    row: int,
    most: int,
    seed: int,
) -> list[Moved]:
    """Images moved into at most ``most`` buckets of one row of the table, the cleanest first.

    They are evenly spaced, the first and the last among them. All share the seed, so that they
    differ in nothing but the distance.
    """
    images, labels = check_batch(images, labels)
    if model.augmentation is None:
        return [_labelled(model, clean_batch(images, labels))]
    size = table_shape(model)[1]
    draw = {"seed": tf.constant([seed, 0]), "network": model.classifier}
    return [
        _labelled(model, model.augmentation(images, labels, bucket=row * size + index, **draw))
        for index in evenly(size, most).tolist()
    ]


def _labelled(model: "AutoLabelModel", batch: AugmentedBatch) -> Moved:
    shares = class_shares(
        batch.labels, batch.partners, *model.label_policy(batch), model.num_classes
    )
    true, partner, other = (np.asarray(share) for share in shares)
    batch = AugmentedBatch(*(np.asarray(field) for field in batch))
    targets = np.tile(other[:, np.newaxis], model.num_classes)
    rows = np.arange(len(targets))
    targets[rows, batch.partners] = partner
    targets[rows, batch.labels] = true
    return Moved(batch, targets)


def names_of(model: "AutoLabelModel", class_names: Sequence[str] | None) -> list[str]:
    """The K names of the classes, made short; None: "class 0", …

    Raises:
        ValueError: If there are not K names.
    """
    if class_names is None:
        return [f"class {index}" for index in range(model.num_classes)]
    if len(class_names) != model.num_classes:
        raise ValueError(
            f"class_names must name the {model.num_classes} classes. Received: {len(class_names)}"
        )
    names = [str(name) for name in class_names]
    return [n if len(n) <= MAX_NAME else n[: MAX_NAME - 1].rstrip() + "…" for n in names]


def label_caption(moved: Moved, index: int, names: Sequence[str]) -> str:
    """Distance and label of an image: "ỹ = 0.93", and both classes where two are mixed."""
    batch, target = moved.batch, moved.targets[index]
    label, partner = batch.labels[index], batch.partners[index]
    lines = [f"distance {batch.distance[index]:.2f}"]
    if label == partner:
        lines.append(f"ỹ = {target[label]:.2f}")
    else:
        lines += [f"{names[number]} {target[number]:.2f}" for number in (label, partner)]
    return "\n".join(lines)
