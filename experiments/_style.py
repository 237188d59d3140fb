"""The look of every figure of the experiments: that of the doctor's pictures, set once for the process."""

from typing import Any

from fdl.doctor import style
from fdl.doctor.style import BLUE as BLUE
from fdl.doctor.style import CYCLE as CYCLE
from fdl.doctor.style import DIVERGING as DIVERGING
from fdl.doctor.style import GREEN as GREEN
from fdl.doctor.style import GREY as GREY
from fdl.doctor.style import HALF as HALF
from fdl.doctor.style import INK as INK
from fdl.doctor.style import NEGATIVE as NEGATIVE
from fdl.doctor.style import ORANGE as ORANGE
from fdl.doctor.style import POSITIVE as POSITIVE
from fdl.doctor.style import PURPLE as PURPLE
from fdl.doctor.style import RC as RC
from fdl.doctor.style import SEQUENTIAL as SEQUENTIAL
from fdl.doctor.style import SKY as SKY
from fdl.doctor.style import VERMILION as VERMILION
from fdl.doctor.style import WIDE as WIDE


def use() -> None:
    """Set the style and the Agg backend (no window is ever opened) for this process."""
    import matplotlib
    from cycler import cycler

    matplotlib.use("Agg")
    matplotlib.rcParams.update(RC)
    matplotlib.rcParams["axes.prop_cycle"] = cycler(color=CYCLE)


def figure(
    rows: int = 1, columns: int = 1, *, width: float = HALF, height: float = 3.3, **options: Any
) -> tuple[Any, Any]:
    """(figure, axes) in the shared style, laid out so that nothing overlaps; `options` go to `Figure.subplots`."""
    use()
    return style.figure(rows, columns, width=width, height=height, **options)


def picture(axes: Any) -> Any:
    """Make an axes a bare picture frame: no ticks, no grid, no spines."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return axes
