"""The figures of a comparison, as SVG for a page that may be light or dark.

One colour and one marker for each method in all of them.
"""

import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from keras_autolabel.calibration import debiased_ece, sums_of_predictions
from keras_autolabel.plots.comparisons import boxes
from keras_autolabel.plots.style import DARK, legend_outside, middles, new_figure, tidy
from keras_autolabel.plots.tables import DISTANCE
from train.comparison_job import FIGURE_1, TEMPERATURES
from train.comparison_statistics import summary_of
from train.comparison_tables import Measured, robust_accuracies, seconds_of
from train.methods import METHODS
from train.page_svg import drawn_svg
from train.run_folder import table_in

# Hues after Okabe & Ito; learned labels are the darker of two of one hue, and filled.
COLOURS = {
    "vanilla": "#7f8794",
    "label_smoothing": "#b8860b",
    "augmix": "#56B4E9",
    "augmix_autolabel": "#0072B2",
    "augmix_together": "#003a5c",
    "randaugment": "#e79ac6",
    "randaugment_autolabel": "#b0347f",
    "mixup_0.2": "#8c510a",
    "mixup": "#E69F00",
    "mixup_autolabel": "#D55E00",
    "mixup_together": "#7a3000",
    "cutmix": "#6fd3b0",
    "cutmix_autolabel": "#009E73",
    "soft_augmentation": "#8f7a3f",
    "at": "#b3a2e6",
    "ccat": "#c98a6b",
    "at_autolabel": "#6a4fc3",
    "at_together": "#2b1a6b",
}
# Inches: on a phone that shows 360 pixels letters are still 10 pixels high.
WIDTH = 5.0
MARKERS = dict(zip(COLOURS, "oXsD^vPhpD^XPdsvD^", strict=True))
# Methods in one figure of boxes.
MOST_TOGETHER = 6


class Drawn(NamedTuple):
    """A figure of a report.

    Attributes:
        name: Its anchor, and the name of its file.
        title: What it shows.
        caption: How to read it.
        svg: The picture, to stand in a page.
        wide: Whether it is wider than a phone, which shows a part of it and scrolls.
    """

    name: str
    title: str
    caption: str
    svg: str
    wide: bool = False


def style_of(method: str) -> dict:
    """Colour and marker of a method."""
    return {"color": COLOURS[method], "marker": MARKERS[method]}


def draw(name: str, title: str, caption: str, plot: Callable[..., Figure], *arguments) -> Drawn:
    """Draws a figure."""
    return Drawn(name, title, caption, drawn_svg(name, plot, *arguments))


def plot_overview(measured: Measured) -> Figure:
    """For a glance: calibration error and accuracy of every method, clean and corrupted."""
    methods = measured.methods[::-1]
    figure = new_figure(WIDTH, 1.6 + 0.42 * len(methods))
    panels = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    for axes, name, label in (
        (panels[0], "cece_debiased", "calibration error, %"),
        (panels[1], "cacc", "accuracy, %"),
    ):
        for place, method in enumerate(methods):
            temperatures = TEMPERATURES if name == "cece_debiased" else TEMPERATURES[:1]
            for number, temperature in enumerate(temperatures):
                summary = measured.summary((method, temperature), name)
                axes.errorbar(
                    100 * summary.mean,
                    place + (0.0, -0.24, 0.24)[number],
                    xerr=100 * summary.error,
                    color=COLOURS[method],
                    marker="os^"[number],
                    markersize=(8, 5, 5)[number],
                    markerfacecolor=COLOURS[method] if not number else "none",
                    linewidth=1.5,
                    capsize=3,
                    zorder=3 - 0.1 * number,
                )
        tidy(axes, xlabel=label)
        axes.grid(visible=False, axis="y")
    panels[0].set_xlim(left=0.0)
    panels[0].set_yticks(range(len(methods)), [METHODS[method].title for method in methods])
    panels[0].set_ylim(-0.6, len(methods) - 0.4)
    names = ("as trained", "+ temperature", "+ temperature, augmented hold-out")
    for marker, name in zip("os^", names, strict=True):
        panels[0].plot(
            [], [], marker, color=DARK, markerfacecolor=DARK if marker == "o" else "none",
            label=name,
        )  # fmt: skip
    legend_outside(figure, panels[0], columns=2)
    return figure


