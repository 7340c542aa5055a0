"""The code of docs/howto/ runs, page by page, and prints what the pages say that it prints."""

import contextlib
import io
import pathlib
import re
import runpy
import shlex
import sys

import pytest

PAGES = sorted((pathlib.Path(__file__).parents[1] / "docs" / "howto").glob("*.md"))
# A block of text behind one of Python is what it prints.
BLOCK = re.compile(r"^```(python|text|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The command whose file the code reads; the others take long, or serve until they are stopped.
CONVERT = "python -m tf2onnx.convert "
# What the code of a page imports beside what every test has.
NEEDS = {"cluster": ("ray", "tf_keras"), "export": ("onnxruntime", "tf2onnx")}


def _run_module(words: list[str], monkeypatch) -> None:
    """``python -m`` in this process: another one would import TensorFlow for seconds."""
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_module(words[0], run_name="__main__")


def test_the_pages_are_found():
    assert {"choosing", "custom_training_loop", "export"} <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    for name in NEEDS.get(page.stem, ()):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    names, printed = {"__name__": page.stem}, ""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert "python" in dict(blocks)
    for language, block in blocks:
        if language == "text":
            assert printed == block
            continue
        if language == "bash":
            if block.startswith(CONVERT):
                _run_module(shlex.split(block)[2:], monkeypatch)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(block, page.name, "exec"), names)
        printed = stream.getvalue()
