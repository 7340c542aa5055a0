"""What a run is made of, out of its settings."""

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tensorflow import keras

import data
import keras_autolabel as kal
from keras_autolabel.calibration import calibration_of, calibration_sums
from keras_autolabel.checks import check_last_batch, check_policy
from train.choices import AUGMENTATIONS, LABELS, NETWORKS, SCHEDULES
from train.image_network import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD
from train.settings import Settings, check_finite

# What published networks normalise with; CIFAR-10's serve CIFAR-100 there, too.
PUBLISHED_MOMENTS = {
    "cifar10": (CIFAR10_MEAN, CIFAR10_STD),
    "cifar100": (CIFAR10_MEAN, CIFAR10_STD),
    "imagenet2012": (IMAGENET_MEAN, IMAGENET_STD),
    "image_folder": (IMAGENET_MEAN, IMAGENET_STD),
}


def check(settings: Settings) -> None:
    """Refuses settings that make no sense, alone or together, before any data is read.

    Args:
        settings: The settings.

    Raises:
        ValueError: With the reason.

    Example:
        >>> check(Settings(augmentation="augmix", labels="autolabel"))
    """
    check_finite(settings)
    augmentation = AUGMENTATIONS[settings.augmentation](settings)
    policy, of_clean_images = LABELS[settings.labels]
    with _naming(settings, "augmentation", "labels"):
        if augmentation is None and not of_clean_images:
            raise ValueError("they say how far an image was moved, and nothing moves it.")
        # How many classes there are the data will tell; what goes together is the same for all.
        made = policy(settings, 10)
        if made is not None:
            check_policy(made, augmentation, 10)
    with _naming(settings, "augmentation", "batch_size"):
        size = settings.batch_size
        check_last_batch(augmentation, examples=size, batch_size=size)
    if settings.jit_compile and not getattr(augmentation, "jit_compiles", True):
        raise ValueError(
            f"--jit_compile does not go with --augmentation={settings.augmentation}: XLA has no "
            "kernels for it; leave --jit_compile out."
        )
    with _naming(settings, "schedule", "epochs"):
        SCHEDULES[settings.schedule](settings, 1)
    if settings.train_examples is not None:
        check_batch(settings, settings.train_examples)


@contextlib.contextmanager
def _naming(settings: Settings, first: str, second: str) -> Iterator[None]:
    """Names the two settings that do not go together, before the reason."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"--{first}={getattr(settings, first)} does not go with "
            f"--{second}={getattr(settings, second)}: {error}"
        ) from error


def check_batch(settings: Settings, examples: int) -> None:
    """Refuses a batch that is larger than the training set.

    Args:
        settings: The settings of the run.
        examples: Number of training images.

    Raises:
        ValueError: With both numbers.

    Example:
        >>> check_batch(Settings(batch_size=64), 64)
    """
    if settings.batch_size > examples:
        raise ValueError(
            f"--batch_size={settings.batch_size} is more than the {examples} training images; "
            "lower it."
        )


def load_data(settings: Settings, *, download: bool = False) -> data.Splits:
    """The data of a run, split as its settings say.

    Args:
        settings: The settings of the run.
        download: Whether what is missing may be fetched.

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
    network = NETWORKS[settings.network](settings)
    return network(
        train.image_shape,
        num_classes,
        mean=mean,
        std=std,
        l2=settings.l2,
        synchronized=settings.sync_batch_norm,
    )


def build_optimizer(settings: Settings, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Nesterov SGD with the learning rate of ``settings.schedule``.

    Args:
        settings: The settings of the run.
        steps_per_epoch: Steps of one epoch.

    Returns:
        A Keras optimizer.

    Raises:
        ValueError: If there are too few epochs for a published schedule.
    """
    schedule = SCHEDULES[settings.schedule](settings, steps_per_epoch)
    return keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True)


def build_model(
    settings: Settings, splits: data.Splits, strategy: tf.distribute.Strategy | None = None
) -> kal.AutoLabelModel:
    """The compiled model of a run.

    Args:
        settings: The settings of the run.
        splits: Its data.
        strategy: What it is trained under; None: all GPUs that this process has.

    Returns:
        A model with fresh weights.

    Raises:
        ValueError: If a batch is larger than the training set, or the network does not fit.
    """
    check_batch(settings, len(splits.train))
    keras.utils.set_random_seed(settings.seed)
    if strategy is None:
        several = len(tf.config.list_logical_devices("GPU")) > 1
        strategy = tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    num_classes = len(splits.class_names)
    with strategy.scope(), _computing_in(settings.precision):
        model = kal.AutoLabelModel(
            build_network(settings, splits.train, num_classes),
            AUGMENTATIONS[settings.augmentation](settings),
            num_classes=num_classes,
            label_policy=LABELS[settings.labels].policy(settings, num_classes),
            seed=settings.seed,
        )
        model.compile(
            build_optimizer(settings, len(splits.train) // settings.batch_size),
            metrics=["accuracy", kal.ExpectedCalibrationError(settings.num_bins, from_logits=True)],
            jit_compile=settings.jit_compile,
        )
        # Keras 2 shows the weights of no model that has not seen its first images.
        model.build([None, *splits.train.image_shape])
    return model


@contextlib.contextmanager
def _computing_in(precision: str) -> Iterator[None]:
    """Layers that are built inside compute in a precision."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def label_table(model: kal.AutoLabelModel) -> np.ndarray | None:
    """The learned labels of a model, float32 of its buckets' shape; None where labels are fixed."""
    table = getattr(model.label_policy, "confidence", None)
    return None if table is None else tf.convert_to_tensor(table).numpy()


class CleanHoldout(keras.callbacks.Callback):
    """Logs of the clean hold-out what ``AutoLabel`` logs of it, where labels are fixed.

    Args:
        holdout: The clean images.
        num_bins: Bins of the ECE.
    """

    def __init__(self, holdout: data.Split, num_bins: int) -> None:
        super().__init__()
        self.holdout = holdout
        self.num_bins = num_bins

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        """Measures ``holdout_ece``, ``holdout_confidence`` and ``holdout_accuracy``."""
        probabilities = tf.nn.softmax(self.model.predict(self.holdout.images, 256, verbose=0))
        sums = calibration_sums(self.holdout.labels, probabilities, num_bins=self.num_bins)
        ece, confidence, accuracy = (float(figure[0]) for figure in calibration_of(sums))
        logs.update(holdout_ece=ece, holdout_confidence=confidence, holdout_accuracy=accuracy)


def build_callbacks(
    settings: Settings, model: kal.AutoLabelModel, holdout: data.Split
) -> list[keras.callbacks.Callback]:
    """What measures the hold-out after each epoch: ``AutoLabel``, which learns labels from it.

    Args:
        settings: The settings of the run.
        model: The model of the run.
        holdout: The clean images that guide the labels.

    Returns:
        ``AutoLabel``, or ``CleanHoldout`` where labels are fixed.
    """
    if label_table(model) is None:
        return [CleanHoldout(holdout, settings.num_bins)]
    size = settings.examples_per_bucket
    return [
        kal.AutoLabel(
            (holdout.images, holdout.labels),
            step_size=settings.step_size,
            num_bins=settings.num_bins,
            examples_per_bucket={None: "auto", 0: None}.get(size, size),
            start_epoch=settings.start_epoch,
            update=settings.update,
        )
    ]
