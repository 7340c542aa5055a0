import ast
import configparser
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDERS = ("keras_autolabel", "data", "train", "benchmarks", "tests")
SOURCES = {
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
}
PYTEST_MAIN = "tests/pytest_main.py"
# A module has a target, named as its path; the main of the tests is in each of them.
MODULES = sorted(SOURCES - {PYTEST_MAIN})

# Distributions that are not called as they are imported, or do not declare all that they need.
DISTRIBUTIONS = {
    "PIL": {"pillow"},
    "absl": {"absl_py"},
    "skimage": {"scikit_image"},
    "sklearn": {"scikit_learn"},
    "tensorflow_datasets": {"tensorflow_datasets", "importlib_resources"},
}
# Not in the lock: their importers do without them, or are tests marked "attack".
OPTIONAL = {"art", "cleverhans", "imagecorruptions", "tensorflow_addons", "tf_keras"}


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """All but what a type checker alone reads."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from nodes_that_run(child)


def imports(tree: ast.Module) -> set[str]:
    """Dotted names that are imported anywhere; ``from a import b`` gives ``a.b``."""
    names = set()
    for node in nodes_that_run(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            names.add(ast.literal_eval(node.args[0]))
    return names


def names_in_strings(tree: ast.Module) -> set[str]:
    """Dotted names, and what is imported, in code that a test hands to another process."""
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    text = "\n".join(string for string in strings if isinstance(string, str))
    return set(re.findall(r"\w+(?:\.\w+)+|(?<=import )\w+", text))


def label_of(module: str) -> str:
    return ":" + module.removesuffix(".py").removesuffix("/__init__")


def modules_here(names: set[str]) -> set[str]:
    """``a.b`` is the module b of a, or the name b in a."""
    found = set()
    for name in names:
        for parts in (name.split("."), name.split(".")[:-1]):
            path = "/".join(parts)
            candidates = {f"{path}.py", f"{path}/__init__.py"} & SOURCES
            if candidates:
                found |= candidates
                break
    return found


def beside_or_above(module: str, name: str) -> set[str]:
    return {f"{folder.as_posix()}/{name}" for folder in Path(module).parents} & SOURCES


def deps_of(module: str) -> set[str]:
    """The labels of what a module imports."""
    tree = tree_of(module)
    # Python runs a module's packages first. One that re-exports its modules depends on them, and
    # they do without it: Python takes the bare folder for a package.
    packages = {
        init
        for init in beside_or_above(module, "__init__.py")
        if not modules_here(imports(tree_of(init)))
    }
    needed = modules_here(imports(tree)) | packages
    outside = {name.split(".")[0] for name in imports(tree)}
    outside -= sys.stdlib_module_names | set(FOLDERS) | OPTIONAL
    outside = set().union(*(DISTRIBUTIONS.get(name, {name}) for name in outside))
    # Keras imports it when the callback is made, and does not declare it.
    attributes = (node for node in nodes_that_run(tree) if isinstance(node, ast.Attribute))
    if "keras.callbacks.TensorBoard" in map(ast.unparse, attributes):
        outside.add("tensorboard")
    if module.startswith("tests/"):
        needed |= modules_here(names_in_strings(tree))
    if module.endswith("_test.py"):
        needed |= beside_or_above(module, "conftest.py")
        outside.add("pytest")
    return {label_of(path) for path in needed - {module}} | {f"@pypi//{name}" for name in outside}


def is_for_another_environment(tree: ast.Module) -> bool:
    """Whether none of a file's tests runs with what the lock holds."""
    lines = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign | ast.Expr)]
    skips = [f"pytest.importorskip('{name}" for name in OPTIONAL]
    return "pytestmark = pytest.mark.attack" in lines or any(
        skip in line for skip in skips for line in lines
    )


def expected_target(module: str) -> dict:
    """The rule and the attributes that a module should have in BUILD."""
    tree = tree_of(module)
    target = {"rule": "py_library", "name": label_of(module)[1:], "srcs": {module}}
    if deps := deps_of(module):
        target["deps"] = deps
    if module.endswith("_test.py"):
        target |= {"rule": "py_test", "size": "medium", "srcs": {module, PYTEST_MAIN}}
        target |= {"main": PYTEST_MAIN, "args": {module}}
        if is_for_another_environment(tree):
            target["tags"] = {"manual"}
    elif any(ast.unparse(node).startswith("if __name__ ==") for node in tree.body):
        target["rule"] = "py_binary"
    return target


@functools.cache
def targets() -> list[dict]:
    """The targets of BUILD, whose syntax is Python's; lists, whose order says nothing, as sets."""
    found = []
    for statement in tree_of("BUILD").body:
        call = statement.value
        if isinstance(call, ast.Call) and call.func.id.startswith("py_"):
            target = {"rule": call.func.id}
            # What is read as data is for the sandbox to hold: there a test fails without it.
            for keyword in (keyword for keyword in call.keywords if keyword.arg != "data"):
                value = ast.literal_eval(keyword.value)
                if isinstance(value, list):
                    assert len(set(value)) == len(value), f"twice in {keyword.arg}: {value}"
                    value = set(value)
                target[keyword.arg] = value
            found.append(target)
    return found


def locked() -> dict[str, set[str]]:
    """Versions in the lock of each distribution; some have one for each range of Pythons."""
    versions = {}
    for line in (ROOT / "requirements_lock.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            versions.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return versions


def test_each_module_has_one_target():
    assert sorted(target["name"] for target in targets()) == sorted(
        label_of(module)[1:] for module in MODULES
    )


@pytest.mark.parametrize("module", MODULES)
def test_a_target_says_what_its_module_imports(module):
    expected = expected_target(module)
    (target,) = [target for target in targets() if target["name"] == expected["name"]]
    assert target == expected


def test_the_lock_holds_what_the_targets_need():
    labels = set().union(*(target.get("deps", set()) for target in targets()))
    names = {canonicalize_name(label.split("//")[1]) for label in labels if "//" in label}
    assert names - locked().keys() == set()


def test_the_lock_holds_what_the_package_asks_for():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"]
    texts = (config["options"]["install_requires"], extras["train"], extras["test"])
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    requirements = [Requirement(line) for line in lines if not line.startswith(("#", "keras-auto"))]
    assert {"tensorflow", "pytest"} <= {requirement.name for requirement in requirements}
    for requirement in requirements:
        versions = locked()[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement
