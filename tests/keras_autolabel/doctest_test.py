import doctest
import importlib
import pkgutil
import sys

import pytest

import keras_autolabel
import keras_autolabel.plots

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(keras_autolabel.__path__, "keras_autolabel.")
]
EXAMPLES = [
    example
    for module in MODULES
    for example in doctest.DocTestFinder().find(module)
    if example.examples
]
PUBLIC = [
    value
    for package in (keras_autolabel, keras_autolabel.plots)
    for name, value in vars(package).items()
    if not name.startswith("_") and callable(value)
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example):
    report = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("value", PUBLIC, ids=lambda value: value.__name__)
def test_every_public_name_has_an_example(value):
    name = f"{value.__module__}.{value.__qualname__}"
    assert name in {example.name for example in EXAMPLES}


def test_the_public_names_are_found():
    assert {keras_autolabel.AugMix, keras_autolabel.soft_targets} <= set(PUBLIC)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
