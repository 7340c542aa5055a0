"""The examples in docstrings run, and every public name of the package has one."""

import ast
import doctest
import importlib
import pkgutil

import pytest

import data
import keras_autolabel
import keras_autolabel.plots
import train


def _is_safe(name: str) -> bool:
    """Whether a module can be imported here: no two that define flags may be in one process."""
    with open(importlib.util.find_spec(name).origin, encoding="utf-8") as file:
        source = file.read()
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    has_flags = any(node.module == "absl" for node in imports)
    assert not (has_flags and ">>>" in source), f"nothing runs the examples of {name}"
    return not has_flags


MODULES = [
    importlib.import_module(module.name)
    for package in (keras_autolabel, data, train)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if _is_safe(module.name)
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


def test_the_examples_are_found():
    assert {keras_autolabel.AugMix, keras_autolabel.soft_targets} <= set(PUBLIC)
    assert {example.name.partition(".")[0] for example in EXAMPLES} == {
        *("keras_autolabel", "data", "train")
    }
