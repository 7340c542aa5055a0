"""How strong may augmentation be, with and without learned labels?

    python -m benchmarks.severity

Trains AugMix of several severities with one-hot labels and with AutoLabel, and measures each
network on images that neither trained it nor guided its labels: half of the hold-out, of which the
other half guides. What is chosen by that is confirmed on the test images, which are read for
nothing else:

    python -m benchmarks.severity --measured=test --severities=3,10

Everything else is as in train.compare. A run that was killed goes on when it is given again.
"""

import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import os
import statistics
import tempfile

import matplotlib.figure
import numpy as np
import tensorflow as tf
from absl import app, flags
from tqdm import tqdm

import data
from data import corrupted_sets
from data.splits import split_off
from train import builders, command_line, comparison, run_folder, training
from train.evaluation import Row, figures_of, mean_over_corruptions
from train.settings import FIELDS, Settings

LABELS = {"one_hot": "one-hot", "autolabel": "AutoLabel"}
COLOURS = {"one_hot": "#56B4E9", "autolabel": "#0072B2"}
# Name of a figure -> what the plot and the table call it.
FIGURES = {
    "accuracy": "accuracy",
    "cacc": "cAcc",
    "ece_debiased": "debiased ECE",
    "cece_debiased": "debiased cECE",
    "cgap": "Conf − Acc, corrupted",
}
CORRUPTION_SEVERITIES = (1, 3, 5)
ROWS = 500

command_line.define_flags(
    sorted(FIELDS.keys() - {"augmentation", "labels", "severity"}),
    defaults={**comparison.DEFAULTS, "examples_per_bucket": 200},
)
flags.DEFINE_list("severities", ["1", "3", "5", "7", "10"], "Of AugMix, out of 0.1 to 10.")
flags.DEFINE_integer("seeds", 3, "How many seeds, from --seed on.", lower_bound=1)
flags.DEFINE_enum("measured", "holdout", ["holdout", "test"], "Images that are measured.")
flags.DEFINE_string("output_dir", "runs/severity", "Folder of the results.")

FLAGS = flags.FLAGS


def parts_of(settings: Settings, measured: str) -> data.Splits:
    """The data of a run: half of the hold-out guides; ``test`` is what is measured."""
    splits = builders.load_data(settings)
    half = len(splits.holdout) // 2
    guide, judge = split_off(splits.holdout, half, seed=settings.seed, what="measured half")
    return dataclasses.replace(
        splits, holdout=guide, test=judge if measured == "holdout" else splits.test
    )


