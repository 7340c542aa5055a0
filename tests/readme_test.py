"""The code of the README runs; flags, files and names in the pages exist."""

import ast
import functools
import pathlib
import re

import numpy as np
import pytest
from tensorflow import keras

ROOT = pathlib.Path(__file__).parents[1]
README, PAPER, RESULTS = (
    (ROOT / page).read_text(encoding="utf-8")
    for page in ("README.md", "docs/paper.md", "docs/results.md")
)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_code_of_the_first_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in blocks("python") if "kal.AutoLabel(" in block)
    names = {}
    exec(code, names)
    assert names["model"].label_policy.confidence.shape == (3, 5)
    assert (tmp_path / "exported" / "saved_model.pb").exists()


@pytest.fixture(name="user_data")
def fixture_user_data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 16, 16, 1), dtype=np.uint8)
    labels = np.arange(90) % 10
    parts = {"train": slice(0, 50), "holdout": slice(50, 70), "test": slice(70, 90)}
    names = {f"x_{name}": images[part] for name, part in parts.items()}
    return {**names, **{f"y_{name}": labels[part] for name, part in parts.items()}, "keras": keras}


@pytest.mark.parametrize("sign", ["-", "+"])
def test_both_sides_of_the_diff_run(sign, user_data):
    (diff,) = blocks("diff")
    lines = [line[1:] for line in diff.splitlines() if line[0] in (" ", sign)]
    exec("\n".join(lines), user_data)
    assert user_data["model"].predict(user_data["x_test"], verbose=0).shape == (20, 10)


def test_the_diff_changes_at_most_five_lines():
    (diff,) = blocks("diff")
    signs = [line[0] for line in diff.splitlines()]
    assert 0 < signs.count("+") <= 5 and signs.count("-") <= 5


def test_the_readme_is_read_in_two_minutes():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", [README, RESULTS], ids=["readme", "results"])
def test_every_flag_in_the_pages_exists(page, flags_of):
    commands = re.findall(r"python -m (train\.\w+)([^\n`]*)", page.replace("\\\n", " "))
    assert "train.compare" in {module for module, _ in commands}
    for module, arguments in commands:
        known = {"help", "flagfile", *flags_of(module)}
        for name in re.findall(r"--(\w+)", arguments):
            assert name in known, f"{module} has no --{name}"


@pytest.fixture(scope="module", name="flags_of")
def fixture_flags_of(run_commands, tmp_path_factory):
    """The flags that a binary's --help names."""
    printed = tmp_path_factory.mktemp("printed")

    @functools.cache
    def flags_of(module):
        (ended,) = run_commands([[module, "--help"]], printed)
        return set(re.findall(r"^  --(?:\[no\])?(\w+):", ended.stdout, re.MULTILINE))

    return flags_of


def names_in(path):
    """Functions, classes and, as Class.method, methods that a file defines."""
    names = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            methods = (
                child for child in getattr(node, "body", []) if isinstance(node, ast.ClassDef)
            )
            names |= {f"{node.name}.{child.name}" for child in methods if hasattr(child, "name")}
    return names


def test_every_function_that_is_said_to_be_a_formula_exists():
    said = re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", PAPER)
    assert len(said) >= 30
    for path, names in said:
        missing = set(re.findall(r"`([\w.]+)`", names)) - names_in(path) - {path}
        assert not missing, f"{path} has no {missing}"


def test_every_file_that_the_pages_name_exists():
    named = re.findall(
        r"`((?:docs|data|train|keras_autolabel)/[\w/*.]*)`", README + PAPER + RESULTS
    )
    named += re.findall(r"\]\(([\w./]+)\)", README)
    assert named
    for pattern in named:
        assert list(ROOT.glob(pattern.rstrip("/"))), pattern
