"""A comparison: what all its jobs share, where their files are, and how they are run.

The folder of a comparison holds ``comparison.json``, which says what all jobs share,
``corrupted/``, the corrupted test images, and a folder for each job, ``jobs/<method>-seed<seed>``:
that of a run of ``train.fit`` and, when the job is done, ``predictions.npz`` and ``job.json``.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tqdm import tqdm

import data
from data import corrupted_sets
from train import run_folder
from train.methods import ATTACKED, GROUPS, METHODS
from train.settings import Settings

PLAN, CORRUPTED, JOB, PROGRESS, LOG = (
    "comparison.json",
    "corrupted",
    "job.json",
    "progress.json",
    "log.txt",
)
# What a comparison does otherwise than a single run; docs/results.md says why.
DEFAULTS = {"epochs": 20, "l2": 1e-4}
# Training's part of a job, in the progress bar.
TRAINING_SHARE = 0.7


class Job(NamedTuple):
    """One network: a method and a seed."""

    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method}, seed {self.seed}"

    def folder(self, comparison: str) -> str:
        """The folder of the job, in that of its comparison."""
        return os.path.join(comparison, "jobs", f"{self.method}-seed{self.seed}")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all jobs of a comparison share, and a folder holds once and for all.

    Its settings are those of a run, but for what a method and a seed set; the seed is the first.
    All else is as the flags of ``train.compare`` say.
    """

    settings: Settings
    corruptions: str
    severities: tuple[int, ...]
    corrupted_examples: int | None
    test_attack_epsilons: tuple[float, ...]
    test_attack_steps: int
    test_attack_restarts: int
    test_attack_examples: int

    def settings_of(self, job: Job) -> Settings:
        """The settings of the run that a job trains."""
        return dataclasses.replace(self.settings, **METHODS[job.method].settings, seed=job.seed)

    @classmethod
    def read(cls, folder: str) -> "Plan":
        """The plan that a folder holds."""
        content = json.loads((pathlib.Path(folder) / PLAN).read_text("utf-8"))
        content["settings"] = Settings(**content["settings"])
        for name in ("severities", "test_attack_epsilons"):
            content[name] = tuple(content[name])
        return cls(**content)

    def differences(self, other: "Plan") -> list[str]:
        """What differs, each as "name: its value here, its value there"."""
        mine, theirs = (
            {**plan, **plan.pop("settings")}
            for plan in (dataclasses.asdict(self), dataclasses.asdict(other))
        )
        return [
            f"{name}: {theirs[name]} there, {value} asked for"
            for name, value in mine.items()
            if theirs[name] != value
        ]


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def claim(folder: str, plan: Plan) -> None:
    """Takes a folder for a comparison, a new one or one that goes on.

    Raises:
        ValueError: If the folder holds another comparison, or anything else.
        OSError: If it cannot be written.
    """
    run_folder.check_writable(folder)
    file = os.path.join(folder, PLAN)
    if os.path.exists(file):
        try:
            there = Plan.read(folder)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{file} is damaged or of another version; name another --output_dir."
            ) from error
        differences = plan.differences(there)
        if differences:
            raise ValueError(
                f"{folder} holds a comparison with other settings ({'; '.join(differences)}); "
                "name another --output_dir."
            )
    elif os.path.isdir(folder) and os.listdir(folder):
        raise ValueError(
            f"{folder} is not empty and holds no comparison; name another --output_dir."
        )
    else:
        os.makedirs(folder, exist_ok=True)
        run_folder.write_json(file, dataclasses.asdict(plan))


def make_corrupted(folder: str, plan: Plan, splits: data.Splits, *, processes: int) -> dict:
    """Makes the corrupted test images of a comparison, or what is missing; gives the manifest."""
    test = splits.test
    rows = corrupted_sets.choose_examples(test.labels, plan.corrupted_examples)
    chosen = data.in_memory(test.select(rows))
    return corrupted_sets.generate_corrupted(
        chosen.images,
        chosen.labels,
        os.path.join(folder, CORRUPTED),
        dataset=splits.name,
        corruptions=plan.corruptions,
        severities=plan.severities,
        seed=plan.settings.seed,
        processes=processes,
        progress=True,
    )


