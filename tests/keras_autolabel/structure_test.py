import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("keras_autolabel", "data", "train", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGE = [path for path in SOURCES if path.is_relative_to(ROOT / "keras_autolabel")]

# Inside the package imports run upwards only: a module imports what stands before it. What is
# in one folder may import its neighbours, in no circle.
ORDER = (
    *("version", "buckets", "batch", "calibration", "ranking", "metrics", "labels"),
    *("distribution", "losses", "augment", "checks", "export", "network", "probability"),
    *("progress", "model", "callbacks", "testing", "plots"),
)
# Methods of named tuples: public in spite of their names.
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}


def _name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(nodes) -> set[str]:
    """Dotted names that the nodes import; ``from a import b`` gives ``a.b``."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(ast.walk(_tree(path)))}


def test_the_sources_are_found():
    assert ROOT / "keras_autolabel" / "model.py" in PACKAGE
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} >= {"data", "train"}


@pytest.mark.parametrize("path", SOURCES, ids=_name_of)
def test_folders_import_what_they_may(path):
    mine, packages = path.relative_to(ROOT).parts[0], _packages(path)
    allowed = {
        "keras_autolabel": {"keras_autolabel"},
        "data": {"data"},
        "train": {"train", "data", "keras_autolabel"},
        "benchmarks": {"benchmarks", "train", "data", "keras_autolabel"},
    }
    assert packages & {*FOLDERS, "tests"} <= allowed[mine]
    if mine not in ("train", "benchmarks"):
        assert "absl" not in packages
    if mine != "data":
        assert "tensorflow_datasets" not in packages


def _layer(path: Path) -> str:
    """The name in ``ORDER`` that a file of the package belongs to."""
    return path.relative_to(ROOT / "keras_autolabel").parts[0].removesuffix(".py")


def _files_imported_by(path: Path) -> set[Path]:
    files = set()
    for name in _imports(ast.walk(_tree(path))):
        # ``a.b.c`` is the module c of a.b, or else the name c of the module a.b.
        for parts in (name.split("."), name.split(".")[:-1]):
            base = ROOT.joinpath(*parts)
            found = {base.with_suffix(".py"), base / "__init__.py"} & set(SOURCES)
            files |= found
            if found:
                break
    return files


@pytest.mark.parametrize("path", PACKAGE, ids=_name_of)
def test_imports_run_upwards_only(path):
    if path.name == "__init__.py" and path.parent.name == "keras_autolabel":
        return
    mine = ORDER.index(_layer(path))
    for imported in _files_imported_by(path):
        # The package itself re-exports everything: nothing inside may import it.
        assert imported != ROOT / "keras_autolabel" / "__init__.py"
        own_folder = _layer(imported) == _layer(path) and imported.parent == path.parent
        assert ORDER.index(_layer(imported)) < mine or own_folder, imported


def test_no_imports_in_a_circle():
    """Not even inside functions, nor for annotations alone."""
    open_files, done = [], set()

    def visit(path):
        assert path not in open_files, [_name_of(p) for p in [*open_files, path]]
        if path in done:
            return
        open_files.append(path)
        for imported in _files_imported_by(path):
            visit(imported)
        done.add(open_files.pop())

    for path in SOURCES:
        visit(path)
    assert done == set(SOURCES)


USERS = [
    path
    for pattern in ("README.md", "docs/**/*.md", "docs/**/*.py", "train/*.py", "benchmarks/*.py")
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("path", USERS, ids=_name_of)
def test_what_others_use_of_the_package_is_public(path):
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"\bkal\.(\w+(?:\.\w+)*)", text))
    if path.suffix == ".py":
        names = _imports(ast.walk(ast.parse(text)))
        used |= {name.partition(".")[2] for name in names if name.startswith("keras_autolabel.")}
    for name in used:
        # It exists, and is exported or in a public module.
        assert pkgutil.resolve_name(f"keras_autolabel.{name}") is not None
        assert not re.search(r"\b_(?!_version__)", name), name


def _own_names(tree: ast.Module) -> set[str]:
    """Names that a file defines: functions, classes, ``self.x = ...`` and ``x = ...``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=_name_of)
def test_no_private_attribute_of_others(path):
    tree = _tree(path)
    own = _own_names(tree) | NAMED_TUPLE
    for name in _imports(ast.walk(tree)):
        package, *rest = name.split(".")
        assert not any(part.startswith("_") and not part.startswith("__") for part in rest), name
        if package in ("keras", "tf_keras", "tensorflow"):
            assert not {"src", "python", "engine"} & set(rest), name
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        private = node.attr.startswith("_") and not node.attr.startswith("__")
        assert not private or node.attr in own, ast.unparse(node)
        assert ast.unparse(node) not in ("keras.src", "tf.python", "tensorflow.python")


# Blocks whatever a user of the package need not have, then imports it.
MINIMAL = """
import importlib
import pkgutil
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import tensorflow as tf
from tensorflow import keras
keras.Sequential
from absl import flags
before, flags_before = set(sys.modules), set(flags.FLAGS)
import keras_autolabel
for module in pkgutil.walk_packages(keras_autolabel.__path__, "keras_autolabel."):
    importlib.import_module(module.name)
print(sorted({name.split(".")[0] for name in set(sys.modules) - before}))
print(sorted(set(flags.FLAGS) - flags_before))
"""


def test_importing_the_package_needs_tensorflow_and_numpy_alone():
    absent = ["matplotlib", "sklearn", "scipy", "PIL", "tensorflow_datasets", "pandas", "netcal"]
    result = subprocess.run(
        [sys.executable, "-c", MINIMAL, *absent, "data", "train", "benchmarks", "tests"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    modules, flags = map(ast.literal_eval, result.stdout.splitlines()[-2:])
    loaded = {name for name in modules if not name.startswith("_")}
    others = loaded - set(sys.stdlib_module_names)
    assert others <= {"keras_autolabel", "tensorflow", "keras", "numpy"}
    assert not flags