def families(methods: Sequence[str]) -> dict[str, list[str]]:
    """Methods that one figure can hold: all of them, or vanilla and those of an augmentation.

    Example:
        >>> families(["vanilla", "mixup"])
        {'': ['vanilla', 'mixup']}
    """
    if len(methods) <= MOST_TOGETHER:
        return {"": list(methods)}
    found = {}
    for method in methods:
        found.setdefault(METHODS[method].settings["augmentation"], []).append(method)
    plain = found.pop("none", [])
    alone = [of_one.pop() for of_one in found.values() if len(of_one) == 1]
    base = [method for method in plain if method == "vanilla"]
    shown = {name: base + of_one for name, of_one in found.items() if of_one}
    others = plain + alone
    return ({"others": others} if others != base else {}) | shown


def plot_by_severity(measured: Measured, methods: Sequence[str]) -> Figure:
    """Debiased ECE by severity, after Figure 2: boxes hold types of corruption."""
    sets = next(iter(measured.results[methods[0]].values())).predictions["none"]
    severities = sorted({predicted.severity for predicted in sets})
    figure = new_figure(WIDTH, 3.9)
    axes = figure.subplots()
    width = 0.8 / len(methods)
    of_set = np.array([predicted.severity for predicted in sets])
    for number, method in enumerate(methods):
        x = np.arange(len(severities)) + (number - (len(methods) - 1) / 2) * width
        by_seed = [
            [
                debiased_ece(p.confidence, p.correct, num_bins=r.num_bins)
                for p in r.predictions["none"]
            ]
            for r in measured.results[method].values()
        ]
        values = [100 * np.array(by_seed)[:, of_set == severity] for severity in severities]
        # Over seeds first: a box is about the types of corruption.
        types = {place: v.mean(axis=0) for place, v in zip(x, values, strict=True)}
        face = to_rgba(COLOURS[method], 0.25)
        boxes(axes, types, width=0.8 * width, colour=COLOURS[method], face=face)
        of_seeds = [summary_of(v.mean(axis=1).tolist()) for v in values]
        means, errors, _ = zip(*of_seeds, strict=True)
        axes.errorbar(x, means, errors, fmt="none", ecolor=DARK, elinewidth=1, zorder=4)
        axes.plot(x, means, **style_of(method), label=METHODS[method].title, zorder=3, markersize=5)
    tidy(axes, xlabel="severity of the corruption", ylabel="ECE, debiased, %")
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(len(severities)), [str(s) if s else "clean" for s in severities])
    axes.set_ylim(bottom=0.0)
    legend_outside(figure, axes, columns=2)
    return figure


def plot_attacks(measured: Measured) -> Figure:
    """Accuracy by the size of the attack, after Figure 3."""
    figure = new_figure(WIDTH, 3.9)
    axes = figure.subplots()
    for method, by_epsilon in robust_accuracies(measured).items():
        values = list(by_epsilon.values())
        axes.errorbar(
            list(by_epsilon),
            [100 * summary.mean for summary in values],
            [100 * summary.error for summary in values],
            **style_of(method),
            capsize=3,
            label=METHODS[method].title,
        )
    epsilons = list(by_epsilon)
    tidy(
        axes,
        xlabel="largest change of a pixel, ε, of images in 0–1",
        ylabel="accuracy under attack, %",
    )
    axes.set_xticks(epsilons, [f"{e:g}" if e else "clean" for e in epsilons])
    axes.set_ylim(0.0, 100.0)
    legend_outside(figure, axes, columns=2)
    return figure


