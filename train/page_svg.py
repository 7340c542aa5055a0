"""Figures as SVG for a page that may be light or dark."""

import io
import re
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.figure import Figure

from keras_autolabel.plots.style import DARK, PALE

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "keras-autolabel",
    "font.size": 10,
    "legend.fontsize": 9,
    "savefig.transparent": True,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), DARK
    ),
}


def drawn_svg(name: str, plot: Callable[..., Figure], *arguments, **options) -> str:
    """What ``plot`` draws, as an ``<svg>`` element that takes the colour of the text around it.

    The name goes before all of its ids.
    """
    buffer = io.StringIO()
    with rc_context(SETTINGS):
        figure = plot(*arguments, **options)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    for colour, to in ((DARK, "currentColor"), (PALE, "var(--grid, #c9ced6)")):
        svg = re.sub(colour, to, svg, flags=re.IGNORECASE)
    return svg
