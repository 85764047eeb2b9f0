"""Progress callbacks: functions that long work calls with (done, total)."""

from collections.abc import Callable

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def part_of(progress: Progress, number: int, parts: int) -> Progress:
    """Progress of part `number`, from 0, of work in several parts, in hundredths of a part.

    Parts have totals of their own, and who shows the progress expects one total for all of the work.
    """

    def report(done: int, total: int) -> None:
        progress(100 * number + 100 * done // max(total, 1), 100 * parts)

    return report
