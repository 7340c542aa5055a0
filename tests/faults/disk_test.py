"""A disk that is full in the middle of a run: a small tmpfs, which root alone may mount."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from tests.conftest import command_server
from tests.faults.kills_test import RUN
from train import run_folder

pytestmark = pytest.mark.faults

# What a run asks for at its start, and a little.
MIB = 24


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A folder with a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MIB}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"mount: {error}")
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(small_disk, tmp_path):
    whole, folder = tmp_path / "whole", small_disk / "run"
    flags = [*RUN, "--augmentation=mixup"]
    with command_server() as run:
        # The disk is full in the third epoch; later, after the training.
        commands = [
            ["tests.faults.killed_fit", moment, *flags, f"--output_dir={folder}"]
            for moment in (f"fill 10:{small_disk}/other", f"fill results:{small_disk}/other")
        ]
        for number, command in enumerate(commands):
            (ended,) = run([command], tmp_path / "printed")
            message = ended.message()
            assert message.startswith("train.fit: ") and "No space left on device" in message
            assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
            # The last checkpoint that was begun may be missing; what is there is whole.
            assert run_folder.last_checkpoint(str(folder))
            os.remove(small_disk / "other")
            if not number:
                reader = tf.train.load_checkpoint(run_folder.last_checkpoint(str(folder)))
                assert reader.get_tensor("epoch/.ATTRIBUTES/VARIABLE_VALUE") >= 1
        ends = run(
            [
                ["tests.faults.killed_fit", "never", *flags, f"--output_dir={path}"]
                for path in (folder, whole)
            ],
            tmp_path / "printed",
        )
    assert [ended.status for ended in ends] == [0, 0], ends[0].stderr
    assert "continues after epoch 6 of 6" in ends[0].stdout
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    one, other = (json.loads((x / "metrics.json").read_text("utf-8")) for x in (folder, whole))
    assert one["figures"] == other["figures"] and one["label_table"] == other["label_table"]
