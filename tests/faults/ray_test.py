"""Two workers of Ray on this machine train as one device does, and to lose some costs nothing."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ROOT, environment
from train.run_folder import last_checkpoint, read_history

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the extra cluster"),
]
EPOCHS = 8
# With BatchNorm, whose statistics each worker keeps apart.
FIT = (
    *("train.fit", "--workers=2", "--dataset=digits", "--augmentation=mixup", "--num_buckets=2"),
    *("--train_examples=400", "--holdout_examples=100", "--examples_per_bucket=40"),
    *("--batch_size=50", f"--epochs={EPOCHS}"),
)
SECONDS = 300


@contextlib.contextmanager
def fit(folder: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """Runs ``train.fit`` on two workers; what it prints is in ``folder.txt``."""
    command = [sys.executable, "-W", "ignore", "-m", *FIT, f"--output_dir={folder}", *arguments]
    with open(folder.with_suffix(".txt"), "a", encoding="utf-8") as printed:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=printed, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()


def printed_into(folder: Path) -> str:
    return folder.with_suffix(".txt").read_text("utf-8")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, folder: Path) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None and time.monotonic() < end, printed_into(folder)[-3000:]
        time.sleep(0.02)


def workers_of(driver: int) -> list[int]:
    """The processes of workers that descend from one, in the order in which they were started."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (path / "stat").read_text("utf-8")
            parents[int(path.name)] = int(stat.rpartition(")")[2].split()[1])
            names[int(path.name)] = (path / "cmdline").read_bytes()

    def descends(process: int) -> bool:
        while process and process != driver:
            process = parents.get(process, 0)
        return process == driver

    return sorted(p for p, name in names.items() if b"RayTrainWorker" in name and descends(p))


def saves(folder: Path) -> int:
    """How many checkpoints a run has written, killed or not."""
    path = last_checkpoint(str(folder))
    return int(path.rpartition("-")[2]) if path else 0


def results(folder: Path) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    reader = tf.train.load_checkpoint(last_checkpoint(str(folder)))
    # Paths of the model and of the optimizer's momentum; other counts are those of checkpoints.
    names = [name for name in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in name]
    kept = {n: reader.get_tensor(n) for n in names if n.startswith(("model/", "optimizer/"))}
    return {
        "kept": kept,
        "history": (folder / "history.csv").read_bytes(),
        "figures": metrics["figures"],
        "table": metrics["label_table"],
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happens to."""
    folder = tmp_path_factory.mktemp("ray") / "whole"
    with fit(folder) as process:
        assert process.wait(SECONDS) == 0, printed_into(folder)[-3000:]
    return folder


def test_two_workers_learn_and_one_of_them_writes(whole):
    history = read_history(str(whole))
    assert [row["epoch"] for row in history] == list(range(EPOCHS))
    assert history[-1]["accuracy"] > 0.7 > history[0]["accuracy"]
    assert printed_into(whole).count(f"Epoch {EPOCHS}/{EPOCHS}") == 1
    (board,) = (whole / "tensorboard" / "train").iterdir()
    assert board.stat().st_size
    found = results(whole)
    assert found["figures"]["test"]["accuracy"] > 0.6
    last = [history[-1][f"label_confidence_{n}"] for n in range(2)]
    np.testing.assert_allclose(found["table"], last, rtol=1e-6)
