"""The settings of a run, each declared once: default, help, bounds, and who reads it."""

import dataclasses
import math
import typing
from collections.abc import Iterable
from typing import Any

import data
from keras_autolabel.callbacks import UPDATES
from train.choices import AUGMENTATIONS, LABELS, NETWORKS, SCHEDULES


def setting(default: Any, help: str, *, read_with: str = "", **options) -> Any:
    """Declares a setting.

    Args:
        default: Its value where nothing is said.
        help: What it is, for ``--help``.
        read_with: ``"<setting>=<name>,<name>"``: the choices that read it; empty: all do.
        **options: What absl's definition of its flag takes besides: ``enum_values`` or bounds.

    Returns:
        A field of ``Settings``.
    """
    choice, _, names = read_with.partition("=")
    metadata = {"help": help, "choice": choice, "names": names.split(","), "options": options}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run depends on."""

    dataset: str = setting(
        "fashion_mnist_small",
        "The images; fashion_mnist_small and digits come along. Those of image_folder become RGB, "
        "grey ones too.",
        enum_values=list(data.DATASETS),
    )
    data_dir: str | None = setting(None, "Folder with the files of the data set.")
    train_examples: int | None = setting(
        None, "Training images, stratified by class; all by default.", lower_bound=2
    )
    holdout_examples: int | None = setting(
        None,
        "Images that guide the labels, taken from the training images; a sixth, at most 5,000 (of "
        "imagenet2012 10,000; of fashion_mnist_small a quarter, 1,000).",
        lower_bound=2,
    )
    crop_and_flip: bool | None = setting(
        None,
        "Crops training images at random and flips half of them, and shows the middle of test "
        "images of image_folder; by default for cifar10, cifar100 and imagenet2012.",
    )
    image_size: int | None = setting(
        None,
        "Side of the images in pixels; 224 by default.",
        read_with="dataset=imagenet2012,image_folder",
        lower_bound=8,
    )
    skip_unreadable: bool = setting(
        False, "Leaves out files that are no image.", read_with="dataset=image_folder"
    )
    augmentation: str = setting("augmix", "How images are moved.", enum_values=list(AUGMENTATIONS))
    labels: str = setting(
        "autolabel", "How sure the label of a moved image is.", enum_values=list(LABELS)
    )
    num_buckets: int = setting(
        5,
        "Buckets of the distance, N.",
        read_with=f"augmentation={','.join(name for name in AUGMENTATIONS if name != 'none')}",
        lower_bound=1,
    )
    step_size: float = setting(
        0.1, "Step of the labels, α of Eq. (1).", read_with="labels=autolabel", lower_bound=0.0
    )
    num_bins: int = setting(15, "Bins of the ECE.", lower_bound=1)
    examples_per_bucket: int | None = setting(
        None,
        "Hold-out images measured in each bucket each epoch; 4,500, divided by the number of "
        "buckets, by default; 0: all, as in the paper.",
        read_with="labels=autolabel",
        lower_bound=0,
    )
    start_epoch: int = setting(
        0, "First epoch with an update.", read_with="labels=autolabel", lower_bound=0
    )
    update: str = setting(
        "paper",
        "How labels follow the hold-out: each its own bucket, as in the paper, or all together.",
        read_with="labels=autolabel",
        enum_values=list(UPDATES),
    )
    max_depth: int = setting(3, "Longest chain.", read_with="augmentation=augmix", lower_bound=1)
    severity: float = setting(
        3.0,
        "Strength, of 10.",
        read_with="augmentation=augmix",
        lower_bound=0.1,
        upper_bound=10.0,
    )
    num_operations: int = setting(
        2, "Length of the chain.", read_with="augmentation=randaugment", lower_bound=1
    )
    max_magnitude: float = setting(
        10.0,
        "Largest magnitude, of 10.",
        read_with="augmentation=randaugment",
        lower_bound=0.0,
        upper_bound=10.0,
    )
    # Bounds of β, ε and the step stand with the augmentations, whose messages say what is meant.
    beta: float = setting(1.0, "β of Beta(β, β), above 0.", read_with="augmentation=mixup,cutmix")
    sigma: float = setting(
        0.3,
        "Standard deviation of the shifts, as a part of the side.",
        read_with="augmentation=soft_crop",
    )
    epsilon: float = setting(
        0.02,
        "Largest change of a pixel, ε_max, on the scale of [0, 1], above 0.",
        read_with="augmentation=pgd",
    )
    attack_steps: int = setting(10, "Gradient steps.", read_with="augmentation=pgd", lower_bound=1)
    relative_step_size: float = setting(
        0.25, "Length of a step as a share of ε.", read_with="augmentation=pgd"
    )
    random_start: bool = setting(
        True, "Starts at a random point, not at the image.", read_with="augmentation=pgd"
    )
    smoothing: float = setting(
        0.1,
        "ε of label smoothing.",
        read_with="labels=label_smoothing",
        lower_bound=0.0,
        upper_bound=0.999,
    )
    exponent: float = setting(
        2.0, "Exponent k of soft labels, 1 − (1 − 1/K)·d^k.", read_with="labels=power"
    )
    rho: float = setting(
        10.0,
        "Exponent ρ of the power transition.",
        read_with="labels=ccat",
        lower_bound=0.0,
    )
    temperature_scaling: bool = setting(
        False, "Fits a temperature on the hold-out, reports with and without it, and exports it."
    )
    network: str = setting(
        "small", "small: a residual network of 78,000 parameters.", enum_values=list(NETWORKS)
    )
    depth: int = setting(28, "Layers, 6n + 4.", read_with="network=wide_resnet", lower_bound=10)
    width: int = setting(10, "Widening factor.", read_with="network=wide_resnet", lower_bound=1)
    sync_batch_norm: bool = setting(
        False, "Batch norm over the batch of all GPUs and workers, not over each one's part."
    )
    epochs: int = setting(20, "Passes over the training images.", lower_bound=1)
    batch_size: int = setting(128, "Images in a step, over all GPUs.", lower_bound=1)
    learning_rate: float = setting(
        0.1,
        "First learning rate at a batch of 128; it grows with the batch.",
        read_with="schedule=cosine",
        lower_bound=0.0,
    )
    schedule: str = setting(
        "cosine",
        "How the learning rate falls: along a cosine to 0, or in the published steps, from the "
        "published rate, for CIFAR or ImageNet.",
        enum_values=list(SCHEDULES),
    )
    precision: str = setting(
        "float32",
        "What the network computes in; weights, labels and the loss are float32 always.",
        enum_values=["float32", "mixed_bfloat16", "mixed_float16"],
    )
    jit_compile: bool = setting(
        False, "Has XLA compile the training step, where the augmentation has kernels for it."
    )
    l2: float = setting(1e-3, "Weight of the L2 penalty on all weights.", lower_bound=0.0)
    seed: int = setting(
        0,
        "Seed of splits, weights, order and augmentation.",
        lower_bound=0,
        upper_bound=2**31 - 2,
    )

    def run_name(self) -> str:
        """The folder of the run below ``runs/``."""
        return f"{self.dataset}-{self.augmentation}-{self.labels}-seed{self.seed}"


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def is_read(name: str, settings: Settings) -> bool:
    """Whether a setting changes anything, as the others are.

    Example:
        >>> is_read("beta", Settings(augmentation="mixup")), is_read("beta", Settings())
        (True, False)
    """
    choice, names = FIELDS[name].metadata["choice"], FIELDS[name].metadata["names"]
    return not choice or getattr(settings, choice) in names


def is_allowed(name: str, value: Any) -> bool:
    """Whether a setting may have a value, as its flag would say.

    Example:
        >>> is_allowed("epochs", 3), is_allowed("epochs", 0), is_allowed("epochs", "three")
        (True, False, False)
    """
    kinds = typing.get_args(FIELDS[name].type) or (FIELDS[name].type,)
    options, kind = FIELDS[name].metadata["options"], type(value)
    if kind not in kinds and not (kind is int and float in kinds):
        return False
    if kind not in (int, float):
        return value in options.get("enum_values", [value])
    low, high = options.get("lower_bound", -math.inf), options.get("upper_bound", math.inf)
    return low <= value <= high and abs(value) < math.inf


def check_read(settings: Settings, given: Iterable[str]) -> None:
    """Refuses a setting that was given and would change nothing.

    Args:
        settings: The settings.
        given: Names of those that were given, not left at their defaults.

    Raises:
        ValueError: With the setting and the choices that read it.

    Example:
        >>> check_read(Settings(augmentation="pgd"), ["epsilon"])
    """
    for name in given:
        if not is_read(name, settings):
            choice, names = FIELDS[name].metadata["choice"], FIELDS[name].metadata["names"]
            raise ValueError(
                f"--{name} has no effect with --{choice}={getattr(settings, choice)}, only with "
                f"{' or '.join(names)}; leave it out."
            )


def check_finite(settings: Settings) -> None:
    """Refuses a number that is infinite or none at all.

    Args:
        settings: The settings.

    Raises:
        ValueError: With the setting.

    Example:
        >>> check_finite(Settings())
    """
    for name, value in vars(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} must be a finite number. Received: --{name}={value}")
