"""``python -m train.compare`` as a user runs it: jobs, kills, failures, refusals."""

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ROOT, summaries
from tests.train.conftest import settings_on_the_page
from tests.train.forking_compare import PID
from train.comparison import is_attacked
from train.methods import GROUPS, METHODS, method_names
from train.settings import FIELDS, Settings

SMALL = (
    "--dataset=digits",
    "--train_examples=100",
    "--holdout_examples=100",
    "--batch_size=50",
    "--epochs=8",
    "--num_buckets=2",
    "--examples_per_bucket=50",
    "--seeds=1",
    "--corruptions=contrast,pixelate",
    "--severities=3",
    "--corrupted_examples=100",
    "--test_attack_epsilons=0.02",
    "--test_attack_steps=2",
    "--test_attack_examples=50",
    "--jobs=1",
)
MISTAKES = {
    "a method that is none": (["--methods=mixup,augmax"], "Received: augmax"),
    "no method": (["--methods="], "Received: none"),
    "a setting that methods set": (
        ["--augmentation=mixup"],
        "--augmentation cannot be given: the method vanilla sets it; leave it out.",
    ),
    "a setting that one of the methods sets": (
        ["--methods=vanilla,mixup_0.2", "--beta=0.5"],
        "--beta cannot be given: the method mixup_0.2 sets it; leave it out.",
    ),
    "a setting that no method reads": (
        ["--methods=vanilla,cutmix", "--epsilon=0.1"],
        "--epsilon has no effect on any of vanilla, cutmix; leave it out.",
    ),
    "settings that do not go together": (
        ["--methods=at", "--epsilon=8"],
        "for 8 grey levels of 255 pass 8/255",
    ),
    "a batch that is too large": (["--train_examples=64", "--batch_size=65"], "65 is more than"),
    "a folder that would not be read": (["--data_dir=/tmp"], "digits comes along"),
    "a recipe without its data": (
        [
            f"--flagfile={ROOT / 'train/recipes/never_harms.cfg'}",
            *("--dataset=fashion_mnist", "--data_dir=/nowhere"),
        ],
        "/nowhere",
    ),
    "a folder of something else": ([f"--output_dir={ROOT / 'train'}"], "holds no comparison"),
    "a word that is no flag": (["quick"], "Unknown arguments: quick"),
}


