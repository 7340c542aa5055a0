"""What all figures share: an empty figure, colours, axes, legends, images."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: readers of any colour vision can tell them apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, ORANGE, GREEN = COLOURS[:3]
# Lines differ in their markers too, so that a grey print can be read.
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
PALE, DARK = "#c9ced6", "#30343b"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure in inches that belongs to no window and to no pyplot state.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Figures need matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def tidy(
    axes: "Axes", *, xlabel: str = "", ylabel: str = "", title: str = "", percent: bool = False
) -> None:
    """Axes with a light grid behind the data, without a frame; y as fractions or per cent."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(color=PALE, labelsize=9)
    axes.grid(color=PALE, alpha=0.5, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, color=DARK)
    axes.set_ylabel(ylabel, color=DARK)
    axes.set_title(title, color=DARK, fontsize=11)
    if percent:
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def line_style(number: int) -> dict:
    """Colour and marker of the line of this number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linewidth": 2,
        "markersize": 7,
    }


def legend_outside(
    figure: "Figure", axes: "Axes", *, columns: int = 3, place: str = "upper"
) -> None:
    """What the axes draw, named in a legend at the figure's edge, where no data can be."""
    handles, names = axes.get_legend_handles_labels()
    columns = min(columns, len(handles))
    figure.legend(handles, names, loc=f"outside {place} center", ncols=columns, frameon=False)


def tint(colour: str, strength: float) -> tuple[float, float, float]:
    """A colour mixed with white, opaque: 1 is the colour itself."""
    from matplotlib.colors import to_rgb

    return tuple(1.0 - strength * (1.0 - part) for part in to_rgb(colour))


def show_image(axes: "Axes", image: np.ndarray, *, caption: str = "") -> None:
    """An image, float [H, W, C] in [0, 1], with its caption below it and without axes.

    Three channels are shown in colour; any other number as the grey of their mean.
    """
    if image.shape[-1] != 3:
        image = image.mean(axis=-1)
    axes.imshow(np.clip(image, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(PALE)
    axes.set_xlabel(caption, fontsize=8.5, color=DARK, labelpad=3)


def middles(size: int) -> np.ndarray:
    """Middles of ``size`` equal parts of [0, 1]: the n-th stands at (n + ½)/size."""
    return (np.arange(size) + 0.5) / size


def evenly(size: int, most: int) -> np.ndarray:
    """At most ``most`` indices below ``size``, evenly spaced, both ends among them.

    Example:
        >>> evenly(10, 4).tolist(), evenly(3, 4).tolist()
        ([0, 3, 6, 9], [0, 1, 2])
    """
    return np.ceil(np.linspace(0, size - 1, min(size, most)) - 0.5).astype(int)
