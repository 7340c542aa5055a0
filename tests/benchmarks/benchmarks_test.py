"""Every benchmark runs with sizes that say nothing, and writes what it measured."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMES = ("attack", "augment", "corrupt", "epoch", "loss", "metrics", "workers")


@pytest.fixture(scope="module", name="folder")
def fixture_folder(run_commands, tmp_path_factory) -> Path:
    """What all benchmarks have written."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = ["tests.benchmarks.all_of_them", str(folder), *NAMES]
    (ended,) = run_commands([command], folder / "printed")
    assert ended.status == 0, ended.stderr[-3000:]
    return folder


def test_the_names_are_all_that_there_are():
    sources = (ROOT / "benchmarks").glob("*.py")
    # The others are studies of how well labels are learned.
    timed = {path.stem for path in sources if "benchmark(" in path.read_text("utf-8")}
    assert timed - {"rounds"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_ours_runs_and_peers_run_or_say_why_not(folder, name):
    written = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    assert (written["benchmark"], written["rounds"]) == (name, 1)
    rows = written["results"]
    assert {row["by"] for row in rows if row["grows"]}
    for row in rows:
        assert (len(row["seconds"]) == 1) != bool(row["error"]), row
        assert not (row["error"] and row["by"].startswith(("keras_autolabel", "update"))), row
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
