"""The settings of a run, and which of them make sense together."""

import dataclasses
import math

import data

AUGMENTATIONS = ("none", "augmix", "randaugment", "mixup", "pgd")
LABELS = ("one_hot", "label_smoothing", "mixup", "ccat", "autolabel")
NETWORKS = ("small", "wide_resnet", "resnet50")
SCHEDULES = ("cosine", "cifar", "imagenet")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run depends on; the flags of ``train.fit`` explain each one."""

    dataset: str = "digits"
    data_dir: str | None = None
    train_examples: int | None = None
    holdout_examples: int | None = None
    crop_and_flip: bool | None = None
    image_size: int | None = None
    skip_unreadable: bool = False
    augmentation: str = "augmix"
    labels: str = "autolabel"
    num_buckets: int = 5
    step_size: float = 0.1
    num_bins: int = 15
    examples_per_bucket: int | None = 500
    start_epoch: int = 0
    max_depth: int = 3
    severity: float = 3.0
    num_operations: int = 2
    max_magnitude: float = 10.0
    beta: float = 1.0
    epsilon: float = 0.02
    attack_steps: int = 10
    relative_step_size: float = 0.25
    random_start: bool = True
    smoothing: float = 0.1
    rho: float = 10.0
    temperature_scaling: bool = False
    network: str = "small"
    depth: int = 28
    width: int = 10
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: str = "cosine"
    l2: float = 1e-3
    seed: int = 0

    def run_name(self) -> str:
        """The folder of the run below ``runs/``."""
        return f"{self.dataset}-{self.augmentation}-{self.labels}-seed{self.seed}"


def check_combination(settings: Settings) -> None:
    """Refuses settings that make no sense, alone or together.

    Args:
        settings: The settings.

    Raises:
        ValueError: With the reason.

    Example:
        >>> check_combination(Settings(augmentation="augmix", labels="autolabel"))
    """
    for name, value in vars(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} must be a finite number. Received: --{name}={value}")
    augmentation, labels = settings.augmentation, settings.labels
    reasons = {
        augmentation == "none" and labels == "autolabel": (
            "AutoLabel learns a label for each distance, and --augmentation=none moves nothing"
        ),
        labels == "mixup" and augmentation != "mixup": (
            "the labels of mixup are those of a mixture of two images"
        ),
        labels == "ccat" and augmentation != "pgd": (
            "CCAT labels adversarial examples by the size of their perturbation"
        ),
        labels == "one_hot" and augmentation == "mixup": (
            "a mixture of two classes has no one-hot label; --labels=mixup is ordinary mixup"
        ),
        labels == "label_smoothing" and augmentation == "mixup": (
            "label smoothing would ignore the second class; --labels=mixup is ordinary mixup"
        ),
    }
    for nonsense, reason in reasons.items():
        if nonsense:
            raise ValueError(
                f"--augmentation={augmentation} does not go with --labels={labels}: {reason}."
            )
    if augmentation == "mixup" and settings.batch_size < 2:
        raise ValueError("--augmentation=mixup mixes two images: --batch_size must be at least 2.")
    if settings.schedule != "cosine" and settings.learning_rate != Settings.learning_rate:
        raise ValueError(
            f"--schedule={settings.schedule} has a learning rate of its own; leave out "
            "--learning_rate, or choose --schedule=cosine."
        )
    if settings.dataset not in data.DATASETS:
        raise ValueError(f"--dataset must be one of {', '.join(data.DATASETS)}.")
