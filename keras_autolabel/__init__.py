"""AutoLabel: calibrated labels for augmented data, for Keras on TensorFlow."""

from keras_autolabel.augment.attack import projected_gradient_descent
from keras_autolabel.augment.augmentation import Augmentation, Draw
from keras_autolabel.augment.augmix import AugMix
from keras_autolabel.augment.cutmix import CutMix
from keras_autolabel.augment.mixup import Mixup
from keras_autolabel.augment.pgd import PGD, HalfAdversarial
from keras_autolabel.augment.randaugment import RandAugment
from keras_autolabel.augment.soft_crop import SoftCrop
from keras_autolabel.batch import AugmentedBatch
from keras_autolabel.calibration import TemperatureScaling, expected_calibration_error
from keras_autolabel.callbacks import AutoLabel, LabelEpoch
from keras_autolabel.labels import (
    ConfidenceCalibrated,
    LabelSmoothing,
    LabelTable,
    MixupLabels,
    OneHot,
    PowerLabels,
    soft_targets,
    update_confidence,
)
from keras_autolabel.losses import SoftTargetLoss, soft_target_crossentropy
from keras_autolabel.metrics import ExpectedCalibrationError
from keras_autolabel.model import AutoLabelModel
from keras_autolabel.version import __version__

__all__ = [
    "AugMix",
    "Augmentation",
    "AugmentedBatch",
    "AutoLabel",
    "AutoLabelModel",
    "ConfidenceCalibrated",
    "CutMix",
    "Draw",
    "ExpectedCalibrationError",
    "HalfAdversarial",
    "LabelEpoch",
    "LabelSmoothing",
    "LabelTable",
    "Mixup",
    "MixupLabels",
    "OneHot",
    "PGD",
    "PowerLabels",
    "RandAugment",
    "SoftCrop",
    "SoftTargetLoss",
    "TemperatureScaling",
    "__version__",
    "expected_calibration_error",
    "projected_gradient_descent",
    "soft_target_crossentropy",
    "soft_targets",
    "update_confidence",
]
