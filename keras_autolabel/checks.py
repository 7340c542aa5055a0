"""What ``AutoLabelModel`` and ``AutoLabel`` refuse before any long work begins."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.batch import (
    AugmentedBatch,
    check_images,
    check_numbers,
    check_whole,
    known_classes,
    refused_in_one_line,
)
from keras_autolabel.distribution import replicas_of_non_finite
from keras_autolabel.losses import SoftTargetLoss


def check_arguments(num_classes: int, seed: int, value_range: tuple[float, float]) -> None:
    """Refuses a number of classes, a seed or a range that cannot be used.

    Raises:
        ValueError: If ``num_classes`` is below 2, ``seed`` no int in [0, 2^31), or ``value_range``
            no pair (low, high), low below high.
    """
    check_whole(2, num_classes=num_classes)
    check_whole(0, seed=seed)
    if seed >= 2**31:
        raise ValueError(f"seed must be an int from 0 to 2**31 - 1. Received: seed={seed!r}")
    numeric = np.shape(value_range) == (2,) and np.asarray(value_range).dtype.kind in "fiu"
    if not numeric or not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise ValueError(
            "value_range must be (low, high), such as (0, 1) or (0, 255). "
            f"Received: value_range={value_range!r}"
        )


def check_temperature(temperature: float) -> None:
    """Refuses a temperature that logits cannot be divided by.

    Raises:
        ValueError: If it is no number above 0.
    """
    check_numbers(temperature=temperature)
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"temperature must be above 0. Received: temperature={temperature}")


def check_augmentation(augmentation: Callable | None) -> None:
    """Refuses what is no augmentation object.

    Raises:
        ValueError: If it is a class, a Keras layer, or has no ``bucket_shape`` and ``__call__``.
    """
    if augmentation is None:
        return
    kind = type(augmentation).__name__
    if isinstance(augmentation, type):
        kind = f"the class {augmentation.__name__}; make an object of it, {augmentation.__name__}()"
    elif isinstance(augmentation, keras.layers.Layer):
        kind = f"a Keras layer, {kind}, which does not say how far it moves an image"
    elif callable(augmentation) and hasattr(augmentation, "bucket_shape"):
        return
    raise ValueError(
        "augmentation must be one of keras_autolabel, such as AugMix(), or an object of your own "
        f"subclass of keras_autolabel.Augmentation. Received: {kind}"
    )


def check_policy(policy: Callable, augmentation: Callable | None, num_classes: int) -> None:
    """Refuses a label policy that does not fit the classes or the augmentation.

    The policy says what it needs of a batch, the augmentation what its batches offer; where one
    of them says nothing, they go together. Without an augmentation every policy does: the images
    of a dataset may be augmented already.

    Raises:
        ValueError: If they do not fit.

    Example:
        >>> from keras_autolabel import Mixup, MixupLabels
        >>> check_policy(MixupLabels(), Mixup(), 10)
    """
    if isinstance(policy, type) or not callable(policy):
        raise ValueError(
            "label_policy must be an object of keras_autolabel, such as LabelSmoothing(), or any "
            f"policy(batch) -> (confidence, partner_share). Received: label_policy={policy!r}"
        )
    name, other = type(policy).__name__, type(augmentation).__name__
    if getattr(policy, "num_classes", num_classes) != num_classes:
        raise ValueError(
            "The label policy must be made for the classes of the model. Received: "
            f"{name}(num_classes={policy.num_classes}), num_classes={num_classes}"
        )
    offers = getattr(augmentation, "offers", None)
    if offers is not None:
        missing = sorted(getattr(policy, "needs", frozenset()) - offers)
        if missing:
            raise ValueError(
                f"{name} does not go with {other}: it reads the {' and the '.join(missing)} of a "
                f"batch, and {other} offers the {' and the '.join(sorted(offers))}."
            )
        if "mix" in offers and not getattr(policy, "reads_mix", True):
            raise ValueError(
                f"{name} does not go with {other}: it would ignore the second image of a mixture. "
                "MixupLabels is ordinary mixup, and a LabelTable learns."
            )
    shape = (1,) if augmentation is None else tuple(augmentation.bucket_shape)
    if getattr(policy, "bucket_shape", shape) != shape:
        raise ValueError(
            "The label table must have the shape of the augmentation's buckets. Received: "
            f"table {policy.bucket_shape}, augmentation {shape}"
        )


def check_loss(loss: Any, policy: Callable, num_classes: int) -> None:
    """Refuses a loss that ``AutoLabelModel.compile`` cannot use with the policy of the model.

    Raises:
        ValueError: If the loss is no loss object, takes probabilities or one-hot labels, or has a
            label policy of its own.
    """
    if loss is None:
        return
    if not isinstance(loss, keras.losses.Loss):
        raise ValueError(
            "Leave loss out: the model's own is the cross-entropy of its logits against the labels "
            "of its policy. A loss of yours must be a keras.losses.Loss object that takes class "
            f"numbers and logits (from_logits=True). Received: loss={loss!r}"
        )
    if isinstance(loss, SoftTargetLoss):
        if loss.policy is not policy:
            raise ValueError(
                "The loss has a label policy of its own: give it to the model, "
                "AutoLabelModel(label_policy=...), and leave loss out."
            )
    elif loss.get_config().get("from_logits") is False:
        raise ValueError(
            "The loss takes probabilities, and the model returns logits: pass from_logits=True. "
            f"Received: {type(loss).__name__}(from_logits=False)"
        )
    else:
        # As many rows as no broadcasting would make fit.
        rows = 3 if num_classes == 2 else 2
        try:
            loss(tf.zeros([rows], tf.int32), tf.zeros([rows, num_classes]))
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                "Leave loss out, or give one that takes class numbers [B] and logits [B, K], such "
                "as SparseCategoricalCrossentropy(from_logits=True): one-hot labels reach it as "
                f"class numbers. Received: loss={type(loss).__name__}"
            ) from error


def parts_of(x: Any, y: Any) -> tuple[Any, Any]:
    """Images and labels of what ``fit`` was given, augmented already or not.

    Returns:
        ``(images, labels)`` as arrays, or as the specs of a dataset; None where unknown.
    """
    if isinstance(x, tf.data.Dataset):
        spec = x.element_spec
        known = isinstance(spec, tuple) and len(spec) >= 2 and not isinstance(spec, AugmentedBatch)
        x, y = spec[:2] if known else (None, None)
    elif y is None:
        if hasattr(x, "shape"):
            raise ValueError("Labels are missing: fit(images, labels). Received: images alone")
        return None, None
    else:
        y = np.asarray(y)
    if isinstance(x, AugmentedBatch):
        return x.images, x.labels
    return (x if x is None or hasattr(x, "dtype") else np.asarray(x)), y


def image_shape_of(x: Any) -> tf.TensorShape | None:
    """(H, W, C) of images, or of a dataset of them with or without labels; None: not known.

    Example:
        >>> image_shape_of(np.zeros([5, 8, 8, 1], np.uint8))
        TensorShape([8, 8, 1])
    """
    spec = x.element_spec if isinstance(x, tf.data.Dataset) else x
    shape = tf.TensorShape(getattr(spec[0] if isinstance(spec, tuple) else spec, "shape", None))
    return shape[1:] if shape.rank == 4 else None


def check_values(images: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The labels as class numbers, int32 [M]; refuses arrays with a value that cannot be right.

    Raises:
        ValueError: If labels name no class, or a float image has a NaN or leaves [0, 1].
    """
    with tf.device("CPU:0"), refused_in_one_line():
        check_images(images)
        return known_classes(labels, num_classes).numpy()


