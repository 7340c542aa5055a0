"""Figures that hold several models against each other, after Figures 2 and 3 of the paper."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_autolabel.plots.style import COLOURS, MARKERS, in_percent, new_figure, tidy, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_ece_by_severity(
    rows: Mapping[str, Iterable[tuple[str, int, float]]], *, names: Sequence[str] | None = None
) -> "Figure":
    """ECE by severity of corruption, after Figure 2 of the AutoLabel paper.

    A box holds the middle half of the corruption types, with a line at their median; whiskers
    reach to the smallest and the largest. Markers, joined by a line, are the means.

    Args:
        rows: For each model a list of ``(corruption, severity, ece)``; severity 0 is clean, ECE in
            [0, 1]. A further row of the same corruption and severity counts once more.
        names: The models to show, in this order; None: all.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If a name is unknown, or a model has no row.
        ImportError: If matplotlib is missing.

    Example:
        >>> figure = plot_ece_by_severity({
        ...     "AugMix": [("clean", 0, 0.01), ("fog", 1, 0.02), ("snow", 1, 0.04)],
        ...     "+ AutoLabel": [("clean", 0, 0.01), ("fog", 1, 0.02), ("snow", 1, 0.03)]})
        >>> # figure.savefig("severity.png")
    """
    shown = {name: list(rows[name]) for name in _names_in(rows, names)}
    empty = [name for name, of_model in shown.items() if not of_model]
    if empty:
        raise ValueError(f"Every model needs a row. Received none of: {', '.join(empty)}")
    severities = sorted(
        {int(severity) for of_model in shown.values() for _, severity, _ in of_model}
    )
    figure = new_figure(2.4 + 0.9 * len(severities) * max(1.0, len(shown) / 3), 3.8)
    axes = figure.subplots()
    tidy(axes, xlabel="severity of the corruption", ylabel="ECE")
    axes.grid(visible=False, axis="x")
    width = 0.8 / len(shown)
    for number, (name, of_model) in enumerate(shown.items()):
        eces = {
            place: [ece for _, severity, ece in of_model if severity == here]
            for place, here in enumerate(severities)
        }
        eces = {place: values for place, values in eces.items() if values}
        offset = (number - (len(shown) - 1) / 2) * width
        _boxes_and_means(axes, eces, offset=offset, width=width, name=name, number=number)
    ticks = ["clean" if severity == 0 else str(severity) for severity in severities]
    axes.set_xticks(range(len(severities)), ticks)
    axes.set_xlim(-0.6, len(severities) - 0.4)
    axes.set_ylim(bottom=0.0)
    in_percent(axes)
    _legend_above(axes)
    return figure


def _boxes_and_means(axes: "Axes", eces: dict, *, offset, width, name: str, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    places = np.array(list(eces)) + offset
    spread = [index for index, values in enumerate(eces.values()) if len(values) > 1]
    if spread:
        line = {"color": colour, "linewidth": 1.2}
        axes.boxplot(
            [list(eces.values())[index] for index in spread],
            positions=places[spread],
            widths=width * 0.8,
            whis=(0, 100),
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": tint(colour, 0.2), "edgecolor": colour},
            medianprops=line,
            whiskerprops=line,
            capprops=line,
        )
    axes.plot(
        places,
        [np.mean(values) for values in eces.values()],
        color=colour,
        marker=MARKERS[number % len(MARKERS)],
        markersize=7.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linewidth=1.6,
        label=name,
        zorder=3,
    )


def plot_accuracy_by_epsilon(
    epsilons: Sequence[float],
    accuracies: Mapping[str, Sequence[float]],
    *,
    names: Sequence[str] | None = None,
) -> "Figure":
    """Accuracy under attack by the size of the attack, after Figure 3 of the AutoLabel paper.

    Args:
        epsilons: Largest l-infinity norms of the attack, images in [0, 1]; 0 is clean.
        accuracies: For each model an accuracy in [0, 1] for each ε.
        names: The models to show, in this order; None: all.

    Returns:
        A ``matplotlib.figure.Figure``.

    Raises:
        ValueError: If a name is unknown, or a model has not one accuracy for each ε.
        ImportError: If matplotlib is missing.

    Example:
        >>> figure = plot_accuracy_by_epsilon(
        ...     [0.0, 0.02], {"AT": [0.94, 0.5], "AT + AutoLabel": [0.95, 0.55]})
        >>> # figure.savefig("attacks.png")
    """
    shown = _names_in(accuracies, names)
    for name in shown:
        if len(accuracies[name]) != len(epsilons):
            raise ValueError(
                f"{name!r} needs one accuracy for each epsilon. "
                f"Received: {len(accuracies[name])} accuracies, {len(epsilons)} epsilons"
            )
    order = np.argsort(epsilons)
    x = np.asarray(epsilons, float)[order]
    figure = new_figure(5.4, 3.8)
    axes = figure.subplots()
    tidy(axes, xlabel=r"largest $\ell_\infty$ norm ε of the attack (0: clean)", ylabel="accuracy")
    for number, name in enumerate(shown):
        axes.plot(
            x,
            np.asarray(accuracies[name], float)[order],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=7,
            linewidth=2,
            label=name,
        )
    axes.set_xticks(x, [f"{epsilon:g}" for epsilon in x])
    axes.set_ylim(0.0, 1.0)
    in_percent(axes)
    _legend_above(axes)
    return figure


def _names_in(models: Mapping[str, object], names: Sequence[str] | None) -> list[str]:
    shown = list(models) if names is None else list(names)
    unknown = [name for name in shown if name not in models]
    if unknown or not shown:
        raise ValueError(
            f"names must be a selection of {', '.join(models) or '(no model)'}. "
            f"Received: names={shown}"
        )
    return shown


def _legend_above(axes: "Axes") -> None:
    """The legend above the axes, where no data can be."""
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(len(handles), 3),
        frameon=False,
    )
