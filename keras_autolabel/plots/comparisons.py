"""Figures that hold several models against each other, after Figures 2 and 3 of the paper."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from keras_autolabel.plots.style import legend_outside, line_style, new_figure, tidy, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_ece_by_severity(rows: Mapping[str, Iterable[tuple[str, int, float]]]) -> "Figure":
    """ECE by severity of corruption, after Figure 2 of the AutoLabel paper.

    A box holds the middle half of the corruption types, with a line at their median; whiskers
    reach to the smallest and the largest. Markers, joined by a line, are the means.

    Args:
        rows: For each model a list of ``(corruption, severity, ece)``; severity 0 is clean, ECE in
            [0, 1]. A further row of the same corruption and severity counts once more. Of names
            that are paths, the legend shows what tells them apart.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If there is no model, or one has no row.
        ImportError: If matplotlib is missing.

    Example:
        >>> figure = plot_ece_by_severity({
        ...     "AugMix": [("clean", 0, 0.01), ("fog", 1, 0.02), ("snow", 1, 0.04)],
        ...     "+ AutoLabel": [("clean", 0, 0.01), ("fog", 1, 0.02), ("snow", 1, 0.03)]})
        >>> # figure.savefig("severity.png")
    """
    shown = {name: list(of_model) for name, of_model in rows.items()}
    _check_models(shown, lambda of_model: of_model, "a row")
    severities = sorted({severity for of_model in shown.values() for _, severity, _ in of_model})
    figure = new_figure(2.4 + 0.9 * len(severities) * max(1.0, len(shown) / 3), 3.8)
    axes = figure.subplots()
    tidy(axes, xlabel="severity of the corruption", ylabel="ECE", percent=True)
    axes.grid(visible=False, axis="x")
    width = 0.8 / len(shown)
    for number, (name, of_model) in enumerate(zip(short_names(shown), shown.values(), strict=True)):
        eces = {
            place + (number - (len(shown) - 1) / 2) * width: values
            for place, here in enumerate(severities)
            if (values := [ece for _, severity, ece in of_model if severity == here])
        }
        style = line_style(number)
        face = tint(style["color"], 0.2)
        boxes(axes, eces, width=0.8 * width, colour=style["color"], face=face)
        means = [np.mean(values) for values in eces.values()]
        axes.plot(list(eces), means, **style, markeredgecolor="white", label=name, zorder=3)
    ticks = ["clean" if severity == 0 else str(severity) for severity in severities]
    axes.set_xticks(range(len(severities)), ticks)
    axes.set_xlim(-0.6, len(severities) - 0.4)
    axes.set_ylim(bottom=0.0)
    legend_outside(figure, axes)
    return figure


def boxes(
    axes: "Axes",
    values: Mapping[float, Sequence[float]],
    *,
    width: float,
    colour: str,
    face: tuple[float, ...],
) -> None:
    """A box at each place that has more than one value: the middle half, whiskers around all."""
    spread = {place: of_place for place, of_place in values.items() if len(of_place) > 1}
    if not spread:
        return
    line = {"color": colour, "linewidth": 1.2}
    axes.boxplot(
        list(spread.values()),
        positions=list(spread),
        widths=width,
        whis=(0, 100),
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": face, "edgecolor": colour},
        medianprops=line,
        whiskerprops=line,
        capprops=line,
    )


def plot_accuracy_by_epsilon(accuracies: Mapping[str, Mapping[float, float]]) -> "Figure":
    """Accuracy under attack by the size of the attack, after Figure 3 of the AutoLabel paper.

    Args:
        accuracies: For each model its accuracy in [0, 1] by ε, the largest l-infinity norm of the
            attack on images in [0, 1]; 0 stands for the clean accuracy, and must be there. Of
            names that are paths, the legend shows what tells them apart.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If there is no model, or one has no clean accuracy.
        ImportError: If matplotlib is missing.

    Example:
        >>> figure = plot_accuracy_by_epsilon(
        ...     {"AT": {0.0: 0.94, 0.02: 0.5}, "AT + AutoLabel": {0.0: 0.95, 0.02: 0.55}})
        >>> # figure.savefig("attacks.png")
    """
    _check_models(accuracies, lambda of_model: 0.0 in of_model, "its clean accuracy, at epsilon 0")
    figure = new_figure(5.4, 3.8)
    axes = figure.subplots()
    norm = r"largest $\ell_\infty$ norm ε of the attack, pixels in 0–1"
    tidy(axes, xlabel=norm, ylabel="accuracy", percent=True)
    names = short_names(accuracies)
    for number, (name, of_model) in enumerate(zip(names, accuracies.values(), strict=True)):
        x, y = zip(*sorted(of_model.items()), strict=True)
        axes.plot(x, y, **line_style(number), label=name)
    epsilons = sorted({epsilon for of_model in accuracies.values() for epsilon in of_model})
    axes.set_xticks(epsilons, [f"{epsilon:g}" if epsilon else "clean" for epsilon in epsilons])
    axes.set_ylim(0.0, 1.0)
    legend_outside(figure, axes)
    return figure


def short_names(names: Iterable[str]) -> list[str]:
    """Names without the folders that all of them begin and end with; no name becomes empty.

    Example:
        >>> short_names(["runs/augmix/model.keras", "runs/mixup/1/model.keras"])
        ['augmix', 'mixup/1']
        >>> short_names(["runs/augmix", "runs/augmix/final"])
        ['augmix', 'augmix/final']
    """
    parts = [name.split("/") for name in names]
    for _ in ("heads", "tails"):
        alike = takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
        shared = min(len(list(alike)), min(map(len, parts)) - 1)
        parts = [folders[shared:][::-1] for folders in parts]
    return ["/".join(folders) for folders in parts]


def _check_models(models: Mapping, has_it: Callable, what: str) -> None:
    without = [name for name, of_model in models.items() if not has_it(of_model)]
    if without or not models:
        names = ", ".join(without) or "(no model)"
        raise ValueError(f"Every model needs {what}. Received none of: {names}")