def run(values: dict, measured: str, folder: str) -> None:
    """Trains a network and writes its figures to ``figures.json``, which makes it done."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    settings = Settings(**values)
    splits = parts_of(settings, measured)
    model = builders.build_model(settings, splits)
    training.train(model, settings, splits, folder)
    test = data.in_memory(splits.test)

    def row(corruption, severity, images, labels):
        logits = model.predict(np.asarray(images), batch_size=ROWS, verbose=0)
        figures = figures_of(labels, logits, num_bins=settings.num_bins)
        return Row("", corruption, severity, 1.0, figures)

    clean = row("none", 0, test.images, test.labels)
    with tempfile.TemporaryDirectory() as corrupted:
        corrupted_sets.generate_corrupted(
            test.images,
            test.labels,
            corrupted,
            dataset=splits.name,
            severities=CORRUPTION_SEVERITIES,
        )
        rows = [row(*part) for part in corrupted_sets.read_corrupted(corrupted)]
    run_folder.write_json(
        os.path.join(folder, "figures.json"),
        {
            "data": {"name": splits.name, "source": splits.source, **splits.counts()},
            "measured": measured,
            "settings": values,
            "figures": clean.figures | mean_over_corruptions(rows),
            "corrupted_sets": len(rows),
        },
    )


def summary_of(results: list[dict]) -> dict[tuple[str, float], dict[str, tuple[float, float]]]:
    """Mean and standard error over seeds, in percent.

    Args:
        results: What ``run`` wrote.

    Returns:
        (labels, severity) -> name of a figure -> (mean, standard error; nan of one seed).

    Example:
        >>> def result(seed, accuracy):
        ...     settings = {"labels": "one_hot", "severity": 3.0, "seed": seed}
        ...     return {"settings": settings, "figures": dict.fromkeys(FIGURES, accuracy)}
        >>> summary_of([result(0, 0.5), result(1, 0.75)])["one_hot", 3.0]["cacc"]
        (62.5, 12.5)
    """
    groups = {}
    for result in results:
        key = result["settings"]["labels"], result["settings"]["severity"]
        groups.setdefault(key, []).append(result["figures"])
    summary = {}
    for key, several in groups.items():
        columns = {name: [100.0 * figures[name] for figures in several] for name in FIGURES}
        summary[key] = {name: _mean_and_error(values) for name, values in columns.items()}
    return summary


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    count = len(values)
    error = statistics.stdev(values) / math.sqrt(count) if count > 1 else math.nan
    return statistics.fmean(values), error


def plot(summary: dict) -> matplotlib.figure.Figure:
    """A panel for each figure: severity of AugMix across, a line for each kind of labels."""
    figure = matplotlib.figure.Figure(figsize=(12, 2.8), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), strict=True):
        for labels, label in LABELS.items():
            severities = sorted(severity for kind, severity in summary if kind == labels)
            points = [summary[labels, severity][name] for severity in severities]
            means, errors = zip(*points, strict=True)
            axes.errorbar(
                severities, means, errors, marker="o", capsize=3, label=label, color=COLOURS[labels]
            )
        axes.set_xlabel("severity of AugMix, of 10")
        axes.set_title(f"{title}, %", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(0.0, color="#7f8794", linewidth=0.8)
    axes.legend()
    return figure


def table(summary: dict) -> str:
    """The same as a table in Markdown."""
    lines = [
        f"| severity | labels | {' | '.join(FIGURES.values())} |",
        "| ---: | --- |" + " ---: |" * len(FIGURES),
    ]
    for labels, severity in sorted(summary, key=lambda key: (key[1], list(LABELS).index(key[0]))):
        cells = " | ".join(_cell(*figure) for figure in summary[labels, severity].values())
        lines.append(f"| {severity:g} | {LABELS[labels]} | {cells} |")
    return "\n".join(lines)


def _cell(mean: float, error: float) -> str:
    return f"{mean:.2f}" if math.isnan(error) else f"{mean:.2f} ± {error:.2f}"


def study(folder: str, settings: Settings, severities: list[float]) -> list[dict]:
    """Runs what is not there yet, a process on each core; returns all results."""
    jobs = {}
    for seed in range(settings.seed, settings.seed + FLAGS.seeds):
        for severity in severities:
            for labels in LABELS:
                values = {"augmentation": "augmix", "labels": labels, "severity": severity}
                name = f"{labels}-severity{severity:g}-seed{seed}"
                jobs[os.path.join(folder, name)] = vars(settings) | values | {"seed": seed}
    missing = {}
    for job, values in jobs.items():
        there = run_folder.read_json(os.path.join(job, run_folder.SETTINGS))
        if there and there != values:
            raise ValueError(f"{job} holds a run of other settings; name another --output_dir.")
        if not os.path.exists(os.path.join(job, "figures.json")):
            missing[job] = values
    with concurrent.futures.ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        futures = []
        for job, values in missing.items():
            os.makedirs(job, exist_ok=True)
            run_folder.write_json(os.path.join(job, run_folder.SETTINGS), values)
            futures.append(pool.submit(run, values, FLAGS.measured, job))
        done = concurrent.futures.as_completed(futures)
        for future in tqdm(done, total=len(futures), desc="severity", unit="run", disable=None):
            future.result()
    return [run_folder.read_json(os.path.join(job, "figures.json")) for job in jobs]


def main(argv: list[str]) -> None:
    """Trains, measures, prints the table and draws the figure."""
    with command_line.one_line_errors("benchmarks.severity", argv):
        values = {name: FLAGS[name].value for name in FIELDS if name in FLAGS}
        folder = f"{FLAGS.output_dir}-{FLAGS.measured}"
        results = study(folder, Settings(**values), [float(text) for text in FLAGS.severities])
    first = results[0]
    count = first["data"]["test"]
    print(
        f"{first['data']['name']} ({first['data']['source']}): {first['data']['train']:,} training "
        f"images, {first['data']['holdout']:,} guide the labels, {count:,} images of the "
        f"{FLAGS.measured} measured, clean and in {first['corrupted_sets']} generated corrupted "
        f"sets; seeds {FLAGS.seed} to {FLAGS.seed + FLAGS.seeds - 1}; mean ± standard error, %."
    )
    summary = summary_of(results)
    print(table(summary))
    plot(summary).savefig(os.path.join(folder, "severity.svg"))
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=2)


if __name__ == "__main__":
    app.run(main)
