"""Common corruptions of images, at the scale of CIFAR."""

from data.corruptions.apply import corrupt as corrupt
from data.corruptions.apply import skipped as skipped
from data.corruptions.severities import ALL19 as ALL19
from data.corruptions.severities import GROUPS as GROUPS
from data.corruptions.severities import SEVERITIES as SEVERITIES
from data.corruptions.severities import checked_severities as checked_severities
from data.corruptions.severities import corruption_names as corruption_names
