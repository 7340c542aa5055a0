"""Runs that are killed with SIGKILL, and go on: equal, bit by bit, to one that was left alone.

A run has 24 steps, each with a checkpoint behind it, and takes a few seconds.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorflow import keras

from tests.conftest import Ended, command_server

pytestmark = pytest.mark.faults

EPOCHS, STEPS = 6, 4
RUN = (
    "--dataset=digits",
    "--train_examples=200",
    "--holdout_examples=60",
    "--examples_per_bucket=20",
    "--num_buckets=2",
    f"--epochs={EPOCHS}",
    f"--batch_size={200 // STEPS}",
    "--checkpoint_minutes=0",
)
AUGMENTATIONS = {"augmix": [], "mixup": [], "pgd": ["--attack_steps=2"]}
Fit = Callable[..., Ended]


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Path | None:
    """What kills at a change of a file; None where nothing compiles it."""
    compiler, library = shutil.which("cc"), tmp_path_factory.mktemp("shim") / "shim.so"
    if compiler is None:
        return None
    source = Path(__file__).with_name("kill_at_change.c")
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def fit(shim, tmp_path_factory) -> Iterator[Fit]:
    """Runs ``train.fit`` into a folder, and kills it at a moment, see ``killed_fit``."""
    printed = tmp_path_factory.mktemp("printed")
    with command_server(**({"LD_PRELOAD": str(shim)} if shim else {})) as run:

        def fit(augmentation: str, folder: Path, moment: str = "never", *variables: str) -> Ended:
            flags = [*RUN, *AUGMENTATIONS[augmentation], f"--augmentation={augmentation}"]
            command = ["tests.faults.killed_fit", moment, *flags, f"--output_dir={folder}"]
            (ended,) = run([[*variables, *command]], printed)
            killed = moment != "never" or any(x.startswith("DIE_AT") for x in variables)
            assert ended.status == (-signal.SIGKILL if killed else 0), ended.stdout + ended.stderr
            return ended

        yield fit


@pytest.fixture(scope="module")
def whole_runs(fit, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a run that nobody killed; beside it, how often it changed a checkpoint."""
    folder = tmp_path_factory.mktemp("whole")

    def whole_run(augmentation: str) -> Path:
        if not (folder / augmentation).exists():
            changes = folder / f"{augmentation}.changes"
            fit(augmentation, folder / augmentation, "never", f"CHANGES={changes}")
        return folder / augmentation

    return whole_run


def _check_equal(folder: Path, whole: Path) -> None:
    """Weights, labels, history and figures, to the last bit; and no checkpoint too many is left."""
    models = [
        keras.models.load_model(path / "model.keras", compile=False) for path in (folder, whole)
    ]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    with open(folder / "history.csv", encoding="utf-8", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(e) for e in range(EPOCHS)]
    one, other = (
        json.loads((path / "metrics.json").read_text("utf-8")) for path in (folder, whole)
    )
    for name in ("figures", "label_table"):
        assert one[name] == other[name]
    labels = models[0].label_policy.confidence.numpy()
    np.testing.assert_array_equal(np.float32(one["label_table"]), labels)
    assert sorted(os.listdir(folder / "checkpoints")) == sorted(os.listdir(whole / "checkpoints"))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_run_that_is_killed_ten_times_ends_as_if_it_had_not_been(
    fit, whole_runs, tmp_path, augmentation
):
    rng = np.random.default_rng(list(AUGMENTATIONS).index(augmentation))
    # While a step is traced, within a step or a checkpoint or the update of the labels, and when
    # all is trained.
    moments = [f"first:{rng.uniform():.3f}" for _ in range(2)]
    moments += [f"2:{rng.uniform(high=1.5):.3f}" for _ in range(7)]
    moments = [*rng.permutation(moments), f"results:{rng.uniform(high=0.7):.3f}"]
    went_on = []
    for moment in [*moments, "never"]:
        printed = fit(augmentation, tmp_path / "run", moment).stdout
        went_on += re.findall(rf"after epoch (\d) of {EPOCHS}(?:, step (\d) of)?", printed)
    # Mostly inside an epoch, ever later, and at last when nothing was left to train.
    places = [STEPS * int(epoch) + int(step or 0) for epoch, step in went_on]
    assert places == sorted(places) and places[-1] == STEPS * EPOCHS
    assert len({place for place in places if place % STEPS}) >= 3
    _check_equal(tmp_path / "run", whole_runs(augmentation))


def test_a_run_that_is_killed_while_it_writes_checkpoints_is_equal_too(
    fit, shim, whole_runs, tmp_path
):
    if shim is None:
        pytest.skip("no C compiler, which makes what kills at a change of a file")
    whole = whole_runs("mixup")
    changes = int(os.readlink(whole.with_name("mixup.changes")))
    a_checkpoint = changes // (EPOCHS * STEPS)
    assert a_checkpoint >= 8
    # At folders and files that are made, half written, named and removed, of the second checkpoint
    # of a process. One whose index is half written is named, and the one before it is taken.
    for change in np.linspace(1, a_checkpoint, 8).astype(int):
        die = f"DIE_AT_CHANGE={a_checkpoint + change}"
        fit("mixup", tmp_path / "run", "never", die)
    fit("mixup", tmp_path / "run")
    _check_equal(tmp_path / "run", whole)
