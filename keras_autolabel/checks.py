"""What ``AutoLabelModel`` refuses before any long work begins."""

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf
from tensorflow import keras

from keras_autolabel.augment.augmix import AugMix
from keras_autolabel.augment.mixup import Mixup
from keras_autolabel.augment.pgd import PGD, HalfAdversarial
from keras_autolabel.augment.randaugment import RandAugment
from keras_autolabel.batch import AugmentedBatch
from keras_autolabel.labels import (
    ConfidenceCalibrated,
    LabelSmoothing,
    LabelTable,
    MixupLabels,
    OneHot,
)
from keras_autolabel.losses import SoftTargetLoss


def check_arguments(num_classes: int, seed: int) -> None:
    """Refuses a number of classes or a seed that cannot be used.

    Args:
        num_classes: K.
        seed: Seed of the model.

    Raises:
        ValueError: If ``num_classes`` is below 2, or ``seed`` no int in [0, 2^31).
    """
    if num_classes < 2:
        raise ValueError(
            f"Calibration needs at least 2 classes. Received: num_classes={num_classes}"
        )
    if not (isinstance(seed, int | np.integer) and 0 <= seed < 2**31):
        raise ValueError(f"seed must be an int from 0 to 2**31 - 1. Received: seed={seed!r}")


def check_policy(policy: Callable, augmentation: Callable | None, num_classes: int) -> None:
    """Refuses a label policy that does not fit the classes or the augmentation.

    Augmentations and policies that are not of this package pass, and so does every policy without
    an augmentation: the images of a dataset may be augmented already.

    Args:
        policy: The label policy.
        augmentation: The augmentation, or None.
        num_classes: K.

    Raises:
        ValueError: If they do not fit.

    Example:
        >>> check_policy(MixupLabels(), Mixup(), 10)
    """
    fixed = isinstance(policy, LabelSmoothing | ConfidenceCalibrated)
    if fixed and policy.num_classes != num_classes:
        raise ValueError(
            "The label policy must be made for the classes of the model. Received: "
            f"{type(policy).__name__}(num_classes={policy.num_classes}), num_classes={num_classes}"
        )
    is_own = isinstance(augmentation, AugMix | RandAugment | Mixup | PGD | HalfAdversarial)
    is_mixup = isinstance(augmentation, Mixup)
    is_ccat = isinstance(augmentation, HalfAdversarial)
    for kind, wrong, reason in (
        (MixupLabels, is_own and not is_mixup, "its labels are those of a mixture of two images"),
        (
            ConfidenceCalibrated,
            is_own and not is_ccat,
            "it labels the batches of CCAT, half of them attacked: HalfAdversarial(PGD(...))",
        ),
        (LabelTable, is_ccat, "pass label_policy=ConfidenceCalibrated(...), or train with PGD"),
        (OneHot, is_mixup, "a mixture has no one-hot label; MixupLabels is ordinary mixup"),
        (
            LabelSmoothing,
            is_mixup,
            "it would ignore the second class; MixupLabels is ordinary mixup",
        ),
    ):
        if wrong and isinstance(policy, kind):
            raise ValueError(
                f"{kind.__name__} does not go with {type(augmentation).__name__}: {reason}."
            )
    if not isinstance(policy, LabelTable):
        return
    shape = (1,) if augmentation is None else tuple(augmentation.bucket_shape)
    if policy.bucket_shape != shape:
        raise ValueError(
            "The label table must have the shape of the augmentation's buckets. Received: "
            f"table {policy.bucket_shape}, augmentation {shape}"
        )


