"""The look of every figure, in one place: readable at the size at which a page shows it, and to colour-blind eyes.

A half figure is 4.8 inches wide: two stand beside each other on a desktop and one fills a phone, with text of about
10 px there. Line colours are those of Okabe and Ito (2008), told apart under all common colour deficiencies; where two
curves lie on each other they also differ in line style.
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from fdl.errors import InputError

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
GREY, INK = "#8A8F98", "#22262B"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
POSITIVE, NEGATIVE = "#B2182B", "#2166AC"  # the ends of DIVERGING: red raises, blue lowers

HALF, WIDE = 4.8, 10.0  # inches

RC: Any = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#5A6068",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E6EA",
    "grid.linewidth": 0.8,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.cmap": SEQUENTIAL,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "text.color": INK,
}


@contextlib.contextmanager
def styled(where: str) -> Iterator[None]:
    """Figures drawn inside have this look; the user's own settings of matplotlib are as before after it."""
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        cycler = importlib.import_module("cycler")
    except ImportError as error:
        raise InputError(where, "matplotlib is not installed: pip install 'fdl[lab]'") from error
    with matplotlib.rc_context({**RC, "axes.prop_cycle": cycler.cycler(color=CYCLE)}):
        yield


def figure(rows: int = 1, columns: int = 1, *, width: float = HALF, height: float = 3.3, **options: Any) -> tuple:
    """(figure, axes), laid out so that nothing overlaps; `options` go to `Figure.subplots`. It belongs to no window."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(rows, columns, **options)
