"""Data sets by name, their splits, and corruptions. Knows nothing of labels or models."""

from data.loaders import DATASETS as DATASETS
from data.loaders import Split as Split
from data.loaders import Splits as Splits
from data.loaders import load as load
