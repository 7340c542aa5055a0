"""Data sets by name, their splits, and corruptions. Knows nothing of labels or models."""

from data.loaders import DATASETS as DATASETS
from data.loaders import RESIZED as RESIZED
from data.loaders import load as load
from data.splits import Split as Split
from data.splits import Splits as Splits
from data.splits import in_memory as in_memory
