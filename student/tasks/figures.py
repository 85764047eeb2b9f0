"""Charts as SVG text, with matplotlib's object interface: no display, no global state."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # matplotlib is heavy, and reading a job file imports every task
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of a figure, in inches.
HEIGHT = 3.4


def bars(values: Mapping[str, float], label: str) -> str:
    """Horizontal bars with their values."""

    def plot(axes: "Axes") -> None:
        drawn = axes.barh(list(values), list(values.values()))
        axes.bar_label(drawn, labels=[f" {_short(value)}" for value in values.values()])
        axes.set(xlabel=label)
        axes.invert_yaxis()
        axes.margins(x=0.18)

    return draw(plot, max(HEIGHT, 0.6 + 0.2 * len(values)))


def grouped_bars(groups: Mapping[str, Mapping[str, float]], label: str) -> str:
    """Vertical bars: for each name of the inner mappings, one bar for each group. A missing value has no bar."""

    def plot(axes: "Axes") -> None:
        names = list(dict.fromkeys(name for values in groups.values() for name in values))
        width = 0.8 / max(len(groups), 1)
        for i, (group, values) in enumerate(groups.items()):
            positions = np.arange(len(names)) - 0.4 + width * (i + 0.5)
            axes.bar(positions, [values.get(name, np.nan) for name in names], width, label=group)
        axes.set_xticks(
            range(len(names)), names, rotation=30 if len(names) > 4 else 0, ha="right" if len(names) > 4 else "center"
        )
        axes.set(ylabel=label)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars, not over them

    return draw(plot)


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str) -> str:
    """A line with markers for each name, from its x and y values."""

    def plot(axes: "Axes") -> None:
        for name, (x, y) in lines.items():
            axes.plot(list(x), list(y), marker="o", markersize=4, label=name)
        axes.set(xlabel=x_label, ylabel=y_label)
        if all(float(value).is_integer() for x, _ in lines.values() for value in x):
            axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False)

    return draw(plot)


def confusion_matrix(counts: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    """Counts of examples, true classes as rows and predicted classes as columns, int64 [C, C].

    The colour shows the share of a row.
    """

    def plot(axes: "Axes") -> None:
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(*counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true")

    return draw(plot)


def draw(plot: Callable[["Axes"], None], height: float = HEIGHT) -> str:
    """A figure with one pair of axes. height: in inches."""

    def plot_figure(figure: "Figure") -> None:
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        plot(axes)

    return to_svg(plot_figure, height)


def to_svg(plot: Callable[["Figure"], None], height: float = HEIGHT) -> str:
    """The figure that `plot` fills, as SVG text. height: in inches; the width is 6."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height), layout="constrained")
    FigureCanvasSVG(figure)
    plot(figure)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]


def _short(value: float) -> str:
    return f"{value:,.3f}" if abs(value) < 1 else f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
