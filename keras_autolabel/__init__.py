"""AutoLabel: calibrated labels for augmented data, for Keras on TensorFlow."""

from keras_autolabel.augment.attack import projected_gradient_descent as projected_gradient_descent
from keras_autolabel.augment.augmentation import Augmentation as Augmentation
from keras_autolabel.augment.augmix import AugMix as AugMix
from keras_autolabel.augment.cutmix import CutMix as CutMix
from keras_autolabel.augment.mixup import Mixup as Mixup
from keras_autolabel.augment.pgd import PGD as PGD
from keras_autolabel.augment.pgd import HalfAdversarial as HalfAdversarial
from keras_autolabel.augment.randaugment import RandAugment as RandAugment
from keras_autolabel.augment.soft_crop import SoftCrop as SoftCrop
from keras_autolabel.batch import AugmentedBatch as AugmentedBatch
from keras_autolabel.calibration import ExpectedCalibrationError as ExpectedCalibrationError
from keras_autolabel.calibration import TemperatureScaling as TemperatureScaling
from keras_autolabel.calibration import expected_calibration_error as expected_calibration_error
from keras_autolabel.callbacks import AutoLabel as AutoLabel
from keras_autolabel.labels import ConfidenceCalibrated as ConfidenceCalibrated
from keras_autolabel.labels import LabelSmoothing as LabelSmoothing
from keras_autolabel.labels import LabelTable as LabelTable
from keras_autolabel.labels import MixupLabels as MixupLabels
from keras_autolabel.labels import OneHot as OneHot
from keras_autolabel.labels import PowerLabels as PowerLabels
from keras_autolabel.labels import soft_targets as soft_targets
from keras_autolabel.labels import update_confidence as update_confidence
from keras_autolabel.losses import SoftTargetLoss as SoftTargetLoss
from keras_autolabel.losses import soft_target_crossentropy as soft_target_crossentropy
from keras_autolabel.model import AutoLabelModel as AutoLabelModel
from keras_autolabel.version import __version__ as __version__
