"""The one look of all pictures here, on light and on dark paper; shared axes and colour bars."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

DPI = 144
TICKS_HZ = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


class Theme(NamedTuple):
    """Colours: paper and ink, the cycle of the colour-blind (Okabe and Ito), and the two ramps."""

    name: str
    paper: str
    ink: str
    soft: str
    grid: str
    colours: tuple[str, ...]
    ramp: tuple[str, ...]
    signs: tuple[str, ...]


LIGHT = Theme(
    "light",
    "#fcfcfa",
    "#1d2226",
    "#5b646b",
    "#dfe2e1",
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B98600", "#3E9BCB", "#5b646b", "#7B3FA0"),
    ("#fcfcfa", "#b8d3e8", "#5b9bca", "#1f639e", "#0c2c4c"),
    ("#8f3500", "#e08a45", "#f7f7f4", "#6aa7d3", "#0f4677"),
)
DARK = Theme(
    "dark",
    "#15181a",
    "#e6e8e6",
    "#9ea7ab",
    "#31373a",
    ("#60a5e0", "#f0833e", "#2fc79a", "#e59cc4", "#e9b93a", "#86cdf2", "#aab3b8", "#b98ad6"),
    ("#15181a", "#1b4467", "#2f7cb5", "#86bfea", "#eaf4fc"),
    ("#ffb27a", "#c2611a", "#202528", "#2f7cb5", "#a8d4f7"),
)
THEMES = (LIGHT, DARK)


def style(theme: Theme) -> dict[Any, Any]:
    """Matplotlib's settings for a theme; pictures are drawn and saved under them."""
    for name, colours in (("ramp", theme.ramp), ("signs", theme.signs)):
        called = f"ossicle_{theme.name}_{name}"
        if called not in mpl.colormaps:
            mpl.colormaps.register(LinearSegmentedColormap.from_list(called, colours))
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
        "axes.titlesize": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.soft,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.prop_cycle": cycler(color=theme.colours),
        "axes.axisbelow": True,
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "xtick.color": theme.soft,
        "ytick.color": theme.soft,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "image.cmap": f"ossicle_{theme.name}_ramp",
        # The same picture gives the same file.
        "svg.hashsalt": "ossicle",
        "svg.fonttype": "none",
    }


def signed_colours() -> str:
    """The name of the ramp from negative over 0 to positive, in the present theme."""
    return str(mpl.rcParams["image.cmap"]).replace("_ramp", "_signs")


def ink() -> str:
    """The colour of text in the present theme."""
    return str(mpl.rcParams["text.color"])


def soft() -> str:
    """The colour of what stands back in the present theme."""
    return str(mpl.rcParams["xtick.color"])


def colour(number: int) -> str:
    """The colour of a class or source; after the last one they begin again."""
    colours = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    return str(colours[number % len(colours)])


def new_figure(
    width: float = 7.5, height: float = 3.6, rows: int = 1, cols: int = 1, **more: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, cols) axes.

    Args:
        width, height: inches.
        rows, cols: of axes.
        more: passed on to matplotlib's ``subplots``.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, cols, squeeze=False, **more)


def short_hz(value: float) -> str:
    """3000 -> "3k", 250 -> "250"."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def log_frequency_axis(axis: Axes, low: float, high: float, which: str = "x") -> None:
    """Round frequencies on a logarithmic axis from low to high, Hz."""
    low = max(low, 10.0)
    getattr(axis, f"set_{which}scale")("log")
    getattr(axis, f"set_{which}lim")(low, high)
    ticks = getattr(axis, f"{which}axis")
    ticks.set_major_locator(FixedLocator([f for f in TICKS_HZ if low <= f <= high]))
    ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: short_hz(value)))


def frequency_rows(frequencies: np.ndarray) -> tuple[list[float], list[str]]:
    """Where round frequencies lie among rows of rising frequency, and their names; none too close.

    Args:
        frequencies: (F,) Hz of each row.
    """
    inside = [f for f in TICKS_HZ if frequencies[0] <= f <= frequencies[-1]]
    places = np.interp(inside, frequencies, np.arange(len(frequencies)))
    kept: list[int] = []
    for i in reversed(range(len(inside))):
        if not kept or places[kept[-1]] - places[i] >= len(frequencies) / 8:
            kept.append(i)
    return [float(places[i]) for i in kept], [short_hz(inside[i]) for i in kept]
