"""Two workers of Ray on this machine train as one device does, and to lose some costs nothing."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests import howto_test
from tests.conftest import ROOT, environment
from tests.faults.devices_test import AUGMENTATIONS, check_equal, train_on
from train.run_folder import last_checkpoint, read_history

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the extra cluster"),
]
EPOCHS = 4
# With BatchNorm, whose statistics each worker keeps apart.
FIT = (
    *("train.fit", "--workers=2", "--dataset=digits", "--augmentation=mixup", "--num_buckets=2"),
    *("--train_examples=400", "--holdout_examples=100", "--examples_per_bucket=40"),
    *("--batch_size=100", f"--epochs={EPOCHS}"),
)
# Workers give way to all else (Ray starts them at nice 15), and half as much is near on two cores.
SECONDS = 600


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
    assert history[-1]["accuracy"] > history[0]["accuracy"] + 0.2
    assert history[-1]["loss"] < history[0]["loss"] - 0.2
    assert printed_into(whole).count(f"Epoch {EPOCHS}/{EPOCHS}") == 1
    (board,) = (whole / "tensorboard" / "train").iterdir()
    assert board.stat().st_size
    found = results(whole)
    assert 0.2 < found["figures"]["test"]["accuracy"] < 1.0
    last = [history[-1][f"label_confidence_{n}"] for n in range(2)]
    np.testing.assert_allclose(found["table"], last, rtol=1e-6)


def test_workers_killed_and_a_driver_terminated_cost_nothing(whole):
    folder = whole.with_name("killed")
    often = "--checkpoint_minutes=0"
    with fit(folder, often) as process:
        wait_for(lambda: saves(folder) >= 2, process, folder)
        process.terminate()
        assert process.wait(SECONDS) == os.EX_TEMPFAIL, printed_into(folder)[-3000:]
    assert "the same command goes on" in printed_into(folder)
    with fit(folder, often) as process:
        for kill in range(3):
            enough = saves(folder) + 2
            wait_for(lambda enough=enough: saves(folder) >= enough, process, folder)
            workers = workers_of(process.pid)
            assert len(workers) == 2
            os.kill(workers[kill % 2], signal.SIGKILL)
        assert process.wait(SECONDS) == 0, printed_into(folder)[-3000:]
    assert printed_into(folder).count("continues after epoch") == 4
    expected, actual = results(whole), results(folder)
    for name, value in expected.pop("kept").items():
        np.testing.assert_array_equal(actual["kept"][name], value, err_msg=name)
    assert actual.pop("kept") and actual == expected


def train_on_both(folder: str) -> None:
    """Runs in each of two workers; the first of them then trains alone, too."""
    tf.get_logger().setLevel("ERROR")
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == 2
    train_on(strategy, Path(folder), by="workers")


@pytest.fixture(scope="module")
def on_both(tmp_path_factory) -> Path:
    """The folders of three runs, on two workers and on one device."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    folder = tmp_path_factory.mktemp("both")

    def loop(config):
        from tests.faults import ray_test

        ray_test.train_on_both(**config)

    variables = {"TF_USE_LEGACY_KERAS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        logging_config=ray.LoggingConfig(log_level="ERROR"),
        runtime_env={"env_vars": variables},
    )
    try:
        TensorflowTrainer(
            loop,
            train_loop_config={"folder": str(folder)},
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(storage_path=str(folder / "ray")),
        ).fit()
    finally:
        ray.shutdown()
    return folder


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_two_workers_equal_one_device(on_both, name):
    check_equal(on_both, name, by="workers")


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    page = ROOT / "docs" / "howto" / "cluster.md"
    howto_test.test_the_code_of_a_page_runs(page, tmp_path, monkeypatch)
