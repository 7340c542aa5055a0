"""Data sets in the format of TFDS, for all tests that read them."""

import pytest

from tests.data.fake_tfds import write_cifar, write_imagenet


@pytest.fixture(scope="session")
def tfds_folder(tmp_path_factory) -> str:
    """CIFAR-10, CIFAR-100 and ImageNet as TFDS keeps them, with noise for images."""
    folder = str(tmp_path_factory.mktemp("tensorflow_datasets"))
    write_cifar("cifar10", folder, train=120, test=30)
    write_cifar("cifar100", folder, train=600, test=100)
    write_imagenet(folder, train=2400, test=30)
    return folder