def is_attacked(method: str, methods: Iterable[str]) -> bool:
    """Whether the networks of a method are attacked, in a comparison of such methods.

    Example:
        >>> is_attacked("vanilla", ["vanilla", "at"]), is_attacked("vanilla", ["vanilla", "mixup"])
        (True, False)
    """
    return method in GROUPS["adversarial"] and bool(set(methods) & set(ATTACKED))


def is_done(folder: str, job: Job, *, attacked: bool) -> bool:
    """Whether all files of a job are there, the accuracy under attack among them if asked for."""
    content = run_folder.read_json(os.path.join(job.folder(folder), JOB))
    return bool(content) and not (attacked and content["robust_accuracy"] is None)


def run_jobs(folder: str, jobs: Sequence[Job], *, at_a_time: int, threads: int) -> dict[Job, str]:
    """Runs the jobs that are not done, each in a process of its own.

    A job that fails does not stop the others. If this process ends, so do theirs.

    Args:
        folder: The folder of the comparison.
        jobs: All of its jobs.
        at_a_time: How many run at the same time.
        threads: Threads of TensorFlow in each of them.

    Returns:
        Job -> why it failed, in one line.
    """
    methods = {job.method for job in jobs}
    attacked = {job: is_attacked(job.method, methods) for job in jobs}
    waiting = [job for job in jobs if not is_done(folder, job, attacked=attacked[job])]
    epochs = Plan.read(folder).settings.epochs
    running: dict[Job, subprocess.Popen] = {}
    failed: dict[Job, str] = {}
    started: dict[Job, float] = {}
    # Shares of jobs that are done; of a job that a kill interrupted, its part.
    shares = {job: _share(folder, job, epochs) if job in waiting else 1.0 for job in jobs}
    with tqdm(
        total=len(jobs),
        initial=sum(shares.values()),
        disable=None,
        bar_format="{percentage:3.0f}%|{bar:20}| {elapsed}, {remaining} left: {desc}",
    ) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < at_a_time:
                    job = waiting.pop(0)
                    started[job] = time.time()
                    running[job] = _start(folder, job, attacked[job], threads)
                for job in [job for job, process in running.items() if process.poll() is not None]:
                    process = running.pop(job)
                    process.stdin.close()
                    shares[job] = 1.0
                    if process.returncode:
                        log = os.path.join(job.folder(folder), LOG)
                        failed[job] = _failure(process.returncode, log)
                        tqdm.write(f"{job} failed: {failed[job]} (all of it: {log})")
                    else:
                        tqdm.write(f"{job}: done in {time.time() - started[job]:.0f} s")
                shares |= {job: _share(folder, job, epochs) for job in running}
                bar.set_description_str("; ".join(map(str, running)), refresh=False)
                bar.n = round(sum(shares.values()), 3)
                bar.refresh()
                time.sleep(0.2)
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    return failed


def _start(folder: str, job: Job, attacked: bool, threads: int) -> subprocess.Popen:
    os.makedirs(job.folder(folder), exist_ok=True)
    root = str(pathlib.Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = ["train.comparison_job", folder, job.method, job.seed, int(attacked), threads]
    with open(os.path.join(job.folder(folder), LOG), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            # It reads what never comes, and ends when this process has ended.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
        )


def _failure(status: int, log: str) -> str:
    """Why a process failed: the last line of its log."""
    if status < 0:
        return f"it was ended by signal {-status}"
    text = pathlib.Path(log).read_text("utf-8", errors="replace")
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason")


def _share(folder: str, job: Job, epochs: int) -> float:
    progress = run_folder.read_json(os.path.join(job.folder(folder), PROGRESS))
    trained = min(progress.get("epochs", 0) / epochs, 1.0)
    return TRAINING_SHARE * trained + (1.0 - TRAINING_SHARE) * progress.get("measured", 0.0)