def wait_until(true, *, seconds: float = 300.0) -> None:
    """Waits, and fails where that is in vain."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    """Whether a process computes; one that nobody waited for does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text("utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def told(folder: Path) -> str:
    """``report.md`` without seconds and the folder, quoted or not, which no two runs share."""
    text = (folder / "report.md").read_text("utf-8").replace(str(folder), "FOLDER")
    text = text.replace("'", "")
    text = re.sub(r"(?s)## What it costs.*?## Figures", "## Figures", text)
    return re.sub(r"[Tt]raining time ×\s*[\d.]+( to [\d.]+)?", "", text)


@pytest.fixture(scope="module")
def compare(run_commands, tmp_path_factory):
    """Runs the command to its end; ``programs`` is an empty folder for what that takes."""

    def run(*arguments: str, programs: Path | None = None):
        programs = programs or tmp_path_factory.mktemp("programs")
        command = ["tests.train.forking_compare", str(programs), *SMALL, *arguments]
        return run_commands([command], tmp_path_factory.mktemp("printed"))[0]

    return run


TWO = "--methods=vanilla,cutmix_autolabel"
LEARNED = Path("jobs/cutmix_autolabel-seed0")


@pytest.fixture(scope="module")
def killed(compare, tmp_path_factory):
    """The folder of a comparison that was killed in its second job, and its children's ids."""
    folder = tmp_path_factory.mktemp("comparison") / "of two"
    programs = tmp_path_factory.mktemp("programs")
    arguments = (TWO, f"--output_dir={folder}")
    ended = []
    thread = threading.Thread(target=lambda: ended.append(compare(*arguments, programs=programs)))
    thread.start()
    wait_until(lambda: epochs(folder) >= 1 or ended)
    process = int((programs / PID).read_text("utf-8"))
    children = Path(f"/proc/{process}/task/{process}/children").read_text("utf-8").split()
    os.kill(process, signal.SIGKILL)
    thread.join()
    assert ended[0].status == -signal.SIGKILL, ended[0].stderr
    return folder, [int(child) for child in children]


def epochs(folder: Path) -> int:
    """How many the job that learns labels has trained."""
    progress = folder / LEARNED / "progress.json"
    return json.loads(progress.read_text("utf-8"))["epochs"] if progress.exists() else 0


def test_a_job_ends_with_the_comparison_that_started_it(killed):
    folder, children = killed
    # The job, and what it was forked from.
    assert len(children) == 2
    wait_until(lambda: not any(map(is_alive, children)), seconds=60.0)
    assert epochs(folder) < 8 and not (folder / LEARNED / "job.json").exists()


@pytest.fixture(scope="module")
def ended(killed, compare):
    """The folder of a comparison; what it said when a job failed, its report, and at the end."""
    folder, children = killed
    wait_until(lambda: not any(map(is_alive, children)), seconds=60.0)
    # On top of what is there more methods may be asked for, one of which cannot be written.
    obstacle = folder / "jobs" / "at-seed0" / "settings.json"
    obstacle.mkdir(parents=True)
    failed = compare(f"{TWO},at", f"--output_dir={folder}")
    report = (folder / "report.md").read_text("utf-8")
    shutil.rmtree(obstacle.parent)
    return folder, failed, report, compare(TWO, f"--output_dir={folder}")


def test_a_job_that_fails_is_told_and_the_others_are_reported(ended):
    folder, failed, report, last = ended
    printed = failed.stdout + failed.stderr
    assert "at, seed 0 failed: train.comparison_job: [Errno 21]" in printed
    assert "1 jobs failed: at, seed 0." in failed.message()
    assert "vanilla, seed 0: done" in printed and "cutmix_autolabel, seed 0: done" in printed
    assert "**at, seed 0 failed:**" in report and "| CutMix + AutoLabel |" in report
    # What is compared with adversarial training is attacked, too.
    assert "| Vanilla |" in report.split("## Accuracy under attack")[1]
    assert last.status == 0, last.stderr
    # What was done was not done again.
    assert "seed 0" not in last.stdout + last.stderr
    assert "failed" not in (folder / "report.md").read_text("utf-8")


@pytest.fixture(scope="module")
def finished(ended):
    """The folder of a comparison of two methods."""
    return ended[0]


def test_each_job_leaves_its_files_and_there_is_a_report(ended):
    folder, *_, last = ended
    jobs = {path.name for path in (folder / "jobs").iterdir()}
    assert jobs == {"vanilla-seed0", LEARNED.name}
    for job in jobs:
        names = {path.name for path in (folder / "jobs" / job).iterdir()}
        assert names >= {"job.json", "predictions.npz", "history.csv", "model.keras"}
    assert (folder / "report.html").exists() and "report.html" in last.stdout
    report = (folder / "report.md").read_text("utf-8")
    assert "| Vanilla |" in report and "| CutMix + AutoLabel |" in report
    assert "100 training, 100 hold-out, 300 test" in report


def test_tensorboard_has_a_row_for_each_network_and_temperature(finished):
    rows = {}
    for page in finished.glob("jobs/*/tensorboard/hparams/*"):
        found = summaries(page)
        row = settings_on_the_page(found)
        rows[row["method"], row["temperature"]] = found
    names = ("none", "clean_holdout", "augmented_holdout")
    assert set(rows) == {(x, name) for x in ("vanilla", "cutmix_autolabel") for name in names}
    for (method, name), found in rows.items():
        job = json.loads((finished / "jobs" / f"{method}-seed0" / "job.json").read_text("utf-8"))
        for figure in ("accuracy", "ece", "cacc", "cece"):
            value = float(tf.make_ndarray(found[figure, job["settings"]["epochs"]].tensor))
            assert value == pytest.approx(job["figures"][name][figure], rel=1e-6)


def test_figures_of_a_job_are_those_of_its_predictions(finished):
    """``train.evaluation`` computed the first from logits, NumPy computes the second here."""
    here = finished / LEARNED
    content = json.loads((here / "job.json").read_text("utf-8"))
    arrays = np.load(here / "predictions.npz")
    for number, name in enumerate(("none", "clean_holdout", "augmented_holdout")):
        eces, accuracies = [], []
        for corruption in ("none/0", "contrast/3", "pixelate/3"):
            confidence = arrays[f"{corruption}/confidence"][number].astype(np.float64)
            correct = arrays[f"{corruption}/correct"]
            place = np.minimum(confidence * 15, 14).astype(int)
            eces.append(np.abs(np.bincount(place, confidence - correct)).sum() / len(correct))
            accuracies.append(correct.mean())
        figures = content["figures"][name]
        assert figures["ece"] == pytest.approx(eces[0], abs=1e-5)
        assert figures["accuracy"] == accuracies[0]
        assert figures["cece"] == pytest.approx(np.mean(eces[1:]), abs=1e-5)
        assert figures["cacc"] == pytest.approx(np.mean(accuracies[1:]))
    assert content["temperatures"]["none"] == 1.0
    # A network of eight epochs is not sure enough, clean images are easier than moved ones.
    assert content["temperatures"]["clean_holdout"] < content["temperatures"]["augmented_holdout"]
    assert content["settings"]["labels"] == "autolabel"


def test_a_job_is_a_run_that_others_can_open(finished, run_commands, tmp_path):
    run = finished / "jobs" / "vanilla-seed0"
    command = ["train.evaluate", f"--model={run}", f"--output_dir={tmp_path}"]
    (ended,) = run_commands([command], tmp_path / "printed")
    assert ended.status == 0, ended.stderr
    found = json.loads((tmp_path / "evaluation.json").read_text("utf-8"))
    job = json.loads((run / "job.json").read_text("utf-8"))
    assert found["rows"][0]["ece"] == pytest.approx(job["figures"]["none"]["ece"], abs=1e-6)


def test_killed_at_a_random_moment_and_started_again_it_says_the_same(finished, compare, tmp_path):
    whole = tmp_path / "whole"
    # One of the two jobs is done, the other begins anew.
    shutil.copytree(finished, whole, ignore=shutil.ignore_patterns(LEARNED.name))
    done = whole / "jobs" / "vanilla-seed0" / "job.json"
    before = done.stat().st_mtime_ns
    ended = compare(TWO, f"--output_dir={whole}")
    assert ended.status == 0, ended.stderr
    assert done.stat().st_mtime_ns == before
    assert "continues" not in (whole / LEARNED / "log.txt").read_text("utf-8")
    assert "continues after epoch" in (finished / LEARNED / "log.txt").read_text("utf-8")
    assert told(whole) == told(finished)
    first, second = (np.load(folder / LEARNED / "predictions.npz") for folder in (whole, finished))
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_a_folder_of_other_settings_is_refused_with_the_difference(finished, compare):
    before = (finished / "comparison.json").read_bytes()
    message = compare(TWO, "--epochs=5", "--l2=0.5", f"--output_dir={finished}").message()
    assert "epochs: 8 there, 5 asked for; l2: 0.0001 there, 0.5 asked for" in message
    assert (finished / "comparison.json").read_bytes() == before


@pytest.fixture(scope="module")
def refused(run_commands, tmp_path_factory):
    """What each mistake leads to."""
    folder = tmp_path_factory.mktemp("mistakes")
    commands = [
        ["train.compare", f"--output_dir={folder / str(number)}", "--dataset=digits", *arguments]
        for number, (arguments, _) in enumerate(MISTAKES.values())
    ]
    ended = run_commands(commands, folder / "printed")
    return dict(zip(MISTAKES, ended, strict=True)), folder


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_in_one_line(refused, name):
    message = refused[0][name].message()
    assert message.startswith("train.compare: ") and MISTAKES[name][1] in message
    assert [path.name for path in refused[1].iterdir()] == ["printed"]


def test_methods_set_what_they_are_and_nothing_else():
    for name, method in METHODS.items():
        assert method.settings.keys() <= FIELDS.keys()
        assert (method.rival is None) == (method.settings["labels"] != "autolabel")
        if method.rival:
            # The same but for the labels, or the comparison is of two things at once.
            rival = METHODS[method.rival].settings
            own = method.settings.keys() & {"update"}
            learned = {"labels": "autolabel", **{name: method.settings[name] for name in own}}
            assert {**rival, **learned} == method.settings, name
        Settings(**method.settings)


def test_groups_hold_methods():
    for names in GROUPS.values():
        assert set(names) <= set(METHODS)
        # Each method that learns labels stands beside its rival.
        assert {METHODS[name].rival for name in names} - {None} <= set(names)
    assert method_names(["adversarial", "quick"])[:2] == ("vanilla", "augmix")


def test_only_the_group_of_the_attacks_is_attacked():
    assert [is_attacked(name, METHODS) for name in METHODS] == [
        name in GROUPS["adversarial"] for name in METHODS
    ]
    assert not any(is_attacked(name, GROUPS["quick"]) for name in GROUPS["quick"])
