"""What all figures share: an empty figure, colours, axes."""

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
COLOUR_MAP = "viridis"


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


def tidy(axes: "Axes", *, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Axes with a light grid behind the data, without a frame, and with their labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(color=PALE, labelsize=9)
    axes.grid(color=PALE, alpha=0.5, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, color=DARK)
    axes.set_ylabel(ylabel, color=DARK)
    axes.set_title(title, color=DARK, fontsize=11)


def in_percent(axes: "Axes") -> None:
    """Writes the fractions of the y axis as per cent."""
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


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


def shortened(name: str, length: int = 16) -> str:
    """A name of at most ``length`` characters."""
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"
