"""Charts of a report about training and stores, as SVG text."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluster.report.training_history import LossPanel
from student.tasks.figures import draw, to_svg

SMOOTHED_STEPS = 20
TIME_BINS = 60


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


def rate_over_time(seconds: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> str:
    """Rows a second over time, from the times of commits in order and their rows. Times are cut into TIME_BINS."""

    def plot(axes: Axes) -> None:
        counts, edges = np.histogram(seconds, bins=min(TIME_BINS, len(seconds)), weights=rows)
        unit, name = (
            (3600, "hours") if seconds[-1] > 2 * 3600 else (60, "minutes") if seconds[-1] > 120 else (1, "seconds")
        )
        axes.stairs(counts / np.diff(edges), edges / unit, fill=True)
        axes.set(xlabel=f"{name} since the first commit", ylabel="tokens a second")

    return draw(plot)


def length_histogram(lengths: Mapping[str, npt.NDArray[np.uint32]]) -> str:
    """Distribution of lengths in tokens, a curve for each name."""

    def plot(axes: Axes) -> None:
        highest = max(int(values.max(initial=1)) for values in lengths.values())
        for name, values in lengths.items():
            axes.hist(values, bins=60, range=(0, highest), histtype="step", label=f"{name}, mean {values.mean():,.0f}")
        axes.set(xlabel="tokens", ylabel="examples")
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
