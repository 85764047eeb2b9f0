"""Progress bars with rate and time left; in a log file, a line now and then instead."""

import sys
import weakref
from typing import Any

from tqdm import tqdm

from cache.progress import Progress

# Those that may not have ended their line yet.
_BARS: "weakref.WeakSet[tqdm[Any]]" = weakref.WeakSet()


def bar(description: str, total: int, unit: str, initial: int = 0) -> "tqdm[Any]":
    """A bar on standard error."""
    interactive = sys.stderr.isatty()
    made = tqdm(
        total=total,
        desc=f"{description:<12}",
        unit=f" {unit}",
        initial=initial,
        unit_scale=total >= 10_000,
        dynamic_ncols=interactive,
        ncols=None if interactive else 110,
        mininterval=0.2 if interactive else 10,
        maxinterval=1 if interactive else 10,
        ascii=not interactive,
    )
    _BARS.add(made)
    return made


def close_bars() -> None:
    """End the line of every bar that is drawn, so that what is printed next has one of its own."""
    for each in list(_BARS):
        each.close()


def counter(description: str, unit: str) -> Progress:
    """A function of (done, total) that draws a bar; for work that reports where it is."""
    shown: list[tqdm[Any]] = []

    def update(done: int, total: int) -> None:
        if not shown:
            shown.append(bar(description, total, unit))
        shown[0].update(done - shown[0].n)
        if done >= total:
            shown[0].close()

    return update
