"""``python -m train.NAME`` as a user runs it, and one finished run that several tests look at."""

import contextlib
import dataclasses
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl.testing import flagsaver
from tensorboard.plugins.hparams import plugin_data_pb2

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "train" / "recipes").glob("*.cfg"))
# Forks for each command after the imports, which take longer than the commands.
DRIVER = """
import json, os, runpy, sys
import scipy.ndimage, sklearn.datasets, sklearn.model_selection
import train.evaluation, train.training

for number, (module, *arguments) in enumerate(json.load(sys.stdin)):
    child = os.fork()
    if not child:
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            path = os.path.join(sys.argv[1], f"{number}.{name}")
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# With mixup labels can move both ways from where they start.
SMALL_RUN = (
    "--dataset=digits",
    "--augmentation=mixup",
    "--train_examples=400",
    "--holdout_examples=100",
    "--examples_per_bucket=40",
    "--num_buckets=2",
    "--epochs=8",
    "--batch_size=50",
    "--temperature_scaling",
)


def settings_on_the_page(found: dict) -> dict:
    """The settings in a row of TensorBoard's page of hyper-parameters, out of ``summaries``."""
    (content,) = (
        value.metadata.plugin_data.content
        for (tag, _), value in found.items()
        if tag == "_hparams_/session_start_info"
    )
    row = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in row.items()}


@contextlib.contextmanager
def flags_of_fit(*arguments: str) -> Iterator[list[str]]:
    """Has the flags of ``python -m train.fit <arguments>``; gives what absl leaves for main."""
    # The import defines the flags, which no two binaries in one process may.
    from train import fit

    saved = flagsaver.save_flag_values()
    try:
        fit.FLAGS.unparse_flags()
        yield fit.FLAGS(["fit", *arguments])
    finally:
        flagsaver.restore_flag_values(saved)
        fit.FLAGS.mark_as_parsed()


def from_flags(*arguments: str) -> tuple[object, list[str]]:
    """What ``python -m train.fit <arguments>`` makes of its flags."""
    from train import command_line

    with flags_of_fit(*arguments):
        return command_line.settings_from_flags()


STREAMS = ("stdout", "stderr")


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command left: its status and what it printed."""

    status: int
    stdout: str
    stderr: str

    @classmethod
    def printed(cls, status: int, folder: Path, number: int = 0) -> "Ended":
        """With what command ``number`` printed into a folder."""
        return cls(status, *((folder / f"{number}.{x}").read_text("utf-8") for x in STREAMS))

    def message(self) -> str:
        """The last line of stderr, which is all that a refused command may say beside usage."""
        assert self.status == 1, self.stdout + self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        return self.stderr.strip().splitlines()[-1]


def environment() -> dict[str, str]:
    """The environment of a command: without the notes that TensorFlow prints at import."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


FAILING = """
import tensorflow as tf
from absl import app
from train import {module} as binary

def fail(*_, **__):
    message = "Graph execution error:\\nassertion failed: [no space]\\n\\t [[{{{{node a}}}}]]"
    raise tf.errors.ResourceExhaustedError(None, None, message)

binary.{function} = fail
app.run(binary.main)
"""


def failing_message(module: str, function: str, *arguments: str) -> str:
    """How a binary ends in which a function raises an error of TensorFlow."""
    ended = subprocess.run(
        [sys.executable, "-c", FAILING.format(module=module, function=function), *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    return ended.stderr.strip().splitlines()[-1]


def run_commands(commands: list[list[str]], folder: Path) -> list[Ended]:
    """Runs ``[module, *arguments]`` one after the other, each in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(folder)],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(),
    )
    assert ran.returncode == 0, ran.stderr
    return [
        Ended.printed(int(status), folder, number)
        for number, status in enumerate(ran.stdout.split())
    ]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> tuple[Path, Ended]:
    """The folder of a small run of mixup + AutoLabel on digits, and what it printed."""
    shared = tmp_path_factory.getbasetemp()
    # The workers of pytest-xdist share one run: its time is that of many tests.
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "digits"
    command = ["train.fit", *SMALL_RUN, f"--output_dir={folder}"]
    with open(shared / "digits.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "metrics.json").exists():
            return folder, Ended.printed(0, shared / "printed")
        (ended,) = run_commands([command], shared / "printed")
        assert ended.status == 0, ended.stderr
        return folder, ended
