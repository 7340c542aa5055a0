"""``BUILD`` says of each package what it imports, and the lock holds that.

A package of this repository that is missing there also fails in Bazel's sandbox; one of PyPI does
not where ``.ci/bazel`` stands in for it.
"""

import ast
import configparser
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BUILD = (ROOT / "BUILD").read_text(encoding="utf-8")
PACKAGES = ("keras_autolabel", "data", "train", "benchmarks")

# Distributions that are not called as they are imported, or do not declare all that they need.
DISTRIBUTIONS = {
    "PIL": {"pillow"},
    "absl": {"absl_py"},
    "skimage": {"scikit_image"},
    "sklearn": {"scikit_learn"},
    "tensorflow_datasets": {"tensorflow_datasets", "importlib_resources"},
}
# Not in the lock: their importers do without them, or are tests that Bazel does not run.
OPTIONAL = {
    *("albumentations", "art", "bentoml", "cleverhans", "cv2", "imagecorruptions", "onnxruntime"),
    *("ray", "tensorflow_addons", "tf2onnx", "tf_keras"),
}


def imports_of(folder: str) -> set[str]:
    """What the modules in a folder import anywhere, but for annotations alone: first names."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        nodes = [ast.parse(path.read_text(encoding="utf-8"))]
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            nodes += ast.iter_child_nodes(node)
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
                (module, *_) = node.args
                # One that a variable names is named elsewhere, too.
                if isinstance(module, ast.Constant):
                    names.add(module.value.split(".")[0])
            # Keras imports it when the callback is made, and does not declare it.
            elif isinstance(node, ast.Attribute) and node.attr == "TensorBoard":
                names.add("tensorboard")
    return names - {folder}


def needed_by(folder: str) -> set[str]:
    """The labels that a folder's target must depend on, and no others."""
    names = imports_of(folder)
    outside = names - set(sys.stdlib_module_names) - OPTIONAL - {*PACKAGES, "benchmarks", "tests"}
    distributions = set().union(*(DISTRIBUTIONS.get(name, {name}) for name in outside))
    return {f":{name}" for name in names & set(PACKAGES)} | {f"@pypi//{x}" for x in distributions}


def dependencies(build: str) -> dict[str, set[str]]:
    """The ``deps`` of each target that has a name of its own; BUILD's syntax is Python's."""
    found = {}
    for statement in ast.parse(build).body:
        if isinstance(statement.value, ast.Call):
            values = {keyword.arg: keyword.value for keyword in statement.value.keywords}
            if "deps" in values:
                found[ast.literal_eval(values["name"])] = set(ast.literal_eval(values["deps"]))
    return found


def differences(build: str) -> dict[str, set[str]]:
    """Of each package the dependencies that are missing, or that nothing needs."""
    found = dependencies(build)
    wrong = {package: needed_by(package) ^ found[package] for package in PACKAGES}
    return {package: labels for package, labels in wrong.items() if labels}


def locked() -> dict[str, set[str]]:
    """Versions in the lock of each distribution; some have one for each range of Pythons."""
    versions = {}
    for line in (ROOT / "requirements_lock.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            versions.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return versions


def test_each_package_depends_on_what_it_imports():
    assert differences(BUILD) == {}


@pytest.mark.parametrize(
    ("package", "label"),
    [("train", ":data"), ("train", ":keras_autolabel"), ("data", "@pypi//pillow")],
)
def test_a_dependency_taken_away_or_added_is_seen(package, label):
    start = BUILD.index(f'name = "{package}",')
    line = f'        "{label}",\n'
    assert line in BUILD[start:]
    without = BUILD[:start] + BUILD[start:].replace(line, "", 1)
    assert differences(without) == {package: {label}}
    start = BUILD.index('name = "keras_autolabel",')
    more = BUILD[:start] + BUILD[start:].replace("deps = [\n", f"deps = [\n{line}", 1)
    assert differences(more) == {"keras_autolabel": {label}}


def test_the_tests_are_given_the_distributions_that_they_import():
    given = {label for label in dependencies(BUILD)["tests"] if label.startswith("@pypi//")}
    assert given == {label for label in needed_by("tests") if label.startswith("@pypi//")}


def test_the_lock_holds_what_the_targets_need():
    labels = set().union(*dependencies(BUILD).values())
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
