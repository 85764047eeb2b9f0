"""Charts of a report about training and stores, as SVG text."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluster.report.loss_history import LossPanel
from student.tasks.figures import draw, to_svg

SMOOTHED_STEPS = 20


def loss_curves(panels: Sequence[LossPanel]) -> str:
    """Loss over tokens, one panel for each objective. Training losses are running means of SMOOTHED_STEPS steps."""

    def plot(panel: LossPanel, axes: Axes) -> None:
        for name, (tokens, losses) in panel.curves.items():
            width = 1 if panel.is_heldout else min(SMOOTHED_STEPS, len(losses))
            smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
            marker = "o" if panel.is_heldout else None
            axes.plot(np.asarray(tokens[width - 1 :]) / 1e3, smooth, label=name, marker=marker, markersize=3)
        axes.set(ylabel="nats", yscale="log")
        axes.set_title(panel.title, fontsize=9)
        axes.legend(frameon=False)

    def plot_all(figure: Figure) -> None:
        rows = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for panel, axes in zip(panels, rows, strict=True):
            axes.spines[["top", "right"]].set_visible(False)
            plot(panel, axes)
        rows[-1].set(xlabel="thousand tokens learned from")

    return to_svg(plot_all, height=0.8 + 2.6 * len(panels))


def entropy_histogram(entropies: npt.NDArray[np.float64]) -> str:
    """Distribution of the teacher's entropy over positions."""

    def plot(axes: Axes) -> None:
        axes.hist(entropies, bins=60)
        axes.axvline(float(entropies.mean()), linestyle="--", color="black", label=f"mean {entropies.mean():.2f}")
        axes.set(xlabel="entropy, nats", ylabel="tokens")
        axes.legend(frameon=False)

    return draw(plot)


def retained_mass(mass: Mapping[int, float]) -> str:
    """Mean mass outside the k largest entries, by k."""

    def plot(axes: Axes) -> None:
        axes.plot(list(mass), [max(1 - m, 1e-9) for m in mass.values()], marker="o")
        axes.set(xlabel="k", ylabel="mass left out", xscale="log", yscale="log")
        axes.set_xticks(list(mass), [str(k) for k in mass])
        axes.minorticks_off()

    return draw(plot)
