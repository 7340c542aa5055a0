"""``python -m train.NAME`` as a user runs it, and one finished run that several tests look at."""

import contextlib
import dataclasses
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from absl.testing import flagsaver

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "train" / "recipes").glob("*.cfg"))
# Forks for each command after the imports, which take longer than the commands.
SERVER = """
import json, os, runpy, sys
import scipy.ndimage, sklearn.datasets, sklearn.model_selection
import train.comparison_report, train.evaluation, train.training

for line in sys.stdin:
    printed, module, *arguments = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            path = f"{printed}.{name}"
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
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
    def printed(cls, status: int, path: Path) -> "Ended":
        """With what was printed into ``path.stdout`` and ``path.stderr``."""
        return cls(status, *(Path(f"{path}.{name}").read_text("utf-8") for name in STREAMS))

    def message(self) -> str:
        """The last line of stderr, which is all that a refused command may say beside usage."""
        assert self.status == 1, self.stdout + self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        return self.stderr.strip().splitlines()[-1]


def environment() -> dict[str, str]:
    """The environment of a command: without the notes that TensorFlow prints at import."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def run_commands() -> Iterator[Callable[[list[list[str]], Path], list[Ended]]]:
    """Runs ``[module, *arguments]`` one after the other, each in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), **options) as server:

        def run(commands: list[list[str]], folder: Path) -> list[Ended]:
            folder.mkdir(parents=True, exist_ok=True)
            ended = []
            for number, command in enumerate(commands):
                printed = folder / str(number)
                print(json.dumps([str(printed), *command]), file=server.stdin, flush=True)
                ended.append(Ended.printed(int(server.stdout.readline()), printed))
            return ended

        yield run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, run_commands) -> tuple[Path, Ended]:
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
            return folder, Ended.printed(0, shared / "printed" / "0")
        (ended,) = run_commands([command], shared / "printed")
        assert ended.status == 0, ended.stderr
        return folder, ended