def learned_labels(measured: Measured, method: str) -> np.ndarray | None:
    """The labels of a method over epochs, float [seeds, epochs, *buckets]; None: it learns none."""
    tables = []
    for result in measured.results[method].values():
        table = result.content["label_table"]
        if table is None:
            return None
        tables.append(table_in(result.history, "label_confidence", np.shape(table)))
    return np.stack(tables)


def plot_labels(measured: Measured, methods: Sequence[str]) -> Figure:
    """Labels by distance at the end of training, after Figure 1 (a): dots are seeds."""
    figure = new_figure(WIDTH, 3.7)
    axes = figure.subplots()
    for method in methods:
        last = learned_labels(measured, method)[:, -1]
        rows = last.reshape(len(last), -1, last.shape[-1])
        for depth in range(rows.shape[1]):
            deep = f", depth {depth + 1}" if rows.shape[1] > 1 else ""
            x = middles(rows.shape[-1])
            style = style_of(method) | {"linestyle": ("-", "--", ":", "-.")[depth % 4]}
            title = METHODS[method].title + deep
            axes.plot(x, rows[:, depth].mean(axis=0), **style, markersize=5, label=title)
            for of_seed in rows[:, depth]:
                axes.plot(x, of_seed, ".", color=COLOURS[method], markersize=3, alpha=0.6)
    tidy(axes, xlabel=DISTANCE, ylabel="label ỹ of the true class")
    axes.set_xlim(0.0, 1.0)
    legend_outside(figure, axes, columns=2)
    return figure


