"""Charts of the report as SVG text, with matplotlib's object interface: no display, no global state."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float]]


def loss_curves(curves: Mapping[str, Curve]) -> str:
    """What each run minimises over its tokens, as a running mean of 20 steps."""

    def plot(axes: Axes) -> None:
        for name, (tokens, losses) in curves.items():
            width = min(20, len(losses))
            smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
            axes.plot(np.asarray(tokens[width - 1 :]) / 1e3, smooth, label=name)
        axes.set(xlabel="thousand tokens learned from", ylabel="its objective, nats", yscale="log")
        axes.legend(frameon=False)

    return _draw(plot)


def entropy_histogram(entropies: npt.NDArray[np.float64]) -> str:
    """Distribution of the teacher's entropy over positions."""

    def plot(axes: Axes) -> None:
        axes.hist(entropies, bins=60)
        axes.axvline(float(entropies.mean()), linestyle="--", color="black", label=f"mean {entropies.mean():.2f}")
        axes.set(xlabel="entropy, nats", ylabel="tokens")
        axes.legend(frameon=False)

    return _draw(plot)


def retained_mass(mass: Mapping[int, float]) -> str:
    """Mean mass outside the k largest entries, by k."""

    def plot(axes: Axes) -> None:
        axes.plot(list(mass), [max(1 - m, 1e-9) for m in mass.values()], marker="o")
        axes.set(xlabel="k", ylabel="mass left out", xscale="log", yscale="log")
        axes.set_xticks(list(mass), [str(k) for k in mass])
        axes.minorticks_off()

    return _draw(plot)


def bars(values: Mapping[str, float], label: str) -> str:
    """Horizontal bars with their values."""

    def plot(axes: Axes) -> None:
        drawn = axes.barh(list(values), list(values.values()))
        axes.bar_label(
            drawn, labels=[f" {value:,.1f}" if value < 100 else f" {value:,.0f}" for value in values.values()]
        )
        axes.set(xlabel=label)
        axes.invert_yaxis()
        axes.margins(x=0.18)

    return _draw(plot)


def _draw(plot: Any) -> str:
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    plot(axes)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