def check_loss(loss: keras.losses.Loss | None, policy: Callable) -> None:
    """Refuses a loss that ``AutoLabelModel.compile`` cannot use.

    Args:
        loss: What ``compile`` was given.
        policy: The label policy of the model.

    Raises:
        ValueError: If the loss is no loss object, takes probabilities, sums, or has a label policy
            of its own.
    """
    if loss is None:
        return
    if not isinstance(loss, keras.losses.Loss):
        raise ValueError(
            "loss must be a keras.losses.Loss object that takes logits (from_logits=True), or "
            f"None for SoftTargetLoss. Received: loss={loss!r}"
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
    if loss.reduction in ("sum", "none"):
        raise ValueError(
            "The loss is averaged over the global batch; leave reduction at its default. "
            f"Received: loss.reduction={loss.reduction!r}"
        )


def parts_of(x, y) -> tuple:
    """Images and labels of what ``fit`` was given.

    Args:
        x: Arrays, or a ``tf.data.Dataset``, augmented already or not.
        y: Labels, or None.

    Returns:
        ``(images, labels)`` as arrays, or as the specs of a dataset; None where unknown.
    """
    if isinstance(x, tf.data.Dataset):
        spec = x.element_spec
        known = isinstance(spec, tuple) and len(spec) >= 2 and not isinstance(spec, AugmentedBatch)
        x, y = spec[:2] if known else (None, None)
    elif y is None:
        return None, None
    else:
        y = np.asarray(y)
    if isinstance(x, AugmentedBatch):
        return x.images, x.labels
    return (x if x is None or hasattr(x, "dtype") else np.asarray(x)), y


def check_values(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Refuses arrays with a value that cannot be right.

    Args:
        images: uint8, or float in [0, 1].
        labels: int.
        num_classes: K.

    Raises:
        ValueError: If a label is out of range, or a float image has a NaN or leaves [0, 1].
    """
    if labels.size and not (0 <= labels.min() and labels.max() < num_classes):
        raise ValueError(
            f"Labels must lie in 0..{num_classes - 1} (num_classes - 1). "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )
    if images.dtype.kind == "f" and not np.all((images >= 0.0) & (images <= 1.0)):
        raise ValueError(
            "Float images must lie in [0, 1] without NaN; divide by 255, or pass uint8. "
            f"Received: images from {images.min()} to {images.max()}"
        )


def check_last_batch(
    augmentation: Callable | None, *, examples: int, batch_size: int | None
) -> None:
    """Refuses to end an epoch of mixup with a batch of one image.

    Args:
        augmentation: The augmentation of the model.
        examples: How many images an epoch has.
        batch_size: As in ``fit``: None is 32.

    Raises:
        ValueError: If the augmentation is ``Mixup`` and the last batch would hold one image.
    """
    batch_size = batch_size or 32
    if isinstance(augmentation, Mixup) and (examples - 1) % batch_size == 0:
        raise ValueError(
            "mixup needs at least 2 images in every batch, and the last one would hold 1; choose "
            f"another batch_size. Received: {examples} images, batch_size={batch_size}"
        )


def check_network(network: keras.Model, image_shape, num_classes: int) -> None:
    """Refuses a network that does not return logits of ``num_classes`` classes.

    A probe batch of noise goes through it: rows that are never negative and sum to 1 are
    probabilities.

    Args:
        network: The network.
        image_shape: [B, H, W, C]; unknown sizes are probed at 32 pixels and 3 channels.
        num_classes: K.

    Raises:
        ValueError: If it does not take such images, or returns probabilities, or not [B, K].
    """
    size = [size or default for size, default in zip(image_shape[1:], (32, 32, 3), strict=True)]
    probe = tf.constant(np.random.default_rng(0).uniform(size=(4, *size)), tf.float32)
    try:
        outputs = network(probe, training=False)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            "The network cannot be called with such images; resize them, or build it for them. "
            f"Received: images of shape {tuple(size)}"
        ) from error
    outputs = tf.convert_to_tensor(outputs)
    if outputs.shape != (4, num_classes):
        raise ValueError(
            f"The network must return logits of shape [B, num_classes={num_classes}]. "
            f"Received: outputs of shape [B{''.join(f', {size}' for size in outputs.shape[1:])}]"
        )
    # Probabilities in half precision sum to 1 no better than this.
    tolerance = {tf.bfloat16: 2e-2, tf.float16: 5e-3}.get(outputs.dtype, 1e-3)
    outputs = tf.cast(outputs, tf.float32).numpy()
    if np.all(outputs >= 0.0) and np.allclose(outputs.sum(axis=-1), 1.0, atol=tolerance):
        raise ValueError(
            "The network returns probabilities, it must return logits: leave out the softmax."
        )


def names_of_non_finite(weights: Iterable) -> list[str]:
    """Names of the weights that hold a NaN or an infinity: what training that diverged broke.

    Args:
        weights: Variables, ``model.weights``; those of integers are passed over.

    Returns:
        Their names, as paths where Keras has them.

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