def plot_label_curves(measured: Measured, method: str) -> Figure:
    """The label of every bucket over the epochs: lines are means over seeds, bands their range."""
    tables = learned_labels(measured, method)
    tables = tables.reshape(*tables.shape[:2], -1, tables.shape[-1])
    _, epochs, depths, buckets = tables.shape
    figure = new_figure(WIDTH, 3.4)
    panels = figure.subplots(1, depths, sharey=True, squeeze=False)[0]
    for depth, axes in enumerate(panels):
        for bucket in range(buckets):
            values = tables[:, :, depth, bucket]
            # From pale, near, to full, far.
            colour = to_rgba(COLOURS[method], 0.35 + 0.65 * bucket / max(buckets - 1, 1))
            x = np.arange(1, epochs + 1)
            far = f"{bucket / buckets:.1f}–{(bucket + 1) / buckets:.1f}"
            style = {"linewidth": 1.0 + 1.6 * bucket / max(buckets - 1, 1), "label": far}
            axes.plot(x, values.mean(axis=0), color=colour, **style)
            axes.fill_between(
                x, values.min(axis=0), values.max(axis=0), color=COLOURS[method], alpha=0.08
            )
        title = f"depth {depth + 1}" if depths > 1 else ""
        tidy(axes, xlabel="epoch", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    panels[0].set_ylabel("label ỹ of the true class")
    legend_outside(figure, panels[0], columns=3)
    return figure


def plot_reliability(measured: Measured, methods: Sequence[str]) -> Figure:
    """Accuracy by confidence, before and after: clean images, and all corrupted ones together."""
    figure = new_figure(WIDTH, 3.7)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, chosen in (
        (panels[0], "clean", slice(0, 1)),
        (panels[1], "corrupted", slice(1, None)),
    ):
        axes.plot([0, 100], [0, 100], color=DARK, linestyle="--", linewidth=1)
        for method in methods:
            points = []
            for result in measured.results[method].values():
                sets = result.predictions["none"][chosen]
                points.append(_reliability(sets, result.num_bins))
            confidence, accuracy = 100 * np.mean(points, axis=0)
            error = 100 * np.std(points, axis=0, ddof=1)[1] / math.sqrt(len(points)) if (
                len(points) > 1
            ) else None  # fmt: skip
            axes.errorbar(
                confidence,
                accuracy,
                error,
                **style_of(method),
                markersize=4,
                capsize=2,
                label=METHODS[method].title,
            )
        tidy(axes, xlabel="confidence, %", title=title)
        axes.set(xlim=(0, 100), ylim=(0, 100))
    panels[0].set_ylabel("accuracy, %")
    legend_outside(figure, panels[0], columns=3)
    return figure


def _reliability(sets, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean confidence and accuracy of each bin with at least 20 predictions; NaN of others."""
    confidence = np.concatenate([p.confidence for p in sets]).astype(np.float64)
    correct = np.concatenate([p.correct for p in sets])
    count, *sums = sums_of_predictions(confidence, correct, num_bins).T
    return tuple(of_bin / np.where(count < 20, np.nan, count) for of_bin in sums)


def plot_costs(measured: Measured) -> Figure:
    """Seconds of training."""
    methods = measured.methods[::-1]
    figure = new_figure(WIDTH, 0.9 + 0.32 * len(methods))
    axes = figure.subplots()
    for place, method in enumerate(methods):
        summary = seconds_of(measured, method)
        style = {"color": COLOURS[method], "ecolor": DARK, "height": 0.6}
        axes.barh(place, summary.mean, xerr=summary.error, **style)
    axes.set_yticks(range(len(methods)), [METHODS[method].title for method in methods])
    tidy(axes, xlabel="training of one network, seconds of wall time")
    axes.grid(visible=False, axis="y")
    return figure


def examples_of(measured: Measured, folder: str) -> Iterator[Drawn]:
    """What the jobs of the first seed drew after Figure 1 of the paper: images and their labels."""
    for method in measured.methods:
        job = next(iter(measured.results[method].values())).job
        path = pathlib.Path(job.folder(folder), FIGURE_1)
        if path.exists():
            yield Drawn(
                f"examples-{method}",
                f"{METHODS[method].title}: images, and the labels they get",
                f"As Figure 1 of the paper; the first test image, seed {job.seed}.",
                path.read_text("utf-8"),
                wide=True,
            )


def figures_of(measured: Measured, folder: str) -> Iterator[Drawn]:
    """All figures of a report but the overview, in their order."""
    several = len(measured.seeds) > 1
    seeds = f"{len(measured.seeds)} seeds" if several else "one seed, without an error"
    learners = [m for m in measured.methods if learned_labels(measured, m) is not None]
    if learners:
        yield draw(
            "figure1",
            "As Figure 1 of the paper: the label that each distance got",
            f"At the end of training; lines: mean over {seeds}; dots: each seed. Distance 0 is the "
            "clean image, 1 the farthest that the augmentation moves one.",
            plot_labels,
            measured,
            learners,
        )
    yield from examples_of(measured, folder)
    for family, methods in families(measured.methods).items():
        about = f", {family}" if family else ""
        yield draw(
            "-".join(filter(None, ["figure2", family])),
            f"As Figure 2 of the paper: calibration by severity of the corruption{about}",
            "A box holds the middle half of the types of corruption, whiskers all of them; markers "
            f"are means, with the standard error over {seeds}.",
            plot_by_severity,
            measured,
            methods,
        )
    if robust_accuracies(measured):
        yield draw(
            "figure3",
            "As Figure 3 of the paper: accuracy under attack",
            f"Mean and standard error over {seeds}.",
            plot_attacks,
            measured,
        )
    for method in learners:
        yield draw(
            f"labels-{method}",
            f"{METHODS[method].title}: labels over the epochs",
            f"A line for each range of the distance, mean over {seeds}; bands reach from the "
            "smallest to the largest.",
            plot_label_curves,
            measured,
            method,
        )
    for method, rival in measured.pairs():
        yield draw(
            f"reliability-{method}",
            f"Reliability, {METHODS[rival].title} and {METHODS[method].title}",
            "Below the dashed line a network is surer than it is right. Bins of at least 20 "
            f"predictions; mean and standard error over {seeds}.",
            plot_reliability,
            measured,
            (rival, method),
        )
    yield draw("costs-figure", "Training time", f"Mean over {seeds}.", plot_costs, measured)
