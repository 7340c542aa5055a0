import doctest
import sys

import pytest

from train import (
    builders,
    evaluation,
    image_network,
    predictor,
    reasons,
    report,
    resnet50,
    run_folder,
    schedules,
    settings,
    small_resnet,
    wide_resnet,
)

# All but those that define flags, which no two modules in one process may.
MODULES = [
    *(builders, evaluation, image_network, predictor, reasons, report, resnet50, run_folder),
    *(schedules, settings, small_resnet, wide_resnet),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples(module):
    results = doctest.testmod(module)
    assert results.attempted and not results.failed


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
