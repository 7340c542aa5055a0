"""What the figures of images show: images moved by a model's augmentation, and their labels."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from keras_autolabel.augment.pgd import HalfAdversarial
from keras_autolabel.batch import AugmentedBatch, check_batch, clean_batch
from keras_autolabel.labels import class_shares
from keras_autolabel.plots.order import evenly
from keras_autolabel.plots.style import shortened

if TYPE_CHECKING:
    from keras_autolabel.model import AutoLabelModel


class Moved(NamedTuple):
    """A batch, moved into one bucket, with the label that the model's policy gives it.

    Attributes:
        images: float [B, H, W, C] in [0, 1].
        distance: float [B].
        labels: int [B], the true class.
        partners: int [B], the second class in mixup; equal to ``labels`` where there is none.
        shares: float [3, B], what the true class, the partner and each other class get.
    """

    images: np.ndarray
    distance: np.ndarray
    labels: np.ndarray
    partners: np.ndarray
    shares: np.ndarray


def takes_buckets(augmentation: Callable[..., AugmentedBatch]) -> Callable[..., AugmentedBatch]:
    """The augmentation that moves whole batches into a bucket: of half attacks, the attack."""
    return augmentation.attack if isinstance(augmentation, HalfAdversarial) else augmentation


def table_shape(model: "AutoLabelModel") -> tuple[int, int]:
    """(rows, buckets) of a model's buckets; (1, 1) without augmentation."""
    if model.augmentation is None:
        return 1, 1
    shape = tuple(model.augmentation.bucket_shape)
    return int(np.prod(shape[:-1])), shape[-1]


def moved_into(
    model: "AutoLabelModel", images: np.ndarray, labels: np.ndarray, *, bucket: int, seed: int
) -> Moved:
    """Moves images into one bucket. The same seed moves them the same way in every bucket.

    Args:
        model: The model, whose augmentation, network and label policy are used.
        images: uint8, or float in [0, 1], [B, H, W, C].
        labels: int [B].
        bucket: Flat index of the bucket.
        seed: Seed of what is drawn.

    Returns:
        The ``Moved`` batch.
    """
    images, labels = check_batch(images, labels)
    if model.augmentation is None:
        batch = clean_batch(images, labels)
    else:
        batch = takes_buckets(model.augmentation)(
            images, labels, seed=tf.constant([seed, 0]), bucket=bucket, network=model.network
        )
    confidence, partner_share = model.label_policy(batch)
    shares = class_shares(
        batch.labels, batch.partners, confidence, partner_share, model.num_classes
    )
    return Moved(
        *(np.asarray(x) for x in (batch.images, batch.distance, batch.labels, batch.partners)),
        np.stack(shares),
    )


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

    Args:
        model: The model.
        images: uint8, or float in [0, 1], [B, H, W, C].
        labels: int [B].
        row: Row of the table.
        most: Buckets, evenly spaced in the order of the distances that were drawn.
        seed: Seed of what is drawn.
    """
    size = table_shape(model)[1]
    drawn = [
        moved_into(model, images, labels, bucket=row * size + index, seed=seed)
        for index in range(size)
    ]
    drawn.sort(key=lambda moved: float(moved.distance.mean()))
    return [drawn[index] for index in evenly(size, most)]


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
    return [shortened(str(name)) for name in class_names]


def label_caption(moved: Moved, index: int, names: Sequence[str]) -> str:
    """Distance and label of an image: "ỹ = 0.93", and both classes where two are mixed."""
    first = f"distance {moved.distance[index]:.2f}"
    true, partner, _ = moved.shares[:, index]
    label, other = moved.labels[index], moved.partners[index]
    if label == other:
        return f"{first}\nỹ = {true:.2f}"
    return f"{first}\n{names[label]} {true:.2f}\n{names[other]} {partner:.2f}"
