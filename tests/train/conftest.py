"""``python -m train.NAME`` as a user runs it, and one finished run that several tests look at."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl.testing import flagsaver
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.conftest import ROOT, Ended

# Those of ``train.fit``.
RECIPES = [
    path
    for path in sorted((ROOT / "train" / "recipes").glob("*.cfg"))
    if "python -m train.fit" in path.read_text("utf-8")
]
EPOCHS = 4
# With mixup labels can move both ways from where they start.
SMALL_RUN = (
    "--dataset=digits",
    "--augmentation=mixup",
    "--train_examples=400",
    "--holdout_examples=100",
    "--examples_per_bucket=40",
    "--num_buckets=2",
    f"--epochs={EPOCHS}",
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
