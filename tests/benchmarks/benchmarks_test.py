"""Every benchmark runs with sizes that say nothing, and writes what it measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("attack", "augment", "corrupt", "epoch", "loss", "metrics", "workers")
# All of them in one process, since importing TensorFlow takes longer than they do; with chains of
# two operations and a linear network, since graphs take longest.
DRIVER = """
import functools, importlib, sys
import keras_autolabel as kal
import train.small_resnet
from benchmarks import rounds
from tests.conftest import linear_network
train.small_resnet.small_resnet = lambda shape, classes, **_: linear_network(shape, classes)
for name in ("AugMix", "RandAugment"):
    few = functools.partial(getattr(kal, name), operations=("rotate", "solarize"))
    setattr(kal, name, few)
rounds.define_flags()
rounds.FLAGS(["benchmarks", "--tiny", "--rounds=1", f"--output_dir={sys.argv[1]}"])
for name in sys.argv[2:]:
    rounds.benchmark(name, importlib.import_module(f"benchmarks.{name}").cases, [name])
"""


@pytest.fixture(scope="module", name="folder")
def fixture_folder(tmp_path_factory) -> Path:
    """What all benchmarks have written."""
    folder = tmp_path_factory.mktemp("benchmarks")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, folder, *NAMES],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
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
