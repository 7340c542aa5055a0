"""What a run can be made of: for each name that a flag takes, how it is built from the settings.

A new augmentation, label policy, network or schedule is a line here.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from tensorflow import keras

import keras_autolabel as kal
from train.resnet50 import resnet50
from train.schedules import cifar_schedule, imagenet_schedule
from train.small_resnet import small_resnet
from train.wide_resnet import wide_resnet


class Labels(NamedTuple):
    """How sure the labels of a run are.

    Attributes:
        policy: ``policy(settings, num_classes)``; it returns None for the model's own table, which
            ``AutoLabel`` updates.
        of_clean_images: Whether it labels images that nothing moves, too.
    """

    policy: Callable
    of_clean_images: bool = False


def _attack(settings) -> kal.PGD | kal.HalfAdversarial:
    attack = kal.PGD(
        epsilon=settings.epsilon,
        num_buckets=settings.num_buckets,
        num_steps=settings.attack_steps,
        relative_step_size=settings.relative_step_size,
        random_start=settings.random_start,
    )
    # CCAT is trained on half clean, half attacked images.
    return kal.HalfAdversarial(attack) if settings.labels == "ccat" else attack


# name -> constructor(settings); None where images stay as they are.
AUGMENTATIONS = {
    "none": lambda s: None,
    "augmix": lambda s: kal.AugMix(
        num_buckets=s.num_buckets, max_depth=s.max_depth, severity=s.severity
    ),
    "randaugment": lambda s: kal.RandAugment(
        num_buckets=s.num_buckets, num_operations=s.num_operations, max_magnitude=s.max_magnitude
    ),
    "mixup": lambda s: kal.Mixup(num_buckets=s.num_buckets, beta=s.beta),
    "cutmix": lambda s: kal.CutMix(num_buckets=s.num_buckets, beta=s.beta),
    "soft_crop": lambda s: kal.SoftCrop(num_buckets=s.num_buckets, sigma=s.sigma),
    "pgd": _attack,
}
LABELS = {
    "one_hot": Labels(lambda s, k: kal.OneHot(), of_clean_images=True),
    "label_smoothing": Labels(
        lambda s, k: kal.LabelSmoothing(s.smoothing, num_classes=k), of_clean_images=True
    ),
    "mixup": Labels(lambda s, k: kal.MixupLabels()),
    "power": Labels(lambda s, k: kal.PowerLabels(num_classes=k, exponent=s.exponent)),
    "ccat": Labels(lambda s, k: kal.ConfidenceCalibrated(num_classes=k, rho=s.rho)),
    "autolabel": Labels(lambda s, k: None),
}
# name -> constructor(settings) of network(image_shape, num_classes, mean=, std=, l2=,
# synchronized=).
NETWORKS = {
    "small": lambda s: small_resnet,
    "wide_resnet": lambda s: functools.partial(wide_resnet, depth=s.depth, width=s.width),
    "resnet50": lambda s: resnet50,
}
# name -> constructor(settings, steps_per_epoch).
SCHEDULES = {
    "cosine": lambda s, steps: keras.optimizers.schedules.CosineDecay(
        s.learning_rate * s.batch_size / 128.0, s.epochs * steps
    ),
    "cifar": lambda s, steps: cifar_schedule(
        batch_size=s.batch_size, steps_per_epoch=steps, epochs=s.epochs
    ),
    "imagenet": lambda s, steps: imagenet_schedule(
        batch_size=s.batch_size, steps_per_epoch=steps, epochs=s.epochs
    ),
}
