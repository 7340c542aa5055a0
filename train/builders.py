"""What a run is made of, out of its settings."""

from collections.abc import Callable

import numpy as np
from tensorflow import keras

import data
import keras_autolabel as kal
from train.image_network import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD
from train.resnet50 import resnet50
from train.schedules import cifar_schedule, imagenet_schedule
from train.settings import Settings
from train.small_resnet import small_resnet
from train.wide_resnet import wide_resnet

# What published networks normalise with; CIFAR-10's serve CIFAR-100 there, too.
PUBLISHED_MOMENTS = {
    "cifar10": (CIFAR10_MEAN, CIFAR10_STD),
    "cifar100": (CIFAR10_MEAN, CIFAR10_STD),
    "imagenet2012": (IMAGENET_MEAN, IMAGENET_STD),
    "image_folder": (IMAGENET_MEAN, IMAGENET_STD),
}


def load_data(settings: Settings, *, download: bool = False) -> data.Splits:
    """The data of a run, split as its settings say.

    Args:
        settings: The settings of the run.
        download: Whether TFDS may download and prepare what is missing.

    Returns:
        ``data.Splits``.

    Raises:
        ValueError, FileNotFoundError, ImportError: As ``data.load`` does.

    Example:
        >>> load_data(Settings(dataset="digits", train_examples=500)).counts()
        {'train': 500, 'holdout': 249, 'test': 300}
    """
    return data.load(
        settings.dataset,
        data_dir=settings.data_dir,
        seed=settings.seed,
        train_examples=settings.train_examples,
        holdout_examples=settings.holdout_examples,
        crop_and_flip=settings.crop_and_flip,
        image_size=settings.image_size,
        download=download,
        skip_unreadable=settings.skip_unreadable,
    )


def build_network(settings: Settings, train: data.Split, num_classes: int) -> keras.Model:
    """The network: raw images, uint8 or float in [0, 1], to logits.

    Args:
        settings: The settings of the run.
        train: The training images. The network normalises with their mean and standard deviation
            per channel, or with published ones, see ``PUBLISHED_MOMENTS``.
        num_classes: K.

    Returns:
        A Keras model with fresh weights.
    """
    moments = PUBLISHED_MOMENTS.get(settings.dataset) or channel_moments(train.images)
    mean, std = (list(moment) for moment in moments)
    options = {"mean": mean, "std": std, "l2": settings.l2}
    image_shape = train.image_shape
    if settings.network == "wide_resnet":
        return wide_resnet(
            image_shape, num_classes, depth=settings.depth, width=settings.width, **options
        )
    if settings.network == "resnet50":
        return resnet50(image_shape, num_classes, **options)
    return small_resnet(image_shape, num_classes, **options)


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the pixels of each channel, on the scale of [0, 1].

    Args:
        images: uint8 [M, H, W, C].

    Returns:
        Two float arrays [C].

    Example:
        >>> mean, std = channel_moments(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
        >>> mean.tolist(), std.tolist()
        ([0.5], [0.5])
    """
    channels = images.shape[-1]
    values = np.arange(256) / 255.0
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(channels)])
    shares = counts / counts.sum(axis=-1, keepdims=True)
    mean = shares @ values
    return mean, np.sqrt(np.maximum(shares @ values**2 - mean**2, 0.0))


def build_augmentation(settings: Settings) -> Callable | None:
    """The augmentation of a run; None where images stay as they are."""
    buckets = settings.num_buckets
    attack = {
        "epsilon": settings.epsilon,
        "num_steps": settings.attack_steps,
        "relative_step_size": settings.relative_step_size,
        "random_start": settings.random_start,
    }
    if settings.augmentation == "augmix":
        return kal.AugMix(
            num_buckets=buckets, max_depth=settings.max_depth, severity=settings.severity
        )
    if settings.augmentation == "randaugment":
        return kal.RandAugment(
            num_buckets=buckets,
            num_operations=settings.num_operations,
            max_magnitude=settings.max_magnitude,
        )
    if settings.augmentation == "mixup":
        return kal.Mixup(num_buckets=buckets, beta=settings.beta)
    if settings.augmentation == "pgd" and settings.labels == "ccat":
        return kal.HalfAdversarial(kal.PGD(num_buckets=buckets, **attack))
    if settings.augmentation == "pgd":
        return kal.PGD(num_buckets=buckets, **attack)
    return None


def build_label_policy(settings: Settings, num_classes: int) -> Callable | None:
    """The label policy of a run; None for AutoLabel's own table."""
    if settings.labels == "one_hot":
        return kal.OneHot()
    if settings.labels == "label_smoothing":
        return kal.LabelSmoothing(settings.smoothing, num_classes=num_classes)
    if settings.labels == "mixup":
        return kal.MixupLabels()
    if settings.labels == "ccat":
        return kal.ConfidenceCalibrated(num_classes=num_classes, rho=settings.rho)
    return None


def build_callbacks(settings: Settings, holdout: data.Split) -> list[keras.callbacks.Callback]:
    """What learns the labels of a run: ``AutoLabel``, or nothing.

    Args:
        settings: The settings of the run.
        holdout: The clean images that guide the labels.

    Returns:
        Keras callbacks, one or none.

    Example:
        >>> build_callbacks(Settings(labels="one_hot"), holdout=None)
        []
    """
    if settings.labels != "autolabel":
        return []
    return [
        kal.AutoLabel(
            (holdout.images, holdout.labels),
            step_size=settings.step_size,
            num_bins=settings.num_bins,
            examples_per_bucket=settings.examples_per_bucket,
            start_epoch=settings.start_epoch,
        )
    ]


def build_optimizer(settings: Settings, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Nesterov SGD with the learning rate of ``settings.schedule``.

    Args:
        settings: The settings. ``"cosine"``: ``learning_rate`` is that of a batch of 128, grows
            with the batch, and falls to 0 along a cosine. ``"cifar"``, ``"imagenet"``: as
            published, see ``cifar_schedule`` and ``imagenet_schedule``.
        steps_per_epoch: Steps of one epoch.

    Returns:
        A Keras optimizer.

    Raises:
        ValueError: If there are too few epochs for a published schedule.
    """
    if settings.schedule == "cosine":
        rate = settings.learning_rate * settings.batch_size / 128.0
        steps = settings.epochs * steps_per_epoch
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    else:
        published = {"cifar": cifar_schedule, "imagenet": imagenet_schedule}[settings.schedule]
        try:
            schedule = published(
                batch_size=settings.batch_size,
                steps_per_epoch=steps_per_epoch,
                epochs=settings.epochs,
            )
        except ValueError as error:
            raise ValueError(
                f"--epochs={settings.epochs} is too short for --schedule={settings.schedule}: "
                f"{error}"
            ) from error
    return keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True)
