"""A comparison whose jobs were never run: files as jobs write them, out of NumPy's generator."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from train import comparison
from train.comparison_job import FIGURE_1, PREDICTIONS, TEMPERATURES
from train.methods import METHODS
from train.settings import Settings

CORRUPTIONS = ("fog", "contrast", "pixelate")
SEVERITIES = (1, 5)
IMAGES = 400
EPOCHS = 4
PLAN = comparison.Plan(
    settings=Settings(dataset="digits", epochs=EPOCHS, num_buckets=5),
    corruptions=",".join(CORRUPTIONS),
    severities=SEVERITIES,
    corrupted_examples=None,
    test_attack_epsilons=(0.01, 0.03),
    test_attack_steps=2,
    test_attack_restarts=1,
    test_attack_examples=50,
)


def make(folder: Path, methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[comparison.Job]:
    """Writes a comparison of some methods and seeds; returns its jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / comparison.PLAN).write_text(json.dumps(dataclasses.asdict(PLAN)), "utf-8")
    manifest = {
        "corruptions": dict.fromkeys(CORRUPTIONS, ""),
        "severities": list(SEVERITIES),
        "examples": IMAGES,
        "seed": 0,
        "skipped": {"saturate": "it needs three channels"},
    }
    (folder / comparison.CORRUPTED).mkdir()
    (folder / comparison.CORRUPTED / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    jobs = [comparison.Job(method, seed) for seed in seeds for method in methods]
    for job in jobs:
        _write_job(folder, job, attacked=comparison.is_attacked(job.method, methods))
    return jobs


def _write_job(folder: Path, job: comparison.Job, *, attacked: bool) -> None:
    number = list(METHODS).index(job.method)
    rng = np.random.default_rng([number, job.seed])
    learns = METHODS[job.method].settings["labels"] == "autolabel"
    # Surer than right, less so where labels are learned.
    excess = 0.02 if learns else 0.08
    arrays = {}
    for corruption, severity in [("none", 0), *((c, s) for c in CORRUPTIONS for s in SEVERITIES)]:
        confidence = rng.uniform(0.3, 1.0, [len(TEMPERATURES), IMAGES]).astype(np.float32)
        correct = rng.uniform(size=IMAGES) < confidence[0] - excess * (1 + severity / 5)
        arrays[f"{corruption}/{severity}/confidence"] = confidence
        arrays[f"{corruption}/{severity}/correct"] = correct
    here = Path(job.folder(str(folder)))
    here.mkdir(parents=True)
    np.savez(here / PREDICTIONS, **arrays)
    shape = (3, 5) if METHODS[job.method].settings["augmentation"] == "augmix" else (5,)
    names = ["_".join(map(str, ("label_confidence", *index))) for index in np.ndindex(shape)]
    rows = [{name: 1.0 - 0.01 * epoch * rng.uniform() for name in names} for epoch in range(EPOCHS)]
    lines = [",".join(["epoch", *names])]
    lines += [",".join(map(str, [epoch, *row.values()])) for epoch, row in enumerate(rows)]
    (here / "history.csv").write_text("\n".join(lines) + "\n", "utf-8")
    if learns:
        pixel = "R0lGODdhAQABAPAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="
        picture = f'<image href="data:image/gif;base64,{pixel}"/>'
        svg = f'<svg viewBox="0 0 90 40">{picture}<text y="12">wide</text></svg>'
        (here / FIGURE_1).write_text(svg, "utf-8")
    robust = {"0": 0.9, "0.01": 0.7 - 0.01 * number, "0.03": 0.4}
    content = {
        "method": job.method,
        "seed": job.seed,
        "data": {"name": "digits", "source": "made up", "train": 9, "holdout": 9, "test": IMAGES},
        "parameters": 10,
        "seconds": 10.0 + number + job.seed,
        "seconds_to_measure": 2.0,
        "threads": 1,
        "robust_accuracy": robust if attacked else None,
        "label_table": np.reshape(list(rows[-1].values()), shape).tolist() if learns else None,
        "versions": {"keras_autolabel": "0"},
        "settings": {"num_bins": 15},
    }
    (here / comparison.JOB).write_text(json.dumps(content), "utf-8")