def check_last_batch(augmentation: Callable | None, *, examples: int, batch_size: int) -> None:
    """Refuses to end an epoch of so many examples with a batch too small for the augmentation.

    Raises:
        ValueError: If the last batch would hold fewer images than ``smallest_batch``.
    """
    smallest = getattr(augmentation, "smallest_batch", 1)
    last = (examples - 1) % batch_size + 1
    if last < smallest:
        raise ValueError(
            f"{type(augmentation).__name__} needs at least {smallest} images in every batch, and "
            f"the last one would hold {last}; choose another batch_size. "
            f"Received: {examples} images, batch_size={batch_size}"
        )


def names_of_non_finite(weights: Iterable) -> list[str]:
    """Names of the weights that hold a NaN or an infinity: what training that diverged broke.

    Names are paths where Keras has them; weights of integers are passed over.

    Example:
        >>> weights = [tf.Variable([1.0], name="kernel"), tf.Variable([np.nan], name="bias")]
        >>> names_of_non_finite(weights)
        ['bias:0']
    """
    return [
        getattr(weight, "path", weight.name)
        for weight in weights
        if "float" in str(weight.dtype)
        and not np.all(tf.math.is_finite(tf.convert_to_tensor(weight)))
    ]


def divergence_of(model: keras.Model, loss: float) -> str:
    """What of an ``AutoLabelModel`` in training, or of the loss that Keras logs, is not finite.

    Returns:
        Empty where all is well; else the replicas whose loss is not finite, where it is that of
        some alone, and the first weights that are not.
    """
    found = []
    if not np.isfinite(loss):
        with model.distribute_strategy.scope():
            broken, replicas = replicas_of_non_finite(model.metrics[0].variables[0])
        where = f" on replica {', '.join(map(str, broken))} of {replicas}, counted from 0"
        found.append("the loss is not finite" + (where if 0 < len(broken) < replicas else ""))
    names = names_of_non_finite(model.network.weights)
    if names:
        more = ", ..." if len(names) > 3 else ""
        found.append(f"{len(names)} weights are not finite ({', '.join(names[:3])}{more})")
    return "; ".join(found)
